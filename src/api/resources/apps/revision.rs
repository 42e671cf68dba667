//! What is particular to ControllerRevisions.

use serde_json::Value;

use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{FieldError, Path, check_at};

/// ControllerRevisions: snapshots that never change.
pub struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        check_at(new, &Path::default(), |revision| {
            if !revision.value.has("data") {
                revision.required("data", "data is mandatory");
            }
            revision.not_negative(&["revision"]);
            if let Some(old) = old {
                revision.immutable("data", old);
            }
        })
    }
}
