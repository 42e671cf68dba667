//! What may be particular to a kind: defaults, preparation, validation.

use serde_json::Value;

use super::Part;
use crate::validate::FieldError;

/// What a kind says of an object that is to be written.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Everything that is wrong.
    pub errors: Vec<FieldError>,
    /// Sentences for the `Warning` header.
    pub warnings: Vec<String>,
}

/// What is special about a kind. Every method has the answer of a kind with nothing special.
pub trait Strategy: Send + Sync {
    /// Removes fields that the kind does not have, where the schema of its bodies does not know; returns their paths.
    fn prune(&self, _object: &mut Value) -> Vec<String> {
        Vec::new()
    }

    /// Fills in what is left out.
    fn default(&self, _object: &mut Value) {}

    /// After the status was dropped and the generation set.
    fn prepare_create(&self, _object: &mut Value) {}

    /// After admission has changed a new object: what follows from all that it says.
    fn admitted(&self, _object: &mut Value) {}

    /// After the stored status was put back, before generations are compared.
    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}

    /// After everything but metadata and status was put back.
    fn prepare_status_update(&self, _new: &mut Value, _old: &Value) {}

    /// Whether a status subresource owns the status alone. False for kinds whose create takes a status.
    fn resets_status(&self) -> bool {
        true
    }

    /// Whether the change is one that `metadata.generation` counts: by default, of `spec`.
    fn desired_state_changed(&self, new: &Value, old: &Value) -> bool {
        new.get("spec") != old.get("spec")
    }

    /// Besides the rules of metadata. `old`: the predecessor of an update.
    fn validate(&self, _new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        Vec::new()
    }

    fn validate_status(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }

    /// The same of a part that is written through another subresource than the status.
    fn validate_part(&self, _part: Part, new: &Value, old: &Value) -> Vec<FieldError> {
        self.validate_status(new, old)
    }

    /// Says the times that the server says of a change, after everything else was readied.
    fn stamp(&self, _new: &mut Value, _old: &Value, _now: &str) {}

    /// Sentences for the `Warning` header.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Validation and warnings, where both come of one evaluation.
    fn judge(&self, new: &Value, old: Option<&Value>) -> Verdict {
        Verdict { errors: self.validate(new, old), warnings: self.warnings(new, old) }
    }

    /// The same of a part that is written through its subresource.
    fn judge_part(&self, part: Part, new: &Value, old: &Value) -> Verdict {
        Verdict { errors: self.validate_part(part, new, old), warnings: Vec::new() }
    }

    fn selectable_fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Returns what a field selector's path is called among the stored selectable fields, where this row is another view
    /// of what is stored.
    fn stored_field<'a>(&self, path: &'a str) -> std::borrow::Cow<'a, str> {
        path.into()
    }

    /// Whether an update checks `generateName` as a create does: for kinds whose updates have to follow all rules of creates.
    fn checks_prefix(&self) -> bool {
        false
    }

    /// See [`super::Resource::grace_period`].
    fn grace_period(&self, _object: &Value, _asked: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether a delete that says nothing of dependents leaves them: so older versions did, and some kinds still do.
    fn orphans_dependents(&self) -> bool {
        false
    }

    /// See [`super::Resource::waits_for_content`].
    fn waits_for_content(&self) -> bool {
        false
    }

    /// The object as a delete takes it, where that differs from the stored one (a finalizer joins).
    fn prepare_delete(&self, _object: &Value) -> Option<Value> {
        None
    }

    /// For a resource that shows another one's objects: the stored object as this version writes it.
    #[allow(clippy::wrong_self_convention)] // the object is what comes from storage, not the strategy
    fn from_storage(&self, _object: &mut Value) {}

    /// The way back.
    fn to_storage(&self, _object: &mut Value) {}
}

/// Nothing special.
pub struct Plain;

impl Strategy for Plain {}

/// What the tests of strategies share.
#[cfg(test)]
pub(super) mod testing {
    use serde_json::Value;

    use super::Strategy;

    /// Fills in defaults, and compares what validation says of a new object.
    #[track_caller]
    pub(in crate::resources) fn check(strategy: &dyn Strategy, mut object: Value, expect: &[&str]) {
        strategy.default(&mut object);
        let errors = strategy.validate(&object, None);
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(said, expect, "{object}");
    }
}
