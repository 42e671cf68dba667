//! What a patch may make of an object: its operations can double what is there, again and again.

use json_patch::PatchOperation;
use json_patch::jsonptr::Pointer;
use serde_json::Value;

use crate::status::ApiError;

/// Bytes that the copies of one patch may add, as upstream bounds them, and that its result may have: what a body may have.
const MOST_BYTES: usize = 3 << 20;
/// Levels of nesting: what a JSON body may have.
const MOST_DEPTH: usize = 128;
/// Bytes that may be looked at to keep to the other bounds.
const MOST_LOOKED_AT: usize = 32 * MOST_BYTES;

/// Counts what one patch copies and moves.
#[derive(Default)]
pub(super) struct Bounds {
    copied: usize,
    looked_at: usize,
}

impl Bounds {
    /// Whether `operation` may be done to `object`; 413 if it would make it too large or too deep.
    pub(super) fn check(&mut self, object: &Value, operation: &PatchOperation) -> Result<(), ApiError> {
        let measured = match operation {
            PatchOperation::Add(add) => Some((&add.path, measure(&add.value))),
            PatchOperation::Replace(replace) => Some((&replace.path, measure(&replace.value))),
            PatchOperation::Copy(copy) => {
                let moved = self.look(object, &copy.from)?;
                self.copied = self.copied.saturating_add(moved.bytes);
                Some((&copy.path, moved))
            }
            PatchOperation::Move(relocate) => Some((&relocate.path, self.look(object, &relocate.from)?)),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
        };
        if self.copied > MOST_BYTES {
            return Err(ApiError::too_large(&format!(
                "Unable to complete the copy, the accumulated size increase of copy is {}, exceeding the limit {MOST_BYTES}",
                self.copied
            )));
        }
        match measured {
            Some((path, value)) if path.count() + value.depth > MOST_DEPTH => Err(too_deep()),
            _ => Ok(()),
        }
    }

    fn look(&mut self, object: &Value, from: &Pointer) -> Result<Measure, ApiError> {
        // Where nothing stands, the operation itself fails.
        let measured = object.pointer(from.as_str()).map(measure).unwrap_or_default();
        self.looked_at = self.looked_at.saturating_add(measured.bytes);
        if self.looked_at > MOST_LOOKED_AT {
            return Err(ApiError::too_large("the patch moves and copies too much"));
        }
        Ok(measured)
    }
}

fn too_deep() -> ApiError {
    ApiError::too_large("the patch nests the object too deeply")
}

/// Whether a patch's result may be stored; 413 if not.
pub(super) fn check_result(object: &Value) -> Result<(), ApiError> {
    let measured = measure(object);
    if measured.depth > MOST_DEPTH {
        return Err(too_deep());
    }
    if measured.bytes > MOST_BYTES {
        return Err(ApiError::too_large(&format!("limit is {MOST_BYTES}")));
    }
    Ok(())
}

/// How large a value is as JSON, about, and how deep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Measure {
    bytes: usize,
    depth: usize,
}

impl Measure {
    fn around(self, inner: Self, extra: usize) -> Self {
        Self { bytes: self.bytes + inner.bytes + extra, depth: self.depth.max(inner.depth + 1) }
    }
}

fn measure(value: &Value) -> Measure {
    match value {
        Value::Null | Value::Bool(_) => Measure { bytes: 5, depth: 0 },
        Value::Number(_) => Measure { bytes: 12, depth: 0 },
        Value::String(text) => Measure { bytes: text.len() + 2, depth: 0 },
        Value::Array(items) => {
            let empty = Measure { bytes: 2, depth: 1 };
            items.iter().fold(empty, |all, item| all.around(measure(item), 1))
        }
        Value::Object(map) => {
            let empty = Measure { bytes: 2, depth: 1 };
            map.iter().fold(empty, |all, (key, item)| all.around(measure(item), key.len() + 4))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::patch::{self, json};

    fn refused(object: &Value, operations: Vec<Value>) -> Option<u16> {
        json(object, &Value::Array(operations)).err().map(|error| error.code)
    }

    #[test]
    fn copies_do_not_explode() {
        let object = json!({"data": {"a": "x".repeat(1024)}});
        let doubling: Vec<_> =
            (0..30).map(|n| json!({"op": "copy", "from": "/data", "path": format!("/data/{n}")})).collect();
        assert_eq!(refused(&object, doubling), Some(413));
        let few = vec![json!({"op": "copy", "from": "/data/a", "path": "/data/b"})];
        assert_eq!(refused(&object, few), None);
    }

    #[test]
    fn moves_do_not_nest_without_end() {
        let object = json!({"a": {}, "b": {}});
        let mut operations = Vec::new();
        for n in 0..200 {
            let (from, to) = if n % 2 == 0 { ("/a", "/b/x") } else { ("/b", "/a/x") };
            let emptied = if n % 2 == 0 { "/a" } else { "/b" };
            operations.push(json!({"op": "move", "from": from, "path": to}));
            operations.push(json!({"op": "add", "path": emptied, "value": {}}));
        }
        assert_eq!(refused(&object, operations), Some(413));
        // Back and forth is not deeper.
        let object = json!({"a": {"x": 1}, "b": {}});
        let back = |n: usize| match n % 2 {
            0 => json!({"op": "move", "from": "/a/x", "path": "/b/x"}),
            _ => json!({"op": "move", "from": "/b/x", "path": "/a/x"}),
        };
        assert_eq!(refused(&object, (0..1000).map(back).collect()), None);
    }

    #[test]
    fn an_object_does_not_grow_patch_by_patch() {
        let object = json!({"data": {"a": "x".repeat(2 << 20)}});
        let more = json!({"data": {"b": "x".repeat(2 << 20)}});
        assert_eq!(patch::merge(&object, &more).unwrap_err().code, 413);
        assert_eq!(measure(&json!({"a": [1, {"b": "cd"}]})).depth, 3);
    }

    #[test]
    fn the_failing_operation_is_named() {
        let operations = json!([{"op": "add", "path": "/a", "value": 1}, {"op": "remove", "path": "/b"}]);
        let error = json(&json!({}), &operations).unwrap_err();
        assert!(error.message.contains("/1"), "{}", error.message);
    }
}
