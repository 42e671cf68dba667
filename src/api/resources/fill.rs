//! Filling in what an object leaves out.

use serde_json::{Map, Value};

/// Editing an object's members; on anything but an object these do nothing, so that a badly shaped object reaches
/// validation as it is.
pub trait Fill {
    /// Sets a member that is absent or null.
    fn fill(&mut self, key: &str, value: impl Into<Value>);
    /// Sets a text member that is absent, null or empty, as Go's defaulting of strings does.
    fn fill_text(&mut self, key: &str, value: &str);
    /// The member, made an empty object if it is absent or null.
    fn open(&mut self, key: &str) -> &mut Value;
    /// Runs over each element of a list member.
    fn each(&mut self, key: &str, edit: impl FnMut(&mut Value));
    /// Runs over a member that is there.
    fn within(&mut self, key: &str, edit: impl FnOnce(&mut Value));
    /// Whether the member is there and not null.
    fn has(&self, key: &str) -> bool;
    /// Sets a member.
    fn put(&mut self, key: &str, value: impl Into<Value>);
}

impl Fill for Value {
    fn fill(&mut self, key: &str, value: impl Into<Value>) {
        if !self.has(key) {
            self.put(key, value);
        }
    }

    fn fill_text(&mut self, key: &str, value: &str) {
        if self.get(key).is_none_or(|old| old.is_null() || old == "") {
            self.put(key, value);
        }
    }

    fn open(&mut self, key: &str) -> &mut Value {
        self.fill(key, Map::new());
        // Indexing a non-object panics; such a value is handed back itself, and edits of it do nothing.
        if self.is_object() { &mut self[key] } else { self }
    }

    fn each(&mut self, key: &str, edit: impl FnMut(&mut Value)) {
        if let Some(Value::Array(list)) = self.get_mut(key) {
            list.iter_mut().for_each(edit);
        }
    }

    fn within(&mut self, key: &str, edit: impl FnOnce(&mut Value)) {
        match self.get_mut(key) {
            Some(member) if !member.is_null() => edit(member),
            _ => {}
        }
    }

    fn has(&self, key: &str) -> bool {
        self.get(key).is_some_and(|member| !member.is_null())
    }

    fn put(&mut self, key: &str, value: impl Into<Value>) {
        if let Value::Object(members) = self {
            members.insert(key.to_owned(), value.into());
        }
    }
}
