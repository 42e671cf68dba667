//! What is particular to HorizontalPodAutoscalers, in both versions.

use serde_json::{Value, json};

use super::autoscaler_rules;
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{FieldError, check};

/// HorizontalPodAutoscalers of autoscaling/v2, the stored form.
pub struct AutoscalerV2;

impl Strategy for AutoscalerV2 {
    /// Rule: `SetDefaults_HorizontalPodAutoscaler` of autoscaling/v2.
    fn default(&self, scaler: &mut Value) {
        let spec = scaler.open("spec");
        spec.fill("minReplicas", 1);
        if spec.get("metrics").and_then(Value::as_array).is_none_or(Vec::is_empty) {
            spec.put("metrics", json!([cpu(json!(80))]));
        }
        spec.within("behavior", default_behavior);
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        autoscaler_rules::validate(new, old)
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        check(new, "status", |status| status.not_negative(&["currentReplicas", "desiredReplicas"]))
    }
}

/// Rule: `SetDefaults_HorizontalPodAutoscalerBehavior`: what is not said of a direction is the usual.
fn default_behavior(behavior: &mut Value) {
    let up = behavior.open("scaleUp");
    up.fill("stabilizationWindowSeconds", 0);
    up.fill("selectPolicy", "Max");
    let double = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
    up.fill("policies", json!([{"type": "Pods", "value": 4, "periodSeconds": 15}, double]));
    let down = behavior.open("scaleDown");
    down.fill("selectPolicy", "Max");
    down.fill("policies", json!([double]));
}

/// The metric that version 1 has a field of its own for.
fn cpu(percent: Value) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent}}})
}

fn is_cpu(metric: &Value) -> bool {
    metric.pointer("/resource/name").is_some_and(|name| name == "cpu")
        && metric.pointer("/resource/target/averageUtilization").is_some()
}

/// Version 1: the same object with one target for the processor.
pub struct AutoscalerV1;

impl Strategy for AutoscalerV1 {
    fn default(&self, scaler: &mut Value) {
        let spec = scaler.open("spec");
        spec.fill("minReplicas", 1);
        spec.fill("targetCPUUtilizationPercentage", 80);
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = autoscaler_rules::validate(new, old);
        errors.extend(check(new, "spec", |spec| {
            // Clients of version 1 are told about the metric that stands for this field.
            if let Some(percent) = spec.int("targetCPUUtilizationPercentage").filter(|percent| *percent < 1) {
                let at = "spec.metrics[0].resource.target.averageUtilization";
                spec.push(FieldError::invalid(at, percent, "must be greater than 0"));
            }
        }));
        errors
    }

    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        AutoscalerV2.validate_status(new, old)
    }

    fn from_storage(&self, scaler: &mut Value) {
        let Some(Value::Object(spec)) = scaler.get_mut("spec") else { return };
        let metrics = spec.remove("metrics").unwrap_or_default();
        let target = metrics.as_array().into_iter().flatten().find(|metric| is_cpu(metric));
        if let Some(target) = target {
            let percent = target["resource"]["target"]["averageUtilization"].clone();
            spec.insert("targetCPUUtilizationPercentage".to_owned(), percent);
        }
        let Some(Value::Object(status)) = scaler.get_mut("status") else { return };
        let current = status.remove("currentMetrics").unwrap_or_default();
        let percent = current
            .as_array()
            .into_iter()
            .flatten()
            .filter(|metric| metric.pointer("/resource/name").is_some_and(|name| name == "cpu"))
            .find_map(|metric| metric.pointer("/resource/current/averageUtilization").cloned());
        if let Some(percent) = percent {
            status.insert("currentCPUUtilizationPercentage".to_owned(), percent);
        }
        status.remove("conditions");
    }

    fn to_storage(&self, scaler: &mut Value) {
        let Some(Value::Object(spec)) = scaler.get_mut("spec") else { return };
        if let Some(percent) =
            spec.remove("targetCPUUtilizationPercentage").filter(|percent| !percent.is_null())
        {
            spec.insert("metrics".to_owned(), json!([cpu(percent)]));
        }
    }
}
