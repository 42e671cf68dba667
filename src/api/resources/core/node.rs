//! What is particular to Nodes.

use serde_json::Value;

use super::{event_rules, scheduling};
use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{Check, FieldError, Path, check, cidr};

pub struct Node;

impl Strategy for Node {
    fn checks_prefix(&self) -> bool {
        true
    }

    /// A kubelet registers itself with its status in one request.
    fn resets_status(&self) -> bool {
        false
    }

    /// `podCIDR` and the first of `podCIDRs` are one thing; `configSource` is of kubelets that no longer are. What nobody keeps
    /// back is all there is to allocate (`SetDefaults_NodeStatus`).
    fn default(&self, node: &mut Value) {
        if let Some(status) = node.get_mut("status").filter(|status| !status.has("allocatable"))
            && let Some(capacity) = status.get("capacity").filter(|capacity| !capacity.is_null()).cloned()
        {
            status.put("allocatable", capacity);
        }
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
            pod_ranges(spec);
            let (mut seen, mut index) = (std::collections::BTreeSet::new(), 0);
            spec.each("taints", |taint| {
                // Upstream names the place so.
                taint.path = Path::new("metadata").child("taints").index(index);
                index += 1;
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
    let path = Path::new("spec");
    let mut errors = Vec::new();
    let nothing =
        |value: &Value| value.is_null() || *value == "" || value.as_array().is_some_and(Vec::is_empty);
    for (field, name) in [("podCIDRs", "podCIDR"), ("providerID", "providerID")] {
        if !nothing(&old[field]) && new[field] != old[field] {
            let why = format!("node updates may not change {name} except from \"\" to valid");
            errors.push(FieldError::forbidden(path.child(field), why));
        }
    }
    if new.text("externalID").unwrap_or_default() != old.text("externalID").unwrap_or_default() {
        errors.push(FieldError::forbidden(path.child("externalID"), "may not be updated"));
    }
    errors
}

/// The ranges of a node's Pods: one of each family at most.
fn pod_ranges(spec: &mut Check<'_, '_>) {
    let ranges: Vec<&str> = spec.texts("podCIDRs").collect();
    for (index, range) in ranges.iter().enumerate() {
        for why in cidr(range) {
            spec.push(FieldError::invalid(spec.at("podCIDRs").index(index), *range, why));
        }
    }
    let families: Vec<bool> = ranges.iter().map(|range| range.contains(':')).collect();
    if ranges.len() > 2 || families.len() == 2 && families[0] == families[1] {
        spec.invalid("podCIDRs", "may specify no more than one CIDR for each IP family");
    }
    for (index, range) in ranges.iter().enumerate().filter(|(index, range)| ranges[..*index].contains(range))
    {
        spec.push(FieldError::duplicate(spec.at("podCIDRs").index(index), *range));
    }
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
        event_rules::any(new)
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
