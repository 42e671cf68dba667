//! What is particular to Namespaces.

use serde_json::{Value, json};

use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::FieldError;

const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// Held until the namespace's content is gone.
const FINALIZER: &str = "kubernetes";

pub struct Namespace;

impl Strategy for Namespace {
    fn prepare_create(&self, namespace: &mut Value) {
        let name = namespace.name().to_owned();
        namespace.set_label(NAME_LABEL, &name);
        let mut finalizers: Vec<Value> = namespace.array_at("/spec/finalizers").to_vec();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            finalizers.push(FINALIZER.into());
        }
        namespace.open("spec").put("finalizers", finalizers);
        namespace.put("status", json!({"phase": "Active"}));
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        // Finalizers of the spec are for the `finalize` subresource alone.
        new.put("spec", old.get("spec").cloned().unwrap_or_else(|| json!({})));
        let name = new.name().to_owned();
        new.set_label(NAME_LABEL, &name);
    }

    fn waits_for_content(&self) -> bool {
        true
    }

    /// Rule: `ValidateNamespaceStatusUpdate`.
    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        let phase = new.str_at("/status/phase").unwrap_or_default();
        let (expected, why) = match new.deletion_timestamp() {
            None => ("Active", "may only be 'Active' if `deletionTimestamp` is empty"),
            Some(_) => ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty"),
        };
        if phase == expected { Vec::new() } else { vec![FieldError::invalid("status.Phase", phase, why)] }
    }

    fn selectable_fields(&self, namespace: &Value) -> Vec<(&'static str, String)> {
        let phase = namespace.str_at("/status/phase").unwrap_or_default().to_owned();
        vec![("name", namespace.name().to_owned()), ("status.phase", phase)]
    }
}
