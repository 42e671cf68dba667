//! What upstream's own API server answered to a few hundred creates with one mistake each (`scripts/upstream-answers` asked it),
//! and what this server answers. Where they differ, `differences.json` says why.

use std::collections::BTreeMap;

use super::*;

const ANSWERS: &str = include_str!("../../../../tests/golden/upstream/creates.json");
const DIFFERENCES: &str = "tests/golden/upstream/differences.json";

/// The good object with the case's mistake.
fn mutant(base: &Value, case: &Value) -> Value {
    let mut made = base.clone();
    let Some(at) = case["at"].as_array() else { return made };
    let Some((last, owners)) = at.split_last() else { return made };
    let step = |key: &Value| key.as_str().map_or_else(|| key.to_string(), str::to_owned);
    let pointer: String = owners.iter().map(|key| format!("/{}", step(key).replace('/', "~1"))).collect();
    let owner = made.pointer_mut(&pointer).expect("the owner of the mistake");
    match (case.get("value"), owner) {
        (Some(value), owner) => match last.as_u64() {
            Some(index) => owner[usize::try_from(index).expect("an index")] = value.clone(),
            None => owner[step(last).as_str()] = value.clone(),
        },
        (None, Value::Array(list)) => {
            list.remove(usize::try_from(last.as_u64().expect("an index")).expect("an index"));
        }
        (None, owner) => {
            owner.as_object_mut().expect("a map").remove(&step(last));
        }
    }
    made
}

/// Code, reason, and the fields that are wrong with how they are wrong. Sentences are newer here than there.
fn essence(code: u64, reason: &str, causes: impl Iterator<Item = (String, String)>) -> String {
    let mut causes: Vec<String> = causes.map(|(field, reason)| format!("{field} {reason}")).collect();
    causes.sort_unstable();
    causes.dedup();
    if code < 300 { "accepted".to_owned() } else { format!("{code} {reason}: {}", causes.join(", ")) }
}

fn theirs(answer: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let causes = answer["causes"].as_array().into_iter().flatten();
    let causes = causes.map(|cause| (text(&cause[0]), text(&cause[1])));
    essence(answer["code"].as_u64().unwrap_or(0), &text(&answer["reason"]), causes)
}

fn ours(code: StatusCode, status: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    let causes = causes.map(|cause| (text(&cause["field"]), text(&cause["reason"])));
    essence(u64::from(code.as_u16()), &text(&status["reason"]), causes)
}

fn title(path: &str, case: &Value) -> String {
    let plural = path.rsplit('/').next().unwrap_or_default();
    let Some(at) = case["at"].as_array() else { return format!("{plural} as it is") };
    let at: Vec<String> =
        at.iter().map(|key| key.as_str().map_or_else(|| key.to_string(), str::to_owned)).collect();
    match case.get("value") {
        Some(value) => format!("{plural} {} = {value}", at.join(".")),
        None => format!("{plural} {} left out", at.join(".")),
    }
}

#[tokio::test]
async fn creates_are_judged_as_upstream_judges_them() {
    let server = Server::new().await;
    server
        .create("/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}}))
        .await;
    let groups: Vec<Value> = serde_json::from_str(ANSWERS).expect("golden answers");
    let mut found: BTreeMap<String, [String; 2]> = BTreeMap::new();
    for group in &groups {
        let path = group["path"].as_str().expect("a path");
        for case in group["cases"].as_array().into_iter().flatten() {
            let object = mutant(&group["base"], case);
            let (code, answer) = server.send("POST", &format!("{path}?dryRun=All"), &object).await;
            let (theirs, ours) = (theirs(&case["answer"]), ours(code, &answer));
            if theirs != ours {
                found.insert(title(path, case), [theirs, ours]);
            }
        }
    }
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..").join(DIFFERENCES);
    let text = std::fs::read_to_string(&file).unwrap_or_else(|_| "{}".to_owned());
    let known: BTreeMap<String, Value> = serde_json::from_str(&text).expect("known differences");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let why = |title: &str| known.get(title).and_then(|row| row["why"].as_str()).unwrap_or("").to_owned();
        let rows: BTreeMap<&String, Value> = found
            .iter()
            .map(|(title, [theirs, ours])| {
                (title, json!({"upstream": theirs, "here": ours, "why": why(title)}))
            })
            .collect();
        std::fs::write(&file, serde_json::to_string_pretty(&rows).expect("rows") + "\n").expect("written");
        return;
    }
    let expected: BTreeMap<String, [String; 2]> = known
        .iter()
        .map(|(title, row)| {
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            assert_ne!(text("why"), "", "{title}: say why it differs");
            (title.clone(), [text("upstream"), text("here")])
        })
        .collect();
    assert_eq!(found, expected);
}
