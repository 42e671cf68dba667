//! What upstream's own API server answered to a few thousand requests (`scripts/upstream-answers` asked it), and what this server
//! answers. Where they differ, the topic's file in `tests/golden/upstream/differences` says why.

mod creates;
mod options;
mod patches;
mod updates;

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;

/// A topic: what was asked and answered, and what may differ.
struct Topic {
    name: &'static str,
    groups: Vec<Value>,
    known: Differences,
    /// Title of the case, what is different.
    found: BTreeMap<String, String>,
    cases: usize,
}

/// What may differ, and why.
#[derive(Default, serde::Serialize, serde::Deserialize)]
struct Differences {
    /// Fields that one of both fills in.
    #[serde(default)]
    fields: Vec<Field>,
    /// What is said in other words.
    #[serde(default)]
    sentences: Vec<Sentence>,
    /// Title of the case, what this server answers instead.
    #[serde(default)]
    cases: Vec<Cases>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Field {
    /// The plurals of the kinds.
    of: Vec<String>,
    /// Its members' names; `*`: each element of a list.
    at: String,
    why: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Sentence {
    upstream: String,
    here: String,
    why: String,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct Cases {
    why: String,
    here: BTreeMap<String, String>,
}

fn golden(name: &str) -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/golden/upstream").join(name)
}

impl Topic {
    fn read(name: &'static str) -> Self {
        let answers = std::fs::read_to_string(golden(&format!("{name}.json"))).expect("golden answers");
        let known = std::fs::read_to_string(golden(&format!("differences/{name}.json")));
        Self {
            name,
            groups: serde_json::from_str(&answers).expect("golden answers"),
            known: known
                .map_or_else(|_| Differences::default(), |text| serde_json::from_str(&text).expect("JSON")),
            found: BTreeMap::new(),
            cases: 0,
        }
    }

    /// Compares refusals, in words that both would use.
    fn refused(&self, code: u64, theirs: &Value, ours: &Value) -> Option<String> {
        let ours = refused(code, ours);
        let (theirs, ours) = (refusal(theirs, &ours), refusal(&ours, theirs));
        let translated = self
            .known
            .sentences
            .iter()
            .fold(theirs.clone(), |text, said| text.replace(&said.upstream, &said.here));
        (theirs != ours && translated != ours).then_some(ours)
    }

    /// The object without what only newer or older servers fill in.
    fn comparable(&self, plural: &str, object: &Value) -> Value {
        let mut made = cleaned(object);
        self.forget_fields(plural, &mut made);
        made
    }

    /// Removes what only newer or older servers fill in.
    fn forget_fields(&self, plural: &str, object: &mut Value) {
        for field in self.known.fields.iter().filter(|field| field.of.iter().any(|of| of == plural)) {
            let steps: Vec<String> =
                field.at.split('/').skip(1).map(|step| step.replace("~1", "/")).collect();
            forget(object, &steps);
        }
    }

    /// Counts a case, and says where it differs.
    fn note(&mut self, title: String, theirs: &Value, difference: Option<String>) {
        self.cases += 1;
        if let Some(here) = difference {
            println!("{title}\n  upstream: {theirs}\n  here: {here}");
            self.found.insert(title, here);
        }
    }

    /// Fails where something differs that need not, or no longer differs. `UPDATE_GOLDEN` writes down what differs; why is for
    /// people to say.
    fn end(self) {
        let whys: BTreeMap<&str, &str> = self
            .known
            .cases
            .iter()
            .flat_map(|cases| cases.here.keys().map(|title| (title.as_str(), cases.why.as_str())))
            .collect();
        let mut cases: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
        for (title, here) in &self.found {
            let why = whys.get(title.as_str()).copied().unwrap_or_default();
            cases.entry(why).or_default().insert(title.clone(), here.clone());
        }
        let found: Vec<Cases> =
            cases.into_iter().map(|(why, here)| Cases { why: why.to_owned(), here }).collect();
        println!("{}: {} cases, {} differ", self.name, self.cases, self.found.len());
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            let Differences { fields, sentences, .. } = self.known;
            let all = Differences { fields, sentences, cases: found };
            let text = serde_json::to_string_pretty(&all).expect("JSON");
            std::fs::write(golden(&format!("differences/{}.json", self.name)), text + "\n").expect("written");
            return;
        }
        let known = |cases: &[Cases]| -> BTreeMap<String, String> {
            cases.iter().flat_map(|cases| cases.here.clone()).collect()
        };
        assert_eq!(self.found, known(&self.known.cases), "{}", self.name);
        let silent = self.known.cases.iter().find(|cases| cases.why.is_empty());
        assert!(silent.is_none(), "{}: say why it differs", self.name);
    }
}

/// Removes what is at a path, in each element where it leads through lists.
fn forget(value: &mut Value, steps: &[String]) {
    let Some((step, rest)) = steps.split_first() else { return };
    if step == "*" {
        value.as_array_mut().into_iter().flatten().for_each(|item| forget(item, rest));
    } else if let Some(map) = value.as_object_mut() {
        if rest.is_empty() {
            map.remove(step);
        } else if let Some(member) = map.get_mut(step) {
            forget(member, rest);
            if member.as_object().is_some_and(serde_json::Map::is_empty) {
                map.remove(step);
            }
        }
    }
}

/// Without what is empty in Go: null, and a list without items.
fn without_null(value: &Value) -> Value {
    match value {
        Value::Object(map) => map
            .iter()
            .filter(|(_, member)| !member.is_null() && member.as_array().is_none_or(|list| !list.is_empty()))
            .map(|(key, member)| (key.clone(), without_null(member)))
            .collect(),
        Value::Array(list) => list.iter().map(without_null).collect(),
        other => other.clone(),
    }
}

/// Without what each server gives by itself. When something was deleted is no matter, only that it was.
fn cleaned(object: &Value) -> Value {
    let mut made = without_null(object);
    if let Some(meta) = made.get_mut("metadata").and_then(Value::as_object_mut) {
        for own in ["uid", "creationTimestamp", "managedFields", "resourceVersion", "selfLink"] {
            meta.remove(own);
        }
        if let Some(then) = meta.get_mut("deletionTimestamp") {
            *then = "then".into();
        }
    }
    if made["kind"] == "CertificateSigningRequest" {
        let conditions = made.pointer_mut("/status/conditions").and_then(Value::as_array_mut);
        for condition in conditions.into_iter().flatten() {
            for time in ["lastTransitionTime", "lastUpdateTime"] {
                if let Some(then) = condition.get_mut(time) {
                    *then = "then".into();
                }
            }
        }
    }
    made
}

/// The merge patch that makes `new` of `old`.
fn difference(old: &Value, new: &Value) -> Value {
    let (Some(before), Some(after)) = (old.as_object(), new.as_object()) else { return new.clone() };
    let gone = before.keys().filter(|key| !after.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(value)).map(|(key, value)| {
        let both = before.get(key).filter(|old| old.is_object() && value.is_object());
        (key.clone(), both.map_or_else(|| value.clone(), |old| difference(old, value)))
    });
    gone.chain(changed).collect()
}

/// What the golden data says that a change makes of `old`: a merge patch, but for lists, which say of their items where they stood.
fn made_of(old: &Value, change: &Value) -> Value {
    match (old, change) {
        (Value::Object(before), Value::Object(change)) => {
            let mut made = before.clone();
            for (key, value) in change {
                match value {
                    Value::Null => made.remove(key),
                    value => made.insert(key.clone(), made_of(&old[key], value)),
                };
            }
            Value::Object(made)
        }
        (Value::Array(before), Value::Array(items)) => items
            .iter()
            .map(|item| match item.get("=") {
                Some(at) => {
                    let stood = &before[index(at)];
                    item.get("+").map_or_else(|| stood.clone(), |change| made_of(stood, change))
                }
                None => item.clone(),
            })
            .collect(),
        (_, change) => change.clone(),
    }
}

/// A sentence as the golden data has it: its first line, without the words of a decoder, and without which operation of a patch
/// failed, which upstream does not say.
fn sentence(text: &str) -> String {
    const DECODING: &str = "cannot be handled as a ";
    const REJECTED: &str = "the server rejected our request due to an error in our request";
    let first = text.lines().next().unwrap_or_default();
    if first.starts_with(REJECTED) {
        return REJECTED.to_owned();
    }
    // What only one server can know of its own objects.
    let own = ["UID in object meta: ", " in record ("].iter().find_map(|before| first.find(before));
    let first = &first[..own.unwrap_or(first.len())];
    let end = first.find(DECODING).and_then(|at| Some(at + first[at..].find(": ")?));
    first[..end.unwrap_or(first.len())].to_owned()
}

/// A refusal as the golden data has it.
fn refused(code: u64, status: &Value) -> Value {
    let causes = status["details"]["causes"].as_array().filter(|causes| !causes.is_empty());
    let Some(causes) = causes else {
        let message = sentence(status["message"].as_str().unwrap_or_default());
        return json!({"code": code, "reason": status["reason"], "message": message});
    };
    let text = |cause: &Value, key: &str| sentence(cause[key].as_str().unwrap_or_default());
    let mut said: Vec<[String; 3]> = causes
        .iter()
        .map(|cause| match text(cause, "field") {
            // The patched object, and what the decoder says of it.
            field if field == "patch" => [field, text(cause, "reason"), "Invalid value".to_owned()],
            // A uid.
            field if field.ends_with("controller-uid]") => [field, text(cause, "reason"), String::new()],
            field => [field, text(cause, "reason"), text(cause, "message")],
        })
        .collect();
    said.sort_unstable();
    json!({"code": code, "reason": status["reason"], "causes": said})
}

/// A refusal in a line. `beside`: the other server's; where that could print a value in its own language only, it is left out here.
fn refusal(answer: &Value, beside: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let Some(causes) = answer["causes"].as_array() else {
        let message = sentence(answer["message"].as_str().unwrap_or_default());
        return format!("{} {}: {message}", answer["code"], text(&answer["reason"]));
    };
    let others = || beside["causes"].as_array().into_iter().flatten();
    let mut said: Vec<String> = causes
        .iter()
        .map(|cause| {
            let uid = text(&cause[0]).ends_with("controller-uid]");
            let message = if uid { String::new() } else { text(&cause[2]) };
            let fits = |other: &Value| {
                let (before, why) =
                    text(&other[2]).split_once("{}").map(|(a, b)| (a.to_owned(), b.to_owned()))?;
                (other[0] == cause[0] && message.starts_with(&before) && message.ends_with(&why))
                    .then(|| format!("{before}{{}}{why}"))
            };
            let message = others().find_map(fits).unwrap_or(message);
            format!("{} {}: {message}", text(&cause[0]), text(&cause[1]))
        })
        .collect();
    said.sort_unstable();
    said.dedup();
    format!("{} {}: {}", answer["code"], text(&answer["reason"]), said.join("; "))
}

impl Server {
    /// Sends what a case says: nothing, a text as it is, or JSON.
    async fn try_case(&self, method: &str, uri: &str, kind: &str, body: &Value) -> (u64, Value) {
        let body = match body {
            Value::Null => Body::empty(),
            Value::String(text) => Body::from(text.clone()),
            body => Body::from(body.to_string()),
        };
        let response = self.raw(method, uri, &[("content-type", kind)], body).await;
        let code = u64::from(response.status().as_u16());
        let bytes = response.into_body().collect().await.expect("body").to_bytes();
        let text = || json!({"message": String::from_utf8_lossy(&bytes)});
        (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| text()))
    }

