//! Hashes of templates, as they stand in the names and labels of what is made from them.

use serde_json::Value;

/// Letters that cannot form words, as Kubernetes uses in generated names.
pub(super) const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Returns a value without what the API treats as absent: nulls and empty objects and lists.
pub(super) fn without_empty(value: Value) -> Value {
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(map) => {
            let kept = map.into_iter().map(|(key, value)| (key, without_empty(value)));
            Value::Object(kept.filter(|(_, value)| !empty(value)).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(without_empty).collect()),
        other => other,
    }
}

/// Returns the hash of a value in letters that are safe in names; `collisions` gives another one when that was taken.
pub(super) fn safe_hash(value: &Value, collisions: Option<i32>) -> String {
    let mut bytes = value.to_string().into_bytes();
    if let Some(collisions) = collisions {
        bytes.extend(collisions.to_le_bytes());
    }
    // FNV-1a, 32 bits, as upstream.
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193));
    let letter = |digit: u8| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]);
    hash.to_string().bytes().map(letter).collect()
}
