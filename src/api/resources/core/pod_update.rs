//! Which fields of a Pod an update may change.

use serde_json::Value;

use crate::meta::ObjectExt;
use crate::resources::fill::Fill;
use crate::validate::{FieldError, Path, range_error};

/// Deadlines are 32 bits wide.
const LONGEST: i64 = i32::MAX as i64;

/// What of a Pod's spec may change. Rule: `ValidatePodUpdate`.
pub fn validate(new: &Value, old: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for list in ["containers", "initContainers"] {
        if new.array_at(&format!("/{list}")).len() != old.array_at(&format!("/{list}")).len() {
            let why = "pod updates may not add or remove containers";
            errors.push(FieldError::forbidden(path.child(list), why));
        }
    }
    if !errors.is_empty() {
        return errors;
    }
    if !deadline(new, old, path, &mut errors) {
        return errors;
    }
    let added = new.array_at("/tolerations");
    if old.array_at("/tolerations").iter().any(|toleration| !kept(added, toleration)) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(path.child("tolerations"), why));
    }
    for gate in new.array_at("/schedulingGates") {
        if !old.array_at("/schedulingGates").contains(gate) {
            let name = gate.text("name").unwrap_or_default();
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.push(FieldError::forbidden(path.child("schedulingGates").key(name), why));
        }
    }
    let mut new = new.clone();
    if !old.array_at("/schedulingGates").is_empty() {
        errors.extend(gated(&mut new, old, path));
    }
    if fixed(&new, old) != fixed(old, old) {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                   `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                   `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        errors.push(FieldError::forbidden(path, why));
    }
    errors
}

