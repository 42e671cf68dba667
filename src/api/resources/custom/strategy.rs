//! How one version of a custom kind behaves: what its schema says.

use std::sync::Arc;

use serde_json::Value;

use crate::api::resources::Strategy;
use crate::api::resources::descriptor::copy_member;
use crate::api::structural::{self, Rules, Structural};
use crate::api::validate::{FieldError, FieldErrorKind};

/// How one version of a custom kind behaves.
pub struct Custom {
    pub schema: Arc<Structural>,
    /// `None` if the schema has none.
    pub rules: Option<Rules>,
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
        let counted = |(key, _): &(&String, &Value)| counts(key);
        let [new, old] = [new, old].map(|object| object.as_object().into_iter().flatten().filter(counted));
        new.ne(old)
    }

    /// Rule: `statusStrategy.PrepareForUpdate`: the status alone is taken, metadata stays too.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        copy_member(new, old, "metadata");
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = match old {
            Some(old) => structural::check_update(&self.schema, new, old, ""),
            None => structural::check(&self.schema, new, ""),
        };
        let Some(rules) = &self.rules else { return errors };
        if errors.iter().any(|error| HINDERING.contains(&error.kind)) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing errors \
                       to complete validation";
            errors.push(FieldError::invalid("<nil>", Value::Null, why));
        } else {
            errors.extend(rules.check(&self.schema, new, old).errors);
        }
        errors
    }

    /// Rules that do not hold for what is as it was are told of.
    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        match (&self.rules, old) {
            (Some(rules), Some(_)) => rules.check(&self.schema, new, old).warnings,
            _ => Vec::new(),
        }
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        self.validate(new, Some(old))
    }

    fn from_storage(&self, object: &mut Value) {
        self.prune(object);
        structural::default(&self.schema, object);
    }
}

/// Rules are not asked of an object that has one of these faults.
const HINDERING: [FieldErrorKind; 5] = [
    FieldErrorKind::NotSupported,
    FieldErrorKind::Required,
    FieldErrorKind::TooLong,
    FieldErrorKind::TooMany,
    FieldErrorKind::TypeInvalid,
];

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
        let custom = Custom { rules: None, schema: schema.into(), has_status: true, prunes: true };
        let old = json!({"spec": {"a": 5}});
        assert_eq!(custom.validate(&old, None).len(), 1);
        assert_eq!(custom.validate(&json!({"spec": {"a": 5, "b": 1}}), Some(&old)), []);
        assert_eq!(custom.validate(&json!({"spec": {"a": 6}}), Some(&old)).len(), 1);
        assert!(!custom.desired_state_changed(&json!({"status": 1}), &json!({"metadata": {}})));
        assert!(custom.desired_state_changed(&json!({"other": 1}), &json!({})));
    }
}
