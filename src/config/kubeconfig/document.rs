//! A kubeconfig as a document: entries go in and out, everything else stays.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::KubeconfigError;

/// One cluster in a kubeconfig: context, cluster and user of the same name. PEM texts.
#[derive(Clone, Debug)]
pub struct Entry {
    pub name: String,
    pub server: String,
    pub ca: String,
    pub certificate: String,
    pub key: String,
}

/// Our extension of a context: remembers the context that was current before.
const EXTENSION: &str = "minik.dev";

/// A kubeconfig as generic data.
#[derive(Debug, PartialEq)]
pub(super) struct Document(Map<String, Value>);

impl Default for Document {
    fn default() -> Self {
        let empty = json!({"apiVersion": "v1", "kind": "Config", "preferences": {}});
        Self(empty.as_object().cloned().unwrap_or_default())
    }
}

impl Document {
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, KubeconfigError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let malformed = |why: String| KubeconfigError::Malformed { path: path.to_owned(), why };
        let value: Value = serde_yaml::from_str(text).map_err(|error| malformed(error.to_string()))?;
        let map = match value {
            Value::Null => return Ok(Self::default()),
            Value::Object(map) => map,
            _ => return Err(malformed("it is not a map".to_owned())),
        };
        for list in ["clusters", "contexts", "users"] {
            if !matches!(map.get(list), None | Some(Value::Null | Value::Array(_))) {
                return Err(malformed(format!("{list} is not a list")));
            }
        }
        Ok(Self(map))
    }

    pub(super) fn to_yaml(&self, path: &Path) -> Result<String, KubeconfigError> {
        serde_yaml::to_string(&self.0)
            .map_err(|error| KubeconfigError::Malformed { path: path.to_owned(), why: error.to_string() })
    }

    /// Puts an entry in, in place of one of the same name.
    pub(super) fn put(&mut self, entry: &Entry, switch: bool) {
        let name = &entry.name;
        let before = self.current().filter(|current| current != name).or_else(|| self.remembered(name));
        let data = |pem: &str| STANDARD.encode(pem);
        self.replace(
            "clusters",
            name,
            json!({"name": name, "cluster": {
                "certificate-authority-data": data(&entry.ca),
                "server": entry.server,
            }}),
        );
        self.replace(
            "users",
            name,
            json!({"name": name, "user": {
                "client-certificate-data": data(&entry.certificate),
                "client-key-data": data(&entry.key),
            }}),
        );
        let mut context = json!({"cluster": name, "user": name});
        if let Some(before) = before.filter(|_| switch) {
            context["extensions"] = json!([{"name": EXTENSION, "extension": {"previous-context": before}}]);
        }
        self.replace("contexts", name, json!({"name": name, "context": context}));
        if switch || self.current().is_none() {
            self.0.insert("current-context".to_owned(), json!(name));
        }
    }

    /// Replaces an entry that is there, without touching which context is current. Returns whether it was there.
    pub(super) fn renew(&mut self, entry: &Entry) -> bool {
        let Some(context) = self.context(&entry.name).cloned() else { return false };
        let current = self.0.get("current-context").cloned();
        self.put(entry, false);
        // The context carries what people added to it, a namespace for example.
        self.replace("contexts", &entry.name, context);
        if let Some(current) = current {
            self.0.insert("current-context".to_owned(), current);
        }
        true
    }

    /// Makes a context that is there the current one, and remembers the one before. Returns whether it was there.
    pub(super) fn switch(&mut self, name: &str) -> bool {
        let Some(mut context) = self.context(name).cloned() else { return false };
        let before = self.current().filter(|current| current != name);
        if let (Some(before), None) = (before, self.remembered(name)) {
            context["context"]["extensions"] =
                json!([{"name": EXTENSION, "extension": {"previous-context": before}}]);
            self.replace("contexts", name, context);
        }
        self.0.insert("current-context".to_owned(), json!(name));
        true
    }

    /// Takes an entry out; returns whether it was there.
    pub(super) fn remove(&mut self, name: &str) -> bool {
        let before = self.remembered(name);
        let mut any = false;
        for list in ["clusters", "contexts", "users"] {
            if let Some(Value::Array(items)) = self.0.get_mut(list) {
                let count = items.len();
                items.retain(|item| item["name"] != name);
                any |= items.len() != count;
            }
        }
        self.inherit(name, before.as_deref());
        if self.current().as_deref() == Some(name) {
            any = true;
            match before.filter(|before| self.context(before).is_some()) {
                Some(before) => self.0.insert("current-context".to_owned(), json!(before)),
                None => self.0.insert("current-context".to_owned(), json!("")),
            };
        }
        any
    }

    /// Whoever remembered the removed context now remembers what that one did.
    fn inherit(&mut self, removed: &str, before: Option<&str>) {
        let heirs: Vec<String> = self
            .0
            .get("contexts")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|item| item["name"].as_str())
            .filter(|heir| self.remembered(heir).as_deref() == Some(removed))
            .map(ToOwned::to_owned)
            .collect();
        let Some(Value::Array(contexts)) = self.0.get_mut("contexts") else { return };
        for item in contexts.iter_mut().filter(|item| heirs.iter().any(|heir| item["name"] == **heir)) {
            match before {
                Some(before) => {
                    let Value::Array(extensions) = &mut item["context"]["extensions"] else { continue };
                    for ours in extensions.iter_mut().filter(|extension| extension["name"] == EXTENSION) {
                        ours["extension"]["previous-context"] = before.into();
                    }
                }
                None => {
                    drop(item["context"].as_object_mut().and_then(|context| context.remove("extensions")))
                }
            }
        }
    }

    fn current(&self) -> Option<String> {
        let current = self.0.get("current-context")?.as_str()?;
        (!current.is_empty()).then(|| current.to_owned())
    }

    fn context(&self, name: &str) -> Option<&Value> {
        self.0.get("contexts")?.as_array()?.iter().find(|item| item["name"] == name)
    }

    /// The context that was current before this one was put in.
    fn remembered(&self, name: &str) -> Option<String> {
        let extensions = self.context(name)?["context"]["extensions"].as_array()?;
        let ours = extensions.iter().find(|item| item["name"] == EXTENSION)?;
        ours["extension"]["previous-context"].as_str().map(ToOwned::to_owned)
    }

    fn replace(&mut self, list: &str, name: &str, item: Value) {
        let slot = self.0.entry(list.to_owned()).or_insert_with(|| json!([]));
        if slot.is_null() {
            *slot = json!([]);
        }
        let Value::Array(items) = slot else { return };
        match items.iter_mut().find(|item| item["name"] == name) {
            Some(there) => *there = item,
            None => items.push(item),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str) -> Entry {
        let text = |what: &str| format!("{what} of {name}");
        Entry {
            name: name.to_owned(),
            server: "https://127.0.0.1:1".to_owned(),
            ca: text("ca"),
            certificate: text("certificate"),
            key: text("key"),
        }
    }

    fn parse(text: &str) -> Document {
        Document::parse(text, Path::new("test")).expect("well formed")
    }

    const OTHERS: &str = r#"
apiVersion: v1
kind: Config
clusters:
- name: work
  cluster: {server: "https://work", insecure-skip-tls-verify: true}
contexts:
- name: work
  context: {cluster: work, user: work, namespace: "0123"}
users:
- name: work
  user: {token: "12345", username: "yes", password: "1e3", exec: {args: ["null", "~", "0x1f", "2001-01-01", "a: b", "- x", " pad "]}}
current-context: work
"#;

    #[test]
    fn what_was_put_in_can_be_taken_out_without_a_trace() {
        let mut document = parse(OTHERS);
        document.put(&entry("minik-a"), true);
        assert_eq!(document.current().as_deref(), Some("minik-a"));
        assert!(document.remove("minik-a"));
        assert_eq!(document, parse(OTHERS));
        assert!(!document.remove("minik-a"));
    }

    #[test]
    fn writing_keeps_every_value_what_it_was() {
        let mut document = parse(OTHERS);
        document.put(&entry("minik-a"), true);
        let text = document.to_yaml(Path::new("test")).expect("writable");
        assert_eq!(parse(&text), document, "{text}");
    }

    #[test]
    fn the_context_before_comes_back_if_it_still_exists() {
        let mut document = parse(OTHERS);
        document.put(&entry("minik-a"), true);
        document.put(&entry("minik-b"), true);
        document.put(&entry("minik-b"), true);
        document.remove("minik-b");
        assert_eq!(document.current().as_deref(), Some("minik-a"));
        document.put(&entry("minik-b"), true);
        document.remove("minik-a");
        document.remove("minik-b");
        assert_eq!(document, parse(OTHERS), "memories are handed on, so the first context is current again");
        let mut empty = parse("");
        empty.put(&entry("minik-a"), true);
        empty.put(&entry("minik-b"), true);
        empty.remove("minik-a");
        assert!(!empty.to_yaml(Path::new("test")).expect("writable").contains("minik-a"));
        empty.remove("minik-b");
        assert_eq!(empty.current(), None);
    }

    #[test]
    fn without_switching_the_current_context_stays() {
        let mut document = parse(OTHERS);
        document.put(&entry("minik-a"), false);
        assert_eq!(document.current().as_deref(), Some("work"));
        let mut empty = parse("");
        empty.put(&entry("minik-a"), false);
        assert_eq!(empty.current().as_deref(), Some("minik-a"));
    }

    #[test]
    fn renewing_changes_the_entry_alone() {
        let mut document = parse(OTHERS);
        assert!(!document.renew(&entry("minik-a")));
        document.put(&entry("minik-a"), false);
        let fresh = Entry { certificate: "new".to_owned(), ..entry("minik-a") };
        assert!(document.renew(&fresh));
        let text = document.to_yaml(Path::new("test")).expect("writable");
        assert!(text.contains(&STANDARD.encode("new")), "{text}");
        assert_eq!(document.current().as_deref(), Some("work"));
    }

    #[test]
    fn switching_remembers_the_context_before() {
        let mut document = parse(OTHERS);
        document.put(&entry("minik-a"), false);
        assert!(document.switch("minik-a") && !document.switch("minik-b"));
        assert_eq!(document.current().as_deref(), Some("minik-a"));
        document.remove("minik-a");
        assert_eq!(document, parse(OTHERS));
    }

    #[test]
    fn odd_files_are_understood_or_refused() {
        parse("apiVersion: v1\nkind: Config\nclusters: null\ncontexts: null\nusers: null\n")
            .put(&entry("a"), true);
        parse("---\n");
        for bad in ["[1, 2]", "clusters: 7", "a: [", "just text"] {
            assert!(Document::parse(bad, Path::new("test")).is_err(), "{bad}");
        }
    }
}