/// A deadline may be set and shortened. Returns whether there is more to be said of the update.
fn deadline(new: &Value, old: &Value, path: &Path, errors: &mut Vec<FieldError>) -> bool {
    let at = path.child("activeDeadlineSeconds");
    let seconds = |spec: &Value| spec.int_at("/activeDeadlineSeconds");
    match (seconds(old), seconds(new)) {
        (_, Some(new)) if !(0..=LONGEST).contains(&new) => {
            errors.push(FieldError::invalid(at, new, range_error(0, LONGEST)));
            return false;
        }
        (Some(old), Some(new)) if new > old => {
            errors.push(FieldError::invalid(at, new, "must be less than or equal to previous value"));
            return false;
        }
        (Some(_), None) => {
            errors.push(FieldError::invalid(
                at,
                Value::Null,
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
    true
}

/// A Pod that waits at its gates may be steered to fewer nodes; what is allowed so is made as it was in `new`.
/// Rule: `validateNodeSelectorMutation`, `validateNodeAffinityMutation`.
fn gated(new: &mut Value, old: &Value, path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let selector = new["nodeSelector"].clone();
    let before = old["nodeSelector"].as_object();
    if before.into_iter().flatten().any(|(key, value)| selector.get(key) != Some(value)) {
        let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(FieldError::invalid(path.child("nodeSelector"), selector, why));
    }
    new.put("nodeSelector", old["nodeSelector"].clone());
    let (was, is) = (old["affinity"]["nodeAffinity"].clone(), new["affinity"]["nodeAffinity"].clone());
    if was == is {
        return errors;
    }
    errors.extend(fewer_nodes(&is, &was, &path.child("affinity").child("nodeAffinity")));
    match (was.is_null(), old["affinity"].is_null()) {
        (true, true) if new["affinity"].as_object().is_some_and(|members| members.len() == 1) => {
            new.put("affinity", Value::Null);
        }
        (true, _) => {
            new["affinity"].as_object_mut().map(|members| members.remove("nodeAffinity"));
        }
        (false, _) => new.open("affinity").put("nodeAffinity", was),
    }
    errors
}

/// What a Pod asks of its node may become more, term by term.
fn fewer_nodes(new: &Value, old: &Value, path: &Path) -> Vec<FieldError> {
    const TERMS: &str = "/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let at = path.child("requiredDuringSchedulingIgnoredDuringExecution").child("nodeSelectorTerms");
    let (was, is) = (old.array_at(TERMS), new.array_at(TERMS));
    if was.is_empty() {
        return Vec::new();
    }
    if was.len() != is.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return vec![FieldError::invalid(at, is.to_vec(), why)];
    }
    let starts = |new: &Value, old: &Value, list: &str| new.array_at(list).starts_with(old.array_at(list));
    // A term without anything selects nothing; filled, it would select something.
    let empty = |term: &Value| term.as_object().is_none_or(|term| term.values().all(is_nothing));
    let grows = |new: &Value, old: &Value| {
        (!empty(old) || empty(new))
            && starts(new, old, "/matchExpressions")
            && starts(new, old, "/matchFields")
    };
    let pairs = is.iter().zip(was).enumerate();
    pairs
        .filter(|(_, (new, old))| !grows(new, old))
        .map(|(index, (new, _))| {
            let why = "only additions are allowed (no mutations or deletions)";
            FieldError::invalid(at.index(index), new.clone(), why)
        })
        .collect()
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn kept(tolerations: &[Value], wanted: &Value) -> bool {
    let bare = |toleration: &Value| {
        let mut toleration = toleration.clone();
        if let Some(members) = toleration.as_object_mut() {
            members.remove("tolerationSeconds");
        }
        toleration
    };
    tolerations.iter().any(|toleration| bare(toleration) == bare(wanted))
}

/// The spec with everything that may change taken from `old`.
fn fixed(spec: &Value, old: &Value) -> Value {
    let mut spec = spec.clone();
    for list in ["containers", "initContainers"] {
        let images: Vec<Value> =
            old.array_at(&format!("/{list}")).iter().map(|container| container["image"].clone()).collect();
        let mut images = images.into_iter();
        spec.each(list, |container| {
            if let Some(image) = images.next() {
                container.put("image", image);
            }
        });
    }
    if let Some(members) = spec.as_object_mut() {
        for field in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
            members.remove(field);
        }
        members.retain(|_, value| !value.is_null());
    }
    let grace = old.int_at("/terminationGracePeriodSeconds");
    if grace.is_some_and(|seconds| seconds < 0) && spec["terminationGracePeriodSeconds"] == 1 {
        spec.put("terminationGracePeriodSeconds", grace.unwrap_or_default());
    }
    spec
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_few_fields_may_change() {
        let old = json!({"containers": [{"name": "a", "image": "x:1"}], "tolerations": [{"key": "k", "operator": "Exists"}]});
        let check = |patch: Value, fine: bool| {
            let mut new = old.clone();
            json_patch::merge(&mut new, &patch);
            let errors = validate(&new, &old, &Path::new("spec"));
            assert_eq!(errors.is_empty(), fine, "{patch}: {errors:?}");
        };
        check(json!({"containers": [{"name": "a", "image": "x:2"}]}), true);
        check(json!({"activeDeadlineSeconds": 5}), true);
        check(
            json!({"tolerations": [{"key": "k", "operator": "Exists"}, {"key": "l", "operator": "Exists"}]}),
            true,
        );
        check(json!({"tolerations": []}), false);
        check(json!({"containers": [{"name": "b", "image": "x:1"}]}), false);
        check(json!({"containers": []}), false);
        check(json!({"nodeName": "n"}), false);
        check(json!({"hostNetwork": true}), false);
        check(json!({"ephemeralContainers": [{"name": "e", "image": "i"}]}), false);
        check(json!({"activeDeadlineSeconds": -1}), false);
        check(json!({"schedulingGates": [{"name": "g"}]}), false);
    }

    #[test]
    fn a_gated_pod_may_be_steered_to_fewer_nodes() {
        const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
        let affinity = |terms: Value| json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms}}});
        let zone = json!({"key": "zone", "operator": "In", "values": ["a"]});
        let disk = json!({"key": "disk", "operator": "Exists"});
        let gated = json!({"containers": [], "schedulingGates": [{"name": "g"}, {"name": "h"}],
            "nodeSelector": {"a": "b"}, "affinity": affinity(json!([{"matchExpressions": [zone]}]))});
        let check = |old: &Value, patch: Value, expect: &[&str]| {
            let mut new = old.clone();
            json_patch::merge(&mut new, &patch);
            let errors = validate(&new, old, &Path::new("spec"));
            let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(fields, expect, "{patch}");
        };
        let terms =
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
        check(&gated, json!({"schedulingGates": [{"name": "h"}]}), &[]);
        check(&gated, json!({"schedulingGates": [{"name": "x"}]}), &["spec.schedulingGates[x]"]);
        check(&gated, json!({"nodeSelector": {"c": "d"}}), &[]);
        check(&gated, json!({"nodeSelector": {"a": "c"}}), &["spec.nodeSelector"]);
        check(&gated, json!({"affinity": affinity(json!([{"matchExpressions": [zone, disk]}]))}), &[]);
        check(
            &gated,
            json!({"affinity": affinity(json!([{"matchExpressions": [disk]}]))}),
            &[&format!("{terms}[0]")],
        );
        check(&gated, json!({"affinity": affinity(json!([]))}), &[terms]);
        check(&gated, json!({"affinity": {"podAffinity": {}}}), &["spec"]);
        let bare = json!({"containers": [], "schedulingGates": [{"name": "g"}]});
        check(&bare, json!({"affinity": affinity(json!([{"matchExpressions": [zone]}]))}), &[]);
        check(&bare, json!({"nodeSelector": {"c": "d"}}), &[]);
        check(&json!({"containers": []}), json!({"nodeSelector": {"c": "d"}}), &["spec"]);
    }
}
