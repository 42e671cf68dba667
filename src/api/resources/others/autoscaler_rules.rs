//! Validation of HorizontalPodAutoscalers.

use serde_json::Value;

use crate::meta::ObjectExt;
use crate::quantity::Quantity;
use crate::validate::{Check, FieldError, check, dns1123_label, path_segment_name};

/// The kinds of metrics, each with the member that tells about it.
const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
const LONGEST_WINDOW: i64 = 3600;
const LONGEST_PERIOD: i64 = 1800;

/// Everything wrong with an autoscaler. Rule: `validateHorizontalPodAutoscalerSpec`.
pub fn validate(new: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let was_zero = old.and_then(|old| old.int_at("/spec/minReplicas")) == Some(0);
    check(new, "spec", |spec| {
        let least = spec.int("minReplicas");
        let bound = i64::from(!was_zero);
        if least.is_some_and(|least| least < bound) {
            spec.invalid("minReplicas", format!("must be greater than or equal to {bound}"));
        }
        let most = spec.int("maxReplicas").unwrap_or(0);
        let shown = Value::from(most);
        if most < 1 {
            let error = FieldError::invalid(spec.at("maxReplicas"), shown.clone(), "must be greater than 0");
            spec.push(error);
        }
        if least.is_some_and(|least| most < least) {
            let why = "must be greater than or equal to `minReplicas`";
            spec.push(FieldError::invalid(spec.at("maxReplicas"), shown, why));
        }
        reference(&mut spec.child("scaleTargetRef"));
        spec.each("metrics", metric);
        let outer = |metric: &Value| matches!(metric.text("type"), Some("Object" | "External"));
        if least == Some(0) && !spec.list("metrics").iter().any(outer) {
            let why =
                "must specify at least one Object or External metric to support scaling to zero replicas";
            spec.forbidden("metrics", why);
        }
        spec.within("behavior", |behavior| {
            behavior.within("scaleUp", scaling_rules);
            behavior.within("scaleDown", scaling_rules);
        });
    })
}

fn reference(target: &mut Check<'_, '_>) {
    target.need_named("kind", path_segment_name);
    target.need_named("name", path_segment_name);
}

fn scaling_rules(rules: &mut Check<'_, '_>) {
    if let Some(window) = rules.int("stabilizationWindowSeconds") {
        if window < 0 {
            rules.invalid("stabilizationWindowSeconds", "must be greater than or equal to zero");
        } else if window > LONGEST_WINDOW {
            let why = format!("must be less than or equal to {LONGEST_WINDOW}");
            rules.invalid("stabilizationWindowSeconds", why);
        }
    }
    rules.maybe_one_of("selectPolicy", &["Disabled", "Max", "Min"]);
    if rules.list("policies").is_empty() {
        rules.required("policies", "must specify at least one Policy");
    }
    rules.each("policies", |policy| {
        policy.one_of("type", &["Percent", "Pods"]);
        for key in ["value", "periodSeconds"] {
            if policy.int(key).unwrap_or(0) <= 0 {
                policy.invalid(key, "must be greater than zero");
            }
        }
        if policy.int("periodSeconds").unwrap_or(0) > LONGEST_PERIOD {
            policy.invalid("periodSeconds", format!("must be less than or equal to {LONGEST_PERIOD}"));
        }
    });
    if sign(rules.get("tolerance")) == Some(-1) {
        rules.invalid("tolerance", "must be greater than or equal to zero");
    }
}

fn sign(amount: &Value) -> Option<i32> {
    Quantity::from_value(amount).ok().map(|amount| amount.sign())
}

fn metric(metric: &mut Check<'_, '_>) {
    let names: Vec<&str> = SOURCES.iter().map(|(name, _)| *name).collect();
    let kind = metric.need("type", "must specify a metric source type");
    metric.one_of("type", &names);
    let expected = SOURCES.iter().find(|(name, _)| *name == kind).map(|(_, member)| *member);
    let present: Vec<&str> =
        SOURCES.iter().map(|(_, member)| *member).filter(|member| metric.has(member)).collect();
    if let Some(first) = present.first() {
        metric.within(first, |source| self::source(source, first));
    }
    if let Some(expected) = expected.filter(|expected| !present.contains(expected)) {
        metric.required(expected, "must populate information for the given metric source");
    }
    if present.len() != 1 {
        for extra in present.iter().filter(|member| Some(**member) != expected) {
            metric.forbidden(extra, "must populate the given metric source only");
        }
    }
}

