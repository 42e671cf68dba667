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

    /// `podCIDR` and the first of `podCIDRs` are one thing; `configSource` is of kubelets that no longer are.
    fn default(&self, node: &mut Value) {
        node.within("spec", |spec| {
            let first = spec.array_at("/podCIDRs").first().cloned();
            match (spec.get("podCIDR").cloned(), first) {
                (Some(single), first) if first.as_ref() != Some(&single) => {
                    spec.put("podCIDRs", vec![single]);
                }
                (None, Some(first)) => spec.put("podCIDR", first),
                _ => {}
            }
            spec.as_object_mut().and_then(|members| members.remove("configSource"));
        });
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
        errors.extend(status(new));
        if let Some(old) = old {
            errors.extend(fixed(&new["spec"], &old["spec"]));
        }
        errors
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        status(new)
    }

    fn selectable_fields(&self, node: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", node.bool_at("/spec/unschedulable").unwrap_or(false).to_string())]
    }
}

/// What an update leaves alone. Rule: `ValidateNodeUpdate`.
fn fixed(new: &Value, old: &Value) -> Vec<FieldError> {
    const FREE: [&str; 3] = ["taints", "unschedulable", "podCIDR"];
    let path = Path::new("spec");
    let mut errors = Vec::new();
    let mut free = FREE.to_vec();
    for (field, name) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        match old.get(field) {
            None => free.push(field),
            Some(before) if new.get(field) != Some(before) => {
                let why = format!("node updates may not change {name} except from \"\" to valid");
                errors.push(FieldError::forbidden(path.child(field), why));
            }
            Some(_) => {}
        }
    }
    let rest = |spec: &Value| {
        let members = spec.as_object().into_iter().flatten().filter(|(key, _)| !free.contains(&key.as_str()));
        members.map(|(key, value)| (key.clone(), value.clone())).collect::<Value>()
    };
    if rest(new) != rest(old) {
        let why = "node updates may only change labels, taints, or capacity (or configSource, if the DynamicKubeletConfig \
                   feature gate is enabled)";
        errors.push(FieldError::forbidden("[]", why));
    }
    errors
}

/// Addresses are said once, amounts are amounts.
fn status(node: &Value) -> Vec<FieldError> {
    check(node, "status", |status| {
        let mut seen = Vec::new();
        status.each("addresses", |address| {
            if seen.contains(&address.value) {
                address.push(FieldError::duplicate(&address.path, address.value.clone()));
            }
            seen.push(address.value);
        });
        for amounts in ["capacity", "allocatable"] {
            let path = status.at(amounts);
            status.each_key(amounts, |amount, name| {
                // Upstream names the resource as a member.
                amount.path = path.child(name);
                super::amount(amount, name);
            });
        }
    })
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
