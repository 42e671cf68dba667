use serde_json::{Value, json};

use crate::api::meta::ObjectExt;
use crate::api::resources::Strategy;
use crate::api::resources::core::{default_template, validate_template};
use crate::api::resources::fill::Fill;
use crate::api::selector::LabelSelector;
use crate::api::validate::{FieldError, Path, percent};

/// Checks `spec.selector` and the template it must match; a selector never changes once it is set.
fn validate_selector(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let path = Path::new("spec");
    let selector = &new["spec"]["selector"];
    let mut errors = Vec::new();
    let empty = |selector: &Value, key: &str| {
        selector.get(key).is_none_or(|part| part.is_null() || *part == json!({}) || *part == json!([]))
    };
    match LabelSelector::from_value(selector) {
        Err(error) => {
            errors.push(FieldError::invalid(path.child("selector"), selector.clone(), error.to_string()))
        }
        Ok(_) if selector.is_null() => errors.push(FieldError::required(path.child("selector"), "")),
        Ok(_) if empty(selector, "matchLabels") && empty(selector, "matchExpressions") => {
            let why = "empty selector is invalid for deployment";
            errors.push(FieldError::invalid(path.child("selector"), json!({}), why));
        }
        Ok(parsed) => {
            let labels = new.pointer("/spec/template/metadata/labels");
            let get = |key: &str| labels?.get(key)?.as_str();
            if !parsed.matches(get) {
                let at = path.child("template").child("metadata").child("labels");
                let shown = labels.cloned().unwrap_or_else(|| json!({}));
                errors.push(FieldError::invalid(at, shown, "`selector` does not match template `labels`"));
            }
        }
    }
    if old.is_some_and(|old| old["spec"]["selector"] != *selector) {
        errors.push(FieldError::invalid(path.child("selector"), selector.clone(), "field is immutable"));
    }
    errors
}

/// What all workloads check: the selector, the template, counts, and that their Pods are restarted always.
fn validate_workload(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let path = Path::new("spec");
    let mut errors =
        not_negative(&new["spec"], &path, &["replicas", "minReadySeconds", "revisionHistoryLimit"]);
    errors.extend(validate_selector(new, old));
    errors.extend(validate_always(&new["spec"]["template"], &path.child("template")));
    errors
}

fn validate_always(template: &Value, path: &Path) -> Vec<FieldError> {
    if template.is_null() {
        return vec![FieldError::required(path, "")];
    }
    let mut errors = validate_template(template, path);
    let policy = template.str_at("/spec/restartPolicy").unwrap_or_default();
    if !policy.is_empty() && policy != "Always" {
        let at = path.child("spec").child("restartPolicy");
        errors.push(FieldError::not_supported(at, policy, &["Always"]));
    }
    if template.has("spec") && template["spec"].has("activeDeadlineSeconds") {
        let at = path.child("spec").child("activeDeadlineSeconds");
        errors.push(FieldError::forbidden(at, "activeDeadlineSeconds in ReplicaSet is not Supported"));
    }
    errors
}

fn not_negative(spec: &Value, path: &Path, fields: &[&str]) -> Vec<FieldError> {
    let wrong =
        fields.iter().filter_map(|field| Some((field, spec.get(*field)?.as_i64().filter(|n| *n < 0)?)));
    wrong
        .map(|(field, number)| {
            FieldError::invalid(path.child(field), number, "must be greater than or equal to 0")
        })
        .collect()
}

/// An absolute number or a percentage of Pods.
fn validate_amount(amount: &Value, path: &Path) -> Vec<FieldError> {
    let wrong = match amount {
        Value::String(text) => percent(text),
        Value::Number(number) if number.as_i64().is_some_and(|n| n < 0) => {
            vec!["must be greater than or equal to 0".to_owned()]
        }
        _ => Vec::new(),
    };
    wrong.into_iter().map(|why| FieldError::invalid(path, amount.clone(), why)).collect()
}

pub struct Deployment;

impl Strategy for Deployment {
    /// Rule: `SetDefaults_Deployment` of apps/v1.
    fn default(&self, deployment: &mut Value) {
        let spec = deployment.open("spec");
        spec.fill("replicas", 1);
        spec.fill("revisionHistoryLimit", 10);
        spec.fill("progressDeadlineSeconds", 600);
        let strategy = spec.open("strategy");
        strategy.fill_text("type", "RollingUpdate");
        if strategy.text("type") == Some("RollingUpdate") {
            let rolling = strategy.open("rollingUpdate");
            rolling.fill("maxUnavailable", "25%");
            rolling.fill("maxSurge", "25%");
        }
        default_template(spec, "template");
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = validate_workload(new, old);
        let path = Path::new("spec");
        let strategy = &new["spec"]["strategy"];
        let at = path.child("strategy");
        match strategy.text("type").unwrap_or_default() {
            "RollingUpdate" => {
                let rolling = at.child("rollingUpdate");
                for field in ["maxUnavailable", "maxSurge"] {
                    errors.extend(validate_amount(&strategy["rollingUpdate"][field], &rolling.child(field)));
                }
                let zero =
                    |field: &str| matches!(&strategy["rollingUpdate"][field], v if *v == 0 || *v == "0%");
                if zero("maxUnavailable") && zero("maxSurge") {
                    let why = "may not be 0 when `maxSurge` is 0";
                    let shown = strategy["rollingUpdate"]["maxUnavailable"].clone();
                    errors.push(FieldError::invalid(rolling.child("maxUnavailable"), shown, why));
                }
            }
            "Recreate" => {
                if strategy.has("rollingUpdate") {
                    let why = "may not be specified when strategy `type` is 'Recreate'";
                    errors.push(FieldError::forbidden(at.child("rollingUpdate"), why));
                }
            }
            other => {
                errors.push(FieldError::not_supported(
                    at.child("type"),
                    other,
                    &["Recreate", "RollingUpdate"],
                ));
            }
        }
        let seconds = |field: &str| new["spec"].get(field).and_then(Value::as_i64);
        if let Some(deadline) = seconds("progressDeadlineSeconds") {
            let at = path.child("progressDeadlineSeconds");
            if deadline <= seconds("minReadySeconds").unwrap_or(0) {
                errors.push(FieldError::invalid(at, deadline, "must be greater than minReadySeconds"));
            }
        }
        errors
    }
}

