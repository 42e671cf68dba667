//! What the workloads have in common: a selector, the template it must match, and counts in the status.

use serde_json::{Value, json};

use crate::meta::ObjectExt;
use crate::resources::core::validate_template;
use crate::resources::fill::Fill;
use crate::selector::LabelSelector;
use crate::validate::{Check, FieldError, is_empty_selector, is_readable_selector, label_selector};

/// Checks `spec.selector`: it is there, says something, and is readable.
pub fn selector(spec: &mut Check<'_, '_>, kind: &str) {
    if !spec.has("selector") {
        spec.required("selector", "");
        return;
    }
    label_selector(spec, "selector");
    if is_empty_selector(spec.get("selector")) {
        let shown = json!({});
        let why = format!("empty selector is invalid for {kind}");
        spec.push(FieldError::invalid(spec.at("selector"), shown, why));
    }
}

/// The selector selects what the template makes.
pub fn selector_matches(spec: &mut Check<'_, '_>) {
    let selector = spec.get("selector");
    if !is_readable_selector(selector) || is_empty_selector(selector) {
        return;
    }
    let labels = spec.value.pointer("/template/metadata/labels");
    let matches = LabelSelector::from_value(selector)
        .is_ok_and(|selector| selector.matches(|key| labels?.get(key)?.as_str()));
    if !matches {
        let at = spec.at("template").child("metadata").child("labels");
        let shown = labels.cloned().unwrap_or_else(|| json!({}));
        spec.push(FieldError::invalid(at, shown, "`selector` does not match template `labels`"));
    }
}

/// The template of Pods that are restarted always and have no end. `kind`: as messages name it.
pub fn always_template(spec: &mut Check<'_, '_>, kind: &str) {
    if !spec.has("template") {
        spec.required("template", "");
        return;
    }
    let errors = validate_template(spec.get("template"), &spec.at("template"));
    spec.extend(errors);
    always(spec, kind);
}

/// The Pods of the template are restarted always and have no deadline.
pub fn always(spec: &mut Check<'_, '_>, kind: &str) {
    let mut template = spec.child("template");
    let mut pod = template.child("spec");
    // Without a value, the rules of Pods say so.
    pod.maybe_one_of("restartPolicy", &["Always"]);
    if pod.has("activeDeadlineSeconds") {
        pod.forbidden("activeDeadlineSeconds", format!("activeDeadlineSeconds in {kind} is not Supported"));
    }
}

/// `spec.selector` of `apps/v1` never changes.
pub fn fixed_selector(spec: &mut Check<'_, '_>, old: Option<&Value>) {
    if let Some(old) = old {
        spec.immutable("selector", &old["spec"]);
    }
}

/// Counts of a status: none negative, and the `parts` not greater than `status.replicas`.
pub fn counts(status: &mut Check<'_, '_>, others: &[&str], parts: &[&str]) {
    status.not_negative(&["observedGeneration", "replicas"]);
    status.not_negative(others);
    status.not_negative(parts);
    let all = status.int("replicas").unwrap_or(0);
    for part in parts {
        if status.int(part).unwrap_or(0) > all {
            status.push(FieldError::invalid(
                status.at(part),
                status.get(part).clone(),
                "cannot be greater than status.replicas",
            ));
        }
    }
    let ready = status.int("readyReplicas").unwrap_or(0);
    if parts.contains(&"availableReplicas") && status.int("availableReplicas").unwrap_or(0) > ready {
        status.invalid("availableReplicas", "cannot be greater than readyReplicas");
    }
}

/// `status.collisionCount` only grows.
pub fn collisions(status: &mut Check<'_, '_>, old: &Value) {
    let before = old.int_at("/status/collisionCount").unwrap_or(0);
    let now = status.int("collisionCount");
    status.not_negative(&["collisionCount"]);
    if old["status"].has("collisionCount") && now.unwrap_or(0) < before {
        status.push(FieldError::invalid(
            status.at("collisionCount"),
            now.unwrap_or(0),
            "cannot be decremented",
        ));
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::resources::Strategy;

    /// A workload with one container, changed by a merge patch and defaulted.
    pub fn workload(kind: &dyn Strategy, extra: Value) -> Value {
        let mut workload = json!({"metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        }});
        json_patch::merge(&mut workload, &extra);
        kind.default(&mut workload);
        workload
    }

    /// What is wrong with a workload changed so, as a new one or as the successor of another.
    pub fn check(kind: &dyn Strategy, extra: Value, old: Option<Value>, expect: &[&str]) {
        let shown = extra.to_string();
        let errors = kind.validate(&workload(kind, extra), old.map(|old| workload(kind, old)).as_ref());
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect, "{shown}");
    }
}
