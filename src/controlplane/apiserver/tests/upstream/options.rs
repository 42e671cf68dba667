//! Selectors of lists, and the options of every verb.

use super::*;

/// The names that a list shows, and how many more there are.
fn listed(code: u64, answer: &Value) -> Value {
    let Some(items) = answer["items"].as_array() else { return json!({"code": code}) };
    let names: Vec<&Value> = items.iter().map(|item| &item["metadata"]["name"]).collect();
    let meta = &answer["metadata"];
    match meta["continue"].as_str() {
        Some(token) if !token.is_empty() => {
            let more = meta.get("remainingItemCount").cloned().unwrap_or_else(|| "?".into());
            json!({"code": code, "names": names, "more": more})
        }
        _ => json!({"code": code, "names": names}),
    }
}

/// An answer as the golden data has it; `stood` is the object that the address names.
fn brief(code: u64, answer: &Value, stood: &Value) -> Value {
    let answer = cleaned(answer);
    if answer["kind"] == "Status" {
        let keys = ["status", "reason", "message"].into_iter().filter(|key| answer.get(key).is_some());
        let status: serde_json::Map<_, _> = keys.map(|key| (key.to_owned(), answer[key].clone())).collect();
        return json!({"code": code, "status": status});
    }
    json!({"code": code, "kept": difference(stood, &answer)})
}

#[tokio::test]
async fn selectors_and_options_are_taken_as_upstream_takes_them() {
    let server = Server::new().await;
    server.default_account().await;
    let mut topic = Topic::read("options");
    for group in std::mem::take(&mut topic.groups) {
        for step in group["setup"].as_array().into_iter().flatten() {
            server.create(step[0].as_str().expect("a path"), step[1].clone()).await;
        }
        for case in group["cases"].as_array().into_iter().flatten() {
            let (method, uri) =
                (case["method"].as_str().expect("a verb"), case["path"].as_str().expect("a path"));
            let kind = case["kind"].as_str().unwrap_or("application/json");
            let body = case.get("body").unwrap_or(&Value::Null);
            let (code, answer) = server.try_case(method, uri, kind, body).await;
            let theirs = &case["answer"];
            let refused = code >= 300 || theirs["code"].as_u64().is_some_and(|code| code >= 300);
            let differs = if refused {
                compare(&topic, "", (code, &answer), (theirs, &Value::Null, &Value::Null))
            } else {
                let path = uri.split('?').next().unwrap_or_default();
                let stood = match server.get(path).await {
                    (code, stood) if code == 200 && stood.get("items").is_none() => cleaned(&stood),
                    _ => json!({}),
                };
                let mut ours = match method == "GET" || answer.get("items").is_some() {
                    true => listed(code, &answer),
                    false => brief(code, &answer, &stood),
                };
                let mut expected = theirs.clone();
                let plural = path.split('/').nth_back(1).unwrap_or_default();
                for answer in [&mut ours, &mut expected] {
                    if let Some(kept) = answer.get_mut("kept") {
                        topic.forget_fields(plural, kept);
                    }
                }
                (ours != expected).then(|| ours.to_string())
            };
            let body = case.get("body").map_or(String::new(), |body| format!(" {body}"));
            let kind = case["kind"].as_str().map_or(String::new(), |kind| format!(" {kind}"));
            topic.note(format!("{method} {uri}{kind}{body}"), theirs, differs);
        }
    }
    topic.end();
}
