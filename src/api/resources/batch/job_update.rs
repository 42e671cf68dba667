//! Which fields of a Job an update may change.

use serde_json::Value;

use crate::meta::ObjectExt;
use crate::resources::fill::Fill;
use crate::validate::{Check, FieldError, check};

/// What of a Job may change. Rule: `ValidateJobSpecUpdate`.
pub fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    check(new, "spec", |spec| {
        let before = &old["spec"];
        completions(spec, before);
        spec.immutable("selector", before);
        template(spec, old);
        for field in
            ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
        {
            spec.immutable(field, before);
        }
    })
}

/// The completions of an indexed Job may change together with its parallelism.
fn completions(spec: &mut Check<'_, '_>, before: &Value) {
    if spec.text("completionMode") != "Indexed" {
        spec.immutable("completions", before);
    } else if spec.get("completions") != &before["completions"]
        && spec.has("completions")
        && spec.int("completions") != spec.int("parallelism")
    {
        let why = format!("can only be modified in tandem with {}", spec.at("parallelism"));
        spec.invalid("completions", why);
    }
}

/// While a Job is suspended and has not started, its Pods' placement and resources may still change.
fn template(spec: &mut Check<'_, '_>, old: &Value) {
    let started = old["status"].has("startTime");
    if old.bool_at("/spec/suspend") != Some(true) || started {
        spec.immutable("template", &old["spec"]);
        return;
    }
    let mut before = old["spec"].clone();
    let now = &spec.value["template"];
    before.within("template", |template| {
        copy(template.open("metadata"), &now["metadata"], &["labels", "annotations"]);
        let fields = ["nodeSelector", "affinity", "tolerations", "schedulingGates"];
        copy(template.open("spec"), &now["spec"], &fields);
        for list in ["containers", "initContainers"] {
            let wanted: Vec<Value> = now["spec"].array_at(&format!("/{list}")).to_vec();
            let mut wanted = wanted.into_iter();
            template.open("spec").each(list, |container| {
                if let Some(wanted) = wanted.next() {
                    copy(container, &wanted, &["resources"]);
                }
            });
        }
    });
    spec.immutable("template", &before);
}

fn copy(to: &mut Value, from: &Value, keys: &[&str]) {
    for key in keys {
        to.put(key, from.get(*key).cloned().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(spec: Value) -> Value {
        let mut job = json!({"spec": {"completions": 1, "parallelism": 1, "completionMode": "NonIndexed",
            "template": {"spec": {"containers": [{"name": "c"}]}}}});
        json_patch::merge(&mut job, &json!({"spec": spec}));
        job
    }

    fn fields(new: Value, old: Value) -> Vec<String> {
        validate(&job(new), &job(old)).into_iter().map(|error| error.field).collect()
    }

    #[test]
    fn little_may_change() {
        assert_eq!(fields(json!({"parallelism": 3, "suspend": true}), json!({})), [""; 0]);
        assert_eq!(fields(json!({"completions": 3}), json!({})), ["spec.completions"]);
        assert_eq!(fields(json!({"completionMode": "Indexed"}), json!({})), ["spec.completionMode"]);
        let indexed = |extra: Value| {
            let mut spec = json!({"completionMode": "Indexed"});
            json_patch::merge(&mut spec, &extra);
            spec
        };
        assert_eq!(fields(indexed(json!({"completions": 3, "parallelism": 3})), indexed(json!({}))), [""; 0]);
        assert_eq!(fields(indexed(json!({"completions": 3})), indexed(json!({}))), ["spec.completions"]);
        let placed =
            |suspend: bool| json!({"suspend": suspend, "template": {"spec": {"nodeSelector": {"a": "b"}}}});
        assert_eq!(fields(placed(false), json!({"suspend": true})), [""; 0]);
        assert_eq!(fields(placed(false), json!({"suspend": false})), ["spec.template"]);
    }
}
