//! Which fields of a Pod an update may change.

use serde_json::Value;

use crate::meta::ObjectExt;
use crate::resources::fill::Fill;
use crate::validate::{FieldError, Path};

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
    deadline(new, old, path, &mut errors);
    let added = new.array_at("/tolerations");
    if old.array_at("/tolerations").iter().any(|toleration| !kept(added, toleration)) {
        let why = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden(path.child("tolerations"), why));
    }
    if errors.is_empty() && fixed(new, old) != fixed(old, old) {
        let why = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
                   `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
                   `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
        errors.push(FieldError::forbidden(path, why));
    }
    errors
}

/// A deadline may be set and shortened.
fn deadline(new: &Value, old: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    let at = path.child("activeDeadlineSeconds");
    let seconds = |spec: &Value| spec.int_at("/activeDeadlineSeconds");
    match (seconds(old), seconds(new)) {
        (Some(old), Some(new)) if new > old => {
            errors.push(FieldError::invalid(at, new, "must be less than or equal to previous value"));
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
        for field in ["activeDeadlineSeconds", "tolerations", "ephemeralContainers", "schedulingGates"] {
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
    }
}