    /// The account of Pods, without a token of its own.
    async fn default_account(&self) {
        let account = json!({"metadata": {"name": "default"}, "automountServiceAccountToken": false});
        self.create("/api/v1/namespaces/default/serviceaccounts", account).await;
    }
}

/// What a group is about: `(plural, path of the collection, name of the object)`.
fn of_group(group: &Value) -> (String, String, String) {
    let path = group["path"].as_str().expect("a path").to_owned();
    let name = group["base"]["metadata"]["name"].as_str().expect("a name").to_owned();
    (path.rsplit('/').next().unwrap_or_default().to_owned(), path, name)
}

/// Compares an answer with the golden one. `kept` is what stood, `sent` what was sent, as upstream has them.
fn compare(
    topic: &Topic,
    plural: &str,
    (code, ours): (u64, &Value),
    (theirs, kept, sent): (&Value, &Value, &Value),
) -> Option<String> {
    if code >= 300 || theirs["code"].as_u64().is_some_and(|code| code >= 300) {
        if code < 300 {
            return Some("accepted".to_owned());
        }
        return topic.refused(code, theirs, ours);
    }
    let (from, change) = match (theirs.get("kept"), theirs.get("sent")) {
        (Some(change), _) => (kept, change),
        (_, Some(change)) => (sent, change),
        _ => return (theirs["code"] != code).then(|| format!("{code}")),
    };
    let expected = topic.comparable(plural, &made_of(&cleaned(from), change));
    let ours = topic.comparable(plural, ours);
    if expected == ours && theirs["code"] == code {
        return None;
    }
    Some(format!("{code} {}", difference(&expected, &ours)))
}