pub struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn default(&self, set: &mut Value) {
        let spec = set.open("spec");
        spec.fill("replicas", 1);
        default_template(spec, "template");
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        validate_workload(new, old)
    }

    fn selectable_fields(&self, set: &Value) -> Vec<(&'static str, String)> {
        vec![("status.replicas", set.int_at("/status/replicas").unwrap_or(0).to_string())]
    }
}

pub struct ReplicationController;

impl Strategy for ReplicationController {
    /// Rule: `SetDefaults_ReplicationController`: the template's labels stand in for what is left out.
    fn default(&self, controller: &mut Value) {
        let labels = controller.pointer("/spec/template/metadata/labels").cloned();
        if let Some(labels) = labels {
            controller.open("spec").fill("selector", labels.clone());
            controller.open("metadata").fill("labels", labels);
        }
        let spec = controller.open("spec");
        spec.fill("replicas", 1);
        default_template(spec, "template");
    }

    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        let path = Path::new("spec");
        let mut errors = not_negative(&new["spec"], &path, &["replicas", "minReadySeconds"]);
        errors.extend(validate_always(&new["spec"]["template"], &path.child("template")));
        errors
    }

    fn selectable_fields(&self, set: &Value) -> Vec<(&'static str, String)> {
        ReplicaSet.selectable_fields(set)
    }
}

pub struct DaemonSet;

impl Strategy for DaemonSet {
    fn default(&self, set: &mut Value) {
        let spec = set.open("spec");
        spec.fill("revisionHistoryLimit", 10);
        let strategy = spec.open("updateStrategy");
        strategy.fill_text("type", "RollingUpdate");
        if strategy.text("type") == Some("RollingUpdate") {
            let rolling = strategy.open("rollingUpdate");
            rolling.fill("maxUnavailable", 1);
            rolling.fill("maxSurge", 0);
        }
        default_template(spec, "template");
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        validate_workload(new, old)
    }
}

pub struct StatefulSet;

impl Strategy for StatefulSet {
    /// Rule: `SetDefaults_StatefulSet`.
    fn default(&self, set: &mut Value) {
        let spec = set.open("spec");
        spec.fill_text("podManagementPolicy", "OrderedReady");
        spec.fill("replicas", 1);
        spec.fill("revisionHistoryLimit", 10);
        let strategy = spec.open("updateStrategy");
        strategy.fill_text("type", "RollingUpdate");
        if strategy.text("type") == Some("RollingUpdate") {
            strategy.open("rollingUpdate").fill("partition", 0);
        }
        let retention = spec.open("persistentVolumeClaimRetentionPolicy");
        retention.fill_text("whenDeleted", "Retain");
        retention.fill_text("whenScaled", "Retain");
        spec.each("volumeClaimTemplates", |claim| {
            claim.put("apiVersion", "v1");
            claim.put("kind", "PersistentVolumeClaim");
            claim.open("spec").fill_text("volumeMode", "Filesystem");
            claim.open("status").fill_text("phase", "Pending");
        });
        default_template(spec, "template");
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = validate_workload(new, old);
        if let Some(old) = old {
            // The selector's own check says the rest.
            let fixed = ["podManagementPolicy", "serviceName", "volumeClaimTemplates"];
            if fixed.iter().any(|field| new["spec"].get(*field) != old["spec"].get(*field)) {
                let why = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                           'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                           'minReadySeconds' are forbidden";
                errors.push(FieldError::forbidden("spec", why));
            }
        }
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(extra: Value) -> Value {
        let mut deployment = json!({"metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
        }});
        json_patch::merge(&mut deployment, &extra);
        Deployment.default(&mut deployment);
        deployment
    }

    fn check(extra: Value, old: Option<Value>, expect: &[&str]) {
        let errors = Deployment.validate(&deployment(extra), old.map(deployment).as_ref());
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn defaults_of_a_deployment() {
        let spec = &deployment(json!({}))["spec"];
        assert_eq!(spec["replicas"], 1);
        assert_eq!(
            spec["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(spec["template"]["spec"]["restartPolicy"], "Always");
        assert_eq!(spec["template"]["spec"].get("enableServiceLinks"), None);
    }

    #[test]
    fn selector_and_template_must_agree() {
        check(json!({}), None, &[]);
        check(
            json!({"spec": {"template": {"metadata": {"labels": {"app": "b"}}}}}),
            None,
            &[
                "spec.template.metadata.labels: Invalid value: {\"app\":\"b\"}: `selector` does not match template `labels`",
            ],
        );
        check(json!({"spec": {"selector": null}}), None, &["spec.selector: Required value"]);
        check(
            json!({"spec": {"selector": {"matchLabels": {"app": "b"}}, "template": {"metadata": {"labels": {"app": "b"}}}}}),
            Some(json!({})),
            &["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"b\"}}: field is immutable"],
        );
    }

    #[test]
    fn strategies_are_checked() {
        check(
            json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}}),
            None,
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ],
        );
        check(
            json!({"spec": {"replicas": -1}}),
            None,
            &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
        );
    }
}
