//! How one version of a custom kind behaves: what its schema says.

use serde_json::Value;

use crate::api::resources::Strategy;
use crate::api::resources::descriptor::copy_member;
use crate::api::structural::{self, Structural};
use crate::api::validate::FieldError;

/// How one version of a custom kind behaves.
pub struct Custom {
    pub schema: Structural,
    pub has_status: bool,
    /// Unknown fields stay (`spec.preserveUnknownFields` of old).
    pub prunes: bool,
}

impl Strategy for Custom {
    fn prune(&self, object: &mut Value) -> Vec<String> {
        if self.prunes { structural::prune(&self.schema, object) } else { Vec::new() }
    }

    fn default(&self, object: &mut Value) {
        structural::default(&self.schema, object);
    }

    /// Everything counts but metadata, and the status where a subresource owns it.
    fn desired_state_changed(&self, new: &Value, old: &Value) -> bool {
        let counts =
            |key: &str| key != "metadata" && key != "apiVersion" && !(self.has_status && key == "status");
        let of = |object: &Value| -> Vec<(String, Value)> {
            let members = object.as_object().into_iter().flatten();
            members.filter(|(key, _)| counts(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
        };
        of(new) != of(old)
    }

    /// Rule: `statusStrategy.PrepareForUpdate`: the status alone is taken, metadata stays too.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        copy_member(new, old, "metadata");
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        ratchet(structural::check(&self.schema, new, ""), &self.schema, new, old)
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        self.validate(new, Some(old))
    }

    fn from_storage(&self, object: &mut Value) {
        self.prune(object);
        structural::default(&self.schema, object);
    }
}

/// What was wrong before may stay wrong as long as it is not touched. Rule: ratcheting of validation.
fn ratchet(
    errors: Vec<FieldError>,
    schema: &Structural,
    new: &Value,
    old: Option<&Value>,
) -> Vec<FieldError> {
    let Some(old) = old.filter(|_| !errors.is_empty()) else { return errors };
    let before = structural::check(schema, old, "");
    let same = |error: &FieldError| {
        before.contains(error)
            && at(new, &error.field).is_some_and(|value| Some(value) == at(old, &error.field))
    };
    errors.into_iter().filter(|error| !same(error)).collect()
}

/// The value at a path as errors write it, `spec.a[0].b`.
fn at<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    let mut value = object;
    for part in path.split('.').filter(|part| !part.is_empty()) {
        let (name, indices) = part.split_once('[').map_or((part, ""), |(name, rest)| (name, rest));
        value = value.get(name)?;
        for index in indices.split('[').filter(|index| !index.is_empty()) {
            value = value.get(index.trim_end_matches(']').parse::<usize>().ok()?)?;
        }
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_wrong_before_may_stay() {
        let schema = Structural::of(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "integer", "maximum": 3}, "b": {"type": "integer"}}}}}),
        );
        let custom = Custom { schema, has_status: true, prunes: true };
        let old = json!({"spec": {"a": 5}});
        assert_eq!(custom.validate(&old, None).len(), 1);
        assert_eq!(custom.validate(&json!({"spec": {"a": 5, "b": 1}}), Some(&old)), []);
        assert_eq!(custom.validate(&json!({"spec": {"a": 6}}), Some(&old)).len(), 1);
        assert!(!custom.desired_state_changed(&json!({"status": 1}), &json!({"metadata": {}})));
        assert!(custom.desired_state_changed(&json!({"other": 1}), &json!({})));
    }
}
