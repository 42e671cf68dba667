//! The three kinds of patches that are not server-side apply: JSON patch (RFC 6902), JSON merge patch
//! (RFC 7386), and Kubernetes' strategic merge patch.

mod bounds;
mod strategic;

pub use strategic::strategic;

use serde_json::Value;

use self::bounds::Bounds;
use super::status::{ApiError, Reason};

/// Upstream refuses longer JSON patches.
const MOST_OPERATIONS: usize = 10_000;

/// Applies a JSON patch: 400 if it cannot be read, 413 if it makes too much of the object, 422 if one of its operations is none, or
/// does not apply.
pub fn json(object: &Value, patch: &Value) -> Result<Value, ApiError> {
    let operations: json_patch::Patch =
        serde_json::from_value(with_values(patch.clone())).map_err(|error| {
            let all = patch.as_array().is_some_and(|operations| operations.iter().all(Value::is_object));
            if all {
                rejected(error)
            } else {
                ApiError::bad_request(format!("error decoding patch: {error}"))
            }
        })?;
    if operations.0.len() > MOST_OPERATIONS {
        let why = format!(
            "The allowed maximum operations in a JSON patch is {MOST_OPERATIONS}, got {}",
            operations.0.len()
        );
        return Err(ApiError::too_large(&why));
    }
    let mut result = object.clone();
    let mut bounds = Bounds::default();
    for (index, operation) in operations.0.iter().enumerate() {
        bounds.check(&result, operation)?;
        json_patch::patch(&mut result, std::slice::from_ref(operation)).map_err(|mut error| {
            error.operation = index;
            rejected(error)
        })?;
    }
    bounds::check_result(&result)?;
    Ok(result)
}

fn rejected(why: impl std::fmt::Display) -> ApiError {
    let why = format!("the server rejected our request due to an error in our request: {why}");
    ApiError::new(422, Reason::Invalid, why)
}

/// A patch whose operations have the values that Go's clients leave out where they are empty: upstream takes null for them.
fn with_values(mut patch: Value) -> Value {
    for operation in patch.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        let op = operation.get("op").and_then(Value::as_str);
        if matches!(op, Some("add" | "replace" | "test")) {
            operation.entry("value").or_insert(Value::Null);
        }
    }
    patch
}

/// Applies a JSON merge patch: null removes, maps merge, everything else replaces. 400 if the patch is no object, 413 if the
/// result is too large.
pub fn merge(object: &Value, patch: &Value) -> Result<Value, ApiError> {
    if !patch.is_object() {
        return Err(ApiError::bad_request("error decoding patch: a merge patch is a JSON object"));
    }
    let mut result = object.clone();
    json_patch::merge(&mut result, patch);
    bounds::check_result(&result)?;
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
    fn a_value_that_is_left_out_is_null() {
        let object = json!({"a": {"b": 1}});
        let patched = |operation: &str, path: &str| json(&object, &json!([{"op": operation, "path": path}]));
        assert_eq!(patched("replace", "/a").unwrap(), json!({"a": null}));
        assert_eq!(patched("add", "/a/c").unwrap(), json!({"a": {"b": 1, "c": null}}));
        assert_eq!(patched("test", "/a/b").unwrap_err().code, 422);
        assert_eq!(patched("move", "/a/b").unwrap_err().code, 422);
        assert_eq!(patched("odd", "/a/b").unwrap_err().code, 422);
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
