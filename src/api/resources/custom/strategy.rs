//! How one version of a custom kind behaves: what its schema says.

use std::sync::Arc;

use serde_json::Value;

use crate::meta::ObjectExt;
use crate::resources::descriptor::copy_member;
use crate::resources::{Part, Strategy, Verdict};
use crate::structural::{self, Rules, Structural};
use crate::validate::{FieldError, FieldErrorKind, qualified_name};

/// How one version of a custom kind behaves.
pub struct Custom {
    pub schema: Arc<Structural>,
    /// `None` if the schema has none.
    pub rules: Option<Rules>,
    pub has_status: bool,
    /// Whether objects may stand in its objects.
    pub embeds: bool,
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
        self.judge(new, old).errors
    }

    fn judge(&self, new: &Value, old: Option<&Value>) -> Verdict {
        let mut errors = match old {
            Some(old) => structural::check_update(&self.schema, new, old, ""),
            None => structural::check(&self.schema, new, ""),
        };
        if self.embeds {
            errors.extend(structural::check_embedded(&self.schema, new, ""));
        }
        let mut warnings = finalizer_warnings(new, old);
        let Some(rules) = &self.rules else { return Verdict { errors, warnings } };
        if errors.iter().any(|error| HINDERING.contains(&error.kind)) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing errors \
                       to complete validation";
            errors.push(FieldError::invalid("<nil>", Value::Null, why));
        } else {
            // Rules that do not hold for what is as it was are told of.
            let found = rules.check(&self.schema, new, old);
            errors.extend(found.errors);
            warnings.extend(found.warnings);
        }
        Verdict { errors, warnings }
    }

    fn judge_part(&self, _part: Part, new: &Value, old: &Value) -> Verdict {
        self.judge(new, Some(old))
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

/// Finalizers that need no prefix.
const STANDARD: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// What to say of the names of finalizers that join.
fn finalizer_warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let had = |name: &str| old.is_some_and(|old| old.finalizers().any(|before| before == name));
    let mut joined: Vec<&str> = new.finalizers().filter(|name| !had(name)).collect();
    joined.sort_unstable();
    let mut said = Vec::new();
    for name in joined {
        let mut wrong = qualified_name(name);
        if !name.contains('/') && !STANDARD.contains(&name) {
            wrong.push(
                "prefer a domain-qualified finalizer name including a path (/) to avoid accidental conflicts with other \
                 finalizer writers"
                    .to_owned(),
            );
        }
        said.extend(wrong.into_iter().map(|why| format!("metadata.finalizers: {name:?}: {why}")));
    }
    said
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
        let custom =
            Custom { rules: None, schema: schema.into(), has_status: true, embeds: false, prunes: true };
        let old = json!({"spec": {"a": 5}});
        assert_eq!(custom.validate(&old, None).len(), 1);
        assert_eq!(custom.validate(&json!({"spec": {"a": 5, "b": 1}}), Some(&old)), []);
        assert_eq!(custom.validate(&json!({"spec": {"a": 6}}), Some(&old)).len(), 1);
        assert!(!custom.desired_state_changed(&json!({"status": 1}), &json!({"metadata": {}})));
        assert!(custom.desired_state_changed(&json!({"other": 1}), &json!({})));
    }

    #[test]
    fn a_rule_is_asked_once_for_what_is_wrong_and_what_is_told() {
        let schema = Structural::of(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self < 3", "message": "too much"}]},
            "b": {"type": "integer"}}}}}),
        );
        let rules = Rules::of(&schema);
        let custom = Custom { rules, schema: schema.into(), has_status: true, embeds: false, prunes: true };
        let old = json!({"spec": {"a": 5}});
        assert_eq!(custom.judge(&old, None).errors.len(), 1);
        let kept = custom.judge(&json!({"spec": {"a": 5, "b": 1}}), Some(&old));
        assert_eq!((kept.errors.len(), kept.warnings.len()), (0, 1), "{kept:?}");
        let status = custom.judge_part(Part::Status, &json!({"spec": {"a": 5}, "status": {}}), &old);
        assert_eq!((status.errors.len(), status.warnings.len()), (0, 1), "{status:?}");
    }

    #[test]
    fn finalizers_that_join_should_have_a_domain() {
        let named = |names: Value| json!({"metadata": {"finalizers": names}});
        let old = named(json!(["old"]));
        let said = finalizer_warnings(&named(json!(["old", "new", "a.b/c", "orphan"])), Some(&old));
        assert_eq!(said.len(), 1);
        assert!(said[0].starts_with(r#"metadata.finalizers: "new": prefer a domain-qualified"#), "{said:?}");
    }
}