fn source(source: &mut Check<'_, '_>, kind: &str) {
    match kind {
        "containerResource" => {
            source.need("name", "must specify a resource name");
            if !source.need("container", "must specify a container").is_empty() {
                source.named("container", dns1123_label);
            }
        }
        "resource" => {
            source.need("name", "must specify a resource name");
        }
        _ => {
            if kind == "object" {
                reference(&mut source.child("describedObject"));
            }
            let mut id = source.child("metric");
            if !id.need("name", "must specify a metric name").is_empty() {
                id.named("name", path_segment_name);
            }
        }
    }
    let mut target = source.child("target");
    self::target(&mut target);
    let (value, average, utilization) =
        (target.has("value"), target.has("averageValue"), target.has("averageUtilization"));
    match kind {
        "object" if !value && !average => {
            target.required("averageValue", "must set either a target value or averageValue");
        }
        "external" if !value && !average => {
            target.required("averageValue", "must set either a target value for metric or a per-pod target");
        }
        "external" if value && average => {
            target.forbidden("value", "may not set both a target value for metric and a per-pod target");
        }
        "pods" if !average => {
            target.required("averageValue", "must specify a positive target averageValue");
        }
        "resource" | "containerResource" if !utilization && !average => {
            let why = "must set either a target raw value or a target utilization";
            target.required("averageUtilization", why);
        }
        "resource" | "containerResource" if utilization && average => {
            let why = "may not set both a target raw value and a target utilization";
            target.forbidden("averageValue", why);
        }
        _ => {}
    }
}

fn target(target: &mut Check<'_, '_>) {
    let kind = target.need("type", "must specify a metric target type");
    if !["Utilization", "Value", "AverageValue"].contains(&kind) {
        let at = target.at("type");
        target.push(FieldError::invalid(at, kind, "must be either Utilization, Value, or AverageValue"));
    }
    for key in ["value", "averageValue"] {
        if sign(target.get(key)).is_some_and(|sign| sign != 1) {
            target.invalid(key, "must be positive");
        }
    }
    if target.int("averageUtilization").is_some_and(|percent| percent < 1) {
        target.invalid("averageUtilization", "must be greater than 0");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::resources::Strategy;
    use crate::resources::others::AutoscalerV2;

    use super::*;

    fn check(spec: Value, expect: &[&str]) {
        let shown = spec.to_string();
        let mut scaler =
            json!({"spec": {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}});
        json_patch::merge(&mut scaler, &json!({"spec": spec}));
        AutoscalerV2.default(&mut scaler);
        let errors = validate(&scaler, None);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect, "{shown}");
    }

    #[test]
    fn bounds_and_targets() {
        check(json!({}), &[]);
        check(
            json!({"minReplicas": 0}),
            &[
                "spec.minReplicas: Invalid value: 0: must be greater than or equal to 1",
                "spec.metrics: Forbidden: must specify at least one Object or External metric to support scaling to zero replicas",
            ],
        );
        check(
            json!({"minReplicas": 4}),
            &["spec.maxReplicas: Invalid value: 3: must be greater than or equal to `minReplicas`"],
        );
        check(
            json!({"maxReplicas": null}),
            &[
                "spec.maxReplicas: Invalid value: 0: must be greater than 0",
                "spec.maxReplicas: Invalid value: 0: must be greater than or equal to `minReplicas`",
            ],
        );
        check(
            json!({"scaleTargetRef": {"kind": null, "name": "a/b"}}),
            &[
                "spec.scaleTargetRef.kind: Required value",
                "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'",
            ],
        );
    }

    #[test]
    fn metrics() {
        let at = "spec.metrics[0]";
        let one = |metric: Value| json!({"metrics": [metric]});
        check(
            one(json!({"type": "Resource"})),
            &[&format!(
                "{at}.resource: Required value: must populate information for the given metric source"
            )],
        );
        check(
            one(json!({"type": "Odd"})),
            &[&format!(
                "{at}.type: Unsupported value: \"Odd\": supported values: \"ContainerResource\", \"External\", \"Object\", \"Pods\", \"Resource\""
            )],
        );
        check(
            one(json!({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}})),
            &[&format!(
                "{at}.resource.target.averageUtilization: Required value: must set either a target raw value or a target utilization"
            )],
        );
        check(
            one(
                json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "0"}}}),
            ),
            &[&format!("{at}.pods.target.averageValue: Invalid value: \"0\": must be positive")],
        );
    }

    #[test]
    fn behaviors() {
        check(
            json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 4000}}}),
            &[
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 4000: must be less than or equal to 3600",
            ],
        );
        check(
            json!({"behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 10}]}}}),
            &["spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero"],
        );
        check(
            json!({"behavior": {"scaleDown": {"selectPolicy": "Odd"}}}),
            &[
                "spec.behavior.scaleDown.selectPolicy: Unsupported value: \"Odd\": supported values: \"Disabled\", \"Max\", \"Min\"",
            ],
        );
    }
}
