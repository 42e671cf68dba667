//! What is particular to Nodes.

use serde_json::Value;

use super::scheduling;
use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{FieldError, Path, check};

pub struct Node;

impl Strategy for Node {
    /// A kubelet registers itself with its status in one request.
    fn resets_status(&self) -> bool {
        false
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        match old.get("status") {
            Some(status) => new.put("status", status.clone()),
            None => {
                new.as_object_mut().and_then(|members| members.remove("status"));
            }
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let path = Path::new("spec");
        let mut errors = check(new, "spec", |spec| {
            let mut seen = std::collections::BTreeSet::new();
            spec.each("taints", |taint| {
                scheduling::taint(taint);
                if !seen.insert((taint.text("key"), taint.text("effect"))) {
                    let why = "taints must be unique by key and effect pair";
                    let error = FieldError::duplicate(&taint.path, taint.value.clone());
                    taint.push(FieldError { detail: why.to_owned(), ..error });
                }
            });
        });
        for field in ["podCIDR", "providerID"] {
            let before = old.and_then(|old| old.str_at(&format!("/spec/{field}"))).unwrap_or_default();
            let now = new.str_at(&format!("/spec/{field}")).unwrap_or_default();
            if !before.is_empty() && before != now {
                let why = "node updates may not change this field once it is set";
                errors.push(FieldError::forbidden(path.child(field), why));
            }
        }
        errors
    }

    fn selectable_fields(&self, node: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", node.bool_at("/spec/unschedulable").unwrap_or(false).to_string())]
    }
}

/// Events of the core group.
pub struct Event;

impl Strategy for Event {
    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        // Rule: an Event about a namespaced object lies in its namespace, about a cluster's object in `default`.
        let about = new.str_at("/involvedObject/namespace").unwrap_or_default();
        let expected = if about.is_empty() { "default" } else { about };
        if new.namespace() != expected && !(about.is_empty() && new.namespace() == "kube-system") {
            let why = "does not match event.namespace";
            errors.push(FieldError::invalid("involvedObject.namespace", about, why));
        }
        errors
    }

    fn selectable_fields(&self, event: &Value) -> Vec<(&'static str, String)> {
        let text = |pointer: &str| event.str_at(pointer).unwrap_or_default().to_owned();
        let source = match text("/source/component") {
            component if component.is_empty() => text("/reportingComponent"),
            component => component,
        };
        vec![
            ("involvedObject.apiVersion", text("/involvedObject/apiVersion")),
            ("involvedObject.fieldPath", text("/involvedObject/fieldPath")),
            ("involvedObject.kind", text("/involvedObject/kind")),
            ("involvedObject.name", text("/involvedObject/name")),
            ("involvedObject.namespace", text("/involvedObject/namespace")),
            ("involvedObject.resourceVersion", text("/involvedObject/resourceVersion")),
            ("involvedObject.uid", text("/involvedObject/uid")),
            ("reason", text("/reason")),
            ("reportingComponent", text("/reportingComponent")),
            ("source", source),
            ("type", text("/type")),
        ]
    }
}