/// The object with the case's change.
fn changed(stored: &Value, case: &Value) -> Value {
    let mut made = stored.clone();
    let Some((last, owners)) = case["at"].as_array().and_then(|at| at.split_last()) else { return made };
    let mut owner = &mut made;
    for step in owners {
        owner = match step.as_str() {
            Some(key) => {
                if owner.get(key).is_none() {
                    owner[key] = json!({});
                }
                &mut owner[key]
            }
            None => &mut owner[index(step)],
        };
    }
    match (case.get("value"), last.as_str(), owner) {
        (Some(value), Some(key), owner) => owner[key] = value.clone(),
        (Some(value), None, owner) => owner[index(last)] = value.clone(),
        (None, Some(key), Value::Object(map)) => {
            map.remove(key);
        }
        (None, _, Value::Array(list)) => {
            list.remove(index(last));
        }
        _ => {}
    }
    made
}

fn index(step: &Value) -> usize {
    step.as_u64().and_then(|step| usize::try_from(step).ok()).expect("an index")
}

fn title(plural: &str, case: &Value) -> String {
    let at: Vec<String> = case["at"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|key| key.as_str().map_or_else(|| key.to_string(), str::to_owned))
        .collect();
    let part = case["sub"].as_str().map_or(String::new(), |sub| format!("/{sub}"));
    match (case.get("value"), at.is_empty()) {
        (_, true) => format!("{plural}{part} as it is"),
        (Some(value), _) => format!("{plural}{part} {} = {value}", at.join(".")),
        (None, _) => format!("{plural}{part} {} left out", at.join(".")),
    }
}
