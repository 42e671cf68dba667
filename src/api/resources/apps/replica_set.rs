//! What is particular to ReplicaSets.

use serde_json::Value;

use super::workload;
use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::core::default_template;
use crate::resources::fill::Fill;
use crate::selector::LabelSelector;
use crate::validate::{Check, FieldError, check};

pub struct ReplicaSet;

impl Strategy for ReplicaSet {
    /// Rule: `SetDefaults_ReplicaSet` of apps/v1.
    fn default(&self, set: &mut Value) {
        let spec = set.open("spec");
        spec.fill("replicas", 1);
        default_template(spec, "template");
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        check(new, "spec", |spec| {
            spec.not_negative(&["replicas", "minReadySeconds"]);
            workload::selector(spec, "deployment");
            workload::selector_matches(spec);
            workload::fixed_selector(spec, old);
            workload::always_template(spec, "ReplicaSet");
        })
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        check(new, "status", counts)
    }

    fn selectable_fields(&self, set: &Value) -> Vec<(&'static str, String)> {
        vec![("status.replicas", set.int_at("/status/replicas").unwrap_or(0).to_string())]
    }
}

fn counts(status: &mut Check<'_, '_>) {
    let parts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
    workload::counts(status, &["terminatingReplicas"], &parts);
}

pub struct ReplicationController;

impl Strategy for ReplicationController {
    /// Rule: `SetDefaults_ReplicationController`: the template's labels stand in for what is left out.
    fn default(&self, controller: &mut Value) {
        let labels = controller.pointer("/spec/template/metadata/labels").cloned();
        if let Some(labels) = labels.filter(|labels| labels.as_object().is_some_and(|map| !map.is_empty())) {
            let empty = |value: Option<&Value>| {
                value.and_then(Value::as_object).is_none_or(serde_json::Map::is_empty)
            };
            if empty(controller.pointer("/spec/selector")) {
                controller.open("spec").put("selector", labels.clone());
            }
            if empty(controller.pointer("/metadata/labels")) {
                controller.open("metadata").put("labels", labels);
            }
        }
        let spec = controller.open("spec");
        spec.fill("replicas", 1);
        default_template(spec, "template");
    }

    /// Rule: `ValidateReplicationControllerSpec`.
    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        check(new, "spec", |spec| {
            spec.not_negative(&["minReadySeconds"]);
            let selector = spec.get("selector");
            if selector.as_object().is_none_or(serde_json::Map::is_empty) {
                spec.required("selector", "");
            }
            spec.not_negative(&["replicas"]);
            let labels = spec.value.pointer("/template/metadata/labels");
            let matches = LabelSelector::from_map(selector).matches(|key| labels?.get(key)?.as_str());
            if spec.has("template") && !matches {
                let at = spec.at("template").child("metadata").child("labels");
                let shown = labels.cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
                spec.push(FieldError::invalid(at, shown, "`selector` does not match template `labels`"));
            }
            workload::always_template(spec, "ReplicationController");
        })
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        check(new, "status", counts)
    }

    fn selectable_fields(&self, set: &Value) -> Vec<(&'static str, String)> {
        ReplicaSet.selectable_fields(set)
    }

    fn orphans_dependents(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::apps::workload::tests::check;

    #[test]
    fn replica_sets() {
        check(&ReplicaSet, json!({}), None, &[]);
        check(
            &ReplicaSet,
            json!({"spec": {"minReadySeconds": -1, "template": {"spec": {"restartPolicy": "OnFailure"}}}}),
            None,
            &[
                "spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
                "spec.template.spec.restartPolicy: Unsupported value: \"OnFailure\": supported values: \"Always\"",
            ],
        );
        check(
            &ReplicaSet,
            json!({"spec": {"selector": {"matchExpressions": [{"key": "app", "operator": "Odd"}]}}}),
            None,
            &[
                "spec.selector.matchExpressions[0].operator: Invalid value: \"Odd\": not a valid selector operator",
            ],
        );
        check(
            &ReplicaSet,
            json!({"spec": {"selector": {"matchLabels": null, "matchExpressions": [{"key": "app", "operator": "In"}]}}}),
            None,
            &[
                "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                "spec.template.metadata.labels: Invalid value: {\"app\":\"a\"}: `selector` does not match template `labels`",
            ],
        );
    }

    #[test]
    fn replication_controllers() {
        let controller = |extra: Value, expect: &[&str]| {
            let mut extra = extra;
            // What stands in for the selector is the template's labels.
            extra["spec"]["selector"] = Value::Null;
            check(&ReplicationController, extra, None, expect);
        };
        controller(json!({}), &[]);
        controller(json!({"spec": {"template": {"metadata": null}}}), &["spec.selector: Required value"]);
        controller(
            json!({"spec": {"replicas": -1, "template": {"spec": {"activeDeadlineSeconds": 1}}}}),
            &[
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is not Supported",
            ],
        );
    }
}
