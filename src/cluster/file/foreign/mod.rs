//! Configuration files for k3d and kind, said in minik's own form. What means nothing here is named; what would make
//! another cluster than the file describes is refused.

mod k3d;
mod kind;

use serde_json::{Map, Value, json};

use super::{API_VERSION, FileError};

pub(super) use k3d::translate as k3d;
pub(super) use kind::translate as kind;

/// A file in minik's own form, as it comes together.
struct Ours {
    value: Value,
    notes: Vec<String>,
}

impl Ours {
    fn new() -> Self {
        Self { value: json!({"apiVersion": API_VERSION, "kind": "Cluster"}), notes: Vec::new() }
    }

    fn note(&mut self, key: &str, why: &str) {
        self.notes.push(format!("{key}: {why}"));
    }

    /// Sets a value deep inside; the way there is made.
    fn set(&mut self, path: &[&str], value: Value) {
        let mut place = &mut self.value;
        for key in path {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            place = &mut place[*key];
        }
        *place = value;
    }

    /// Adds to a list deep inside.
    fn push(&mut self, path: &[&str], value: Value) {
        let pointer: String = path.iter().map(|key| format!("/{}", key.replace('/', "~1"))).collect();
        if self.value.pointer(&pointer).is_none() {
            self.set(path, json!([]));
        }
        if let Some(list) = self.value.pointer_mut(&pointer).and_then(Value::as_array_mut)
            && !list.contains(&value)
        {
            list.push(value);
        }
    }

    fn done(self) -> (Value, Vec<String>) {
        (self.value, self.notes)
    }
}

fn refuse(key: &str, why: &str) -> FileError {
    FileError::Foreign { key: key.to_owned(), why: why.to_owned() }
}

/// The other tool would not take such a key either.
fn check(value: &Value, at: &str, known: &[&str]) -> Result<(), FileError> {
    for key in value.as_object().into_iter().flat_map(|map| map.keys()) {
        if !known.contains(&key.as_str()) {
            return Err(FileError::UnknownKey { key: key.clone(), at: at.to_owned(), near: None });
        }
    }
    Ok(())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        value => Some(super::text_of(value)).filter(|text| !text.is_empty()),
    }
}

#[cfg(test)]
mod tests;
