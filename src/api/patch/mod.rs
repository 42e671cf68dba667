//! The three kinds of patches that are not server-side apply: JSON patch (RFC 6902), JSON merge patch
//! (RFC 7386), and Kubernetes' strategic merge patch.

mod strategic;

pub use strategic::strategic;

use serde_json::Value;

use super::status::{ApiError, Reason};

/// Upstream refuses longer JSON patches.
const MOST_OPERATIONS: usize = 10_000;

/// Applies a JSON patch: 400 if it cannot be read, 422 if it does not apply.
pub fn json(object: &Value, patch: &Value) -> Result<Value, ApiError> {
    let operations: json_patch::Patch = serde_json::from_value(patch.clone())
        .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
    if operations.0.len() > MOST_OPERATIONS {
        let why = format!(
            "The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {}",
            operations.0.len()
        );
        return Err(ApiError::too_large(&why));
    }
    let mut result = object.clone();
    match json_patch::patch(&mut result, &operations) {
        Ok(()) => Ok(result),
        Err(error) => Err(ApiError::new(
            422,
            Reason::Invalid,
            format!("the server rejected our request due to an error in our request: {error}"),
        )),
    }
}

/// Applies a JSON merge patch: null removes, maps merge, everything else replaces.
pub fn merge(object: &Value, patch: &Value) -> Result<Value, ApiError> {
    if !patch.is_object() {
        return Err(ApiError::bad_request("error decoding patch: a merge patch is a JSON object"));
    }
    let mut result = object.clone();
    json_patch::merge(&mut result, patch);
    Ok(result)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_patches() {
        let object = json!({"a": [1, 2]});
        let ok = json(&object, &json!([{"op": "add", "path": "/a/-", "value": 3}])).unwrap();
        assert_eq!(ok, json!({"a": [1, 2, 3]}));
        assert_eq!(json(&object, &json!([{"op": "test", "path": "/a", "value": 3}])).unwrap_err().code, 422);
        assert_eq!(json(&object, &json!({"a": 1})).unwrap_err().code, 400);
    }

    #[test]
    fn merge_patches() {
        let object = json!({"a": {"b": 1, "c": 2}});
        assert_eq!(
            merge(&object, &json!({"a": {"b": null, "d": 3}})).unwrap(),
            json!({"a": {"c": 2, "d": 3}})
        );
    }
}
