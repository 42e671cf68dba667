//! ResourceQuotas and LimitRanges: what a namespace may use, and one object in it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::meta::ObjectExt;
use crate::quantity::Quantity;
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{Check, FieldError, NOT_NEGATIVE, check, qualified_name};

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
/// Pairs that no object can be in at once.
const CONFLICTS: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
const STANDARD: [&str; 17] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
];

pub struct ResourceQuota;

fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name)
        || ["services.nodeports", "services.loadbalancers"].contains(&name)
        || name.starts_with("requests.hugepages-")
        || name.starts_with("hugepages-")
}

/// Whether a quota of this scope may count the resource.
fn counts_in_scope(scope: &str, name: &str) -> bool {
    const COMPUTE: [&str; 7] =
        ["cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory", "pods"];
    match scope {
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => name == "persistentvolumeclaims" || name == "requests.storage",
        _ => COMPUTE.contains(&name) || name.contains("ephemeral-storage") || name.contains("hugepages"),
    }
}

impl Strategy for ResourceQuota {
    /// Rule: `ValidateResourceQuota`.
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        check(new, "spec", |spec| {
            spec.each_key("hard", quota_amount);
            scopes(spec);
            spec.within("scopeSelector", |_| {});
            selector(spec);
            if let Some(old) = old {
                let list = |value: &Value| value.array_at("/spec/scopes").to_vec();
                if list(old) != spec.list("scopes") {
                    spec.invalid("scopes", "field is immutable");
                }
            }
        })
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        check(new, "status", |status| {
            status.each_key("hard", quota_amount);
            status.each_key("used", quota_amount);
        })
    }
}

fn quota_amount(amount: &mut Check<'_, '_>, name: &str) {
    for why in qualified_name(name) {
        amount.push(FieldError::invalid(&amount.path, name, why));
    }
    if !name.contains('/') && !is_standard(name) {
        amount.push(FieldError::invalid(&amount.path, name, "must be a standard resource for quota"));
    }
    let Ok(number) = Quantity::from_value(amount.value) else { return };
    if number.sign() < 0 {
        amount.push(FieldError::invalid(&amount.path, number.to_string(), NOT_NEGATIVE));
    }
    let countable = !name.contains("cpu") && !name.contains("memory") && !name.contains("storage");
    if countable && !name.contains('/') && !number.is_whole() {
        amount.push(FieldError::invalid(&amount.path, number.to_string(), "must be an integer"));
    }
}

fn hard_outside(spec: &Check<'_, '_>, scope: &str) -> bool {
    let hard = spec.get("hard").as_object().into_iter().flatten();
    hard.map(|(name, _)| name.as_str()).any(|name| is_standard(name) && !counts_in_scope(scope, name))
}

fn scopes(spec: &mut Check<'_, '_>) {
    let named: BTreeSet<&str> = spec.texts("scopes").collect();
    for scope in spec.texts("scopes") {
        if !SCOPES.contains(&scope) {
            spec.invalid("scopes", "unsupported scope");
        } else if hard_outside(spec, scope) {
            spec.invalid("scopes", "unsupported scope applied to resource");
        }
    }
    if CONFLICTS.iter().any(|pair| pair.iter().all(|scope| named.contains(scope))) {
        spec.invalid("scopes", "conflicting scopes");
    }
}

fn selector(spec: &mut Check<'_, '_>) {
    let hard_wrong: BTreeSet<&str> = SCOPES.into_iter().filter(|scope| hard_outside(spec, scope)).collect();
    spec.within("scopeSelector", |selector| {
        let whole = selector.value.clone();
        let at = selector.at("matchExpressions");
        for expression in selector.list("matchExpressions") {
            let errors = crate::validate::check_at(expression, &at, |expression| {
                let scope = expression.text("scopeName");
                if !SCOPES.contains(&scope) {
                    expression.invalid("scopeName", "unsupported scope");
                } else if hard_wrong.contains(scope) {
                    let why = "unsupported scope applied to resource";
                    expression.push(FieldError::invalid(&expression.path, whole.clone(), why));
                }
                scope_operator(expression, scope);
            });
            selector.extend(errors);
        }
    });
}

fn scope_operator(expression: &mut Check<'_, '_>, scope: &str) {
    let operator = expression.text("operator");
    let only_exists =
        ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];
    if only_exists.contains(&scope) && operator != "Exists" {
        let why = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity";
        expression.invalid("operator", why);
    }
    let values = !expression.list("values").is_empty();
    match operator {
        "In" | "NotIn" if !values => {
            let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            expression.required("values", why);
        }
        "Exists" | "DoesNotExist" if values => {
            let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            expression.invalid("values", why);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => expression.invalid("operator", "not a valid selector operator"),
    }
}

pub struct LimitRange;

impl Strategy for LimitRange {
    /// Rule: `SetDefaults_LimitRangeItem`, for items about containers.
    fn default(&self, range: &mut Value) {
        range.within("spec", |spec| {
            spec.each("limits", |item| {
                if item.text("type") != Some("Container") {
                    return;
                }
                for (from, to) in
                    [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")]
                {
                    for (name, amount) in
                        item.get(from).and_then(Value::as_object).cloned().unwrap_or_default()
                    {
                        item.open(to).fill(&name, amount);
                    }
                }
            });
        });
    }

    /// Rule: `ValidateLimitRange`.
    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        let mut kinds = BTreeSet::new();
        check(new, "spec", |spec| {
            spec.each("limits", |item| {
                let kind = item.text("type");
                let wrong = qualified_name(kind);
                let named = wrong.is_empty();
                item.follow("type", wrong);
                if named
                    && !kind.contains('/')
                    && !["Pod", "Container", "PersistentVolumeClaim"].contains(&kind)
                {
                    item.invalid("type", "must be a standard limit type or fully qualified");
                }
                if !kinds.insert(kind) {
                    item.duplicate("type");
                }
                if kind == "Pod" {
                    for field in ["default", "defaultRequest"] {
                        if item.get(field).as_object().is_some_and(|map| !map.is_empty()) {
                            item.forbidden(field, "may not be specified when `type` is 'Pod'");
                        }
                    }
                }
                let storage = |bound: &str| item.get(bound).get("storage").is_some();
                if kind == "PersistentVolumeClaim" && !storage("min") && !storage("max") {
                    let why = "either minimum or maximum storage value is required, but neither was provided";
                    item.required("limits", why);
                }
                relations(item);
            });
        })
    }
}

/// Bounds and defaults of one item fit each other.
fn relations(item: &mut Check<'_, '_>) {
    let names: BTreeSet<&str> = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"]
        .iter()
        .flat_map(|bound| item.get(bound).as_object().into_iter().flatten())
        .map(|(name, _)| name.as_str())
        .collect();
    for name in names {
        let amount = |bound: &str| Quantity::from_value(item.get(bound).get(name)?).ok();
        let (min, max) = (amount("min"), amount("max"));
        let (default, request) = (amount("default"), amount("defaultRequest"));
        let ratio = amount("maxLimitRequestRatio");
        let mut found = Vec::new();
        let mut greater = |low: Option<Quantity>,
                           high: Option<Quantity>,
                           at: &str,
                           words: [&str; 2],
                           shown: Option<Quantity>| {
            if let (Some(low), Some(high), Some(shown)) = (low, high, shown)
                && low > high
            {
                let why = format!("{} {low} is greater than {} {high}", words[0], words[1]);
                found.push(FieldError::invalid(item.at(at).key(name), shown.to_string(), why));
            }
        };
        greater(min, max, "min", ["min value", "max value"], min);
        greater(min, request, "defaultRequest", ["min value", "default request value"], request);
        greater(request, max, "defaultRequest", ["default request value", "max value"], request);
        greater(
            request,
            default,
            "defaultRequest",
            ["default request value", "default limit value"],
            request,
        );
        greater(min, default, "default", ["min value", "default value"], min);
        greater(default, max, "default", ["default value", "max value"], max);
        if let Some(ratio) = ratio.filter(|ratio| *ratio < Quantity::from_units(1)) {
            let at = item.at("maxLimitRequestRatio").key(name);
            let why = format!("ratio {ratio} is less than 1");
            found.push(FieldError::invalid(at, ratio.to_string(), why));
        }
        item.extend(found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::strategy::testing;

    fn check(strategy: &dyn Strategy, spec: Value, expect: &[&str]) {
        testing::check(strategy, json!({"spec": spec}), expect);
    }

    #[test]
    fn quotas() {
        check(
            &ResourceQuota,
            json!({"hard": {"pods": "3", "requests.cpu": "1", "count/deployments.apps": "2"}}),
            &[],
        );
        check(
            &ResourceQuota,
            json!({"hard": {"odd": "1"}}),
            &["spec.hard[odd]: Invalid value: \"odd\": must be a standard resource for quota"],
        );
        check(
            &ResourceQuota,
            json!({"hard": {"pods": "-1"}}),
            &["spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0"],
        );
        check(
            &ResourceQuota,
            json!({"hard": {"pods": "1500m"}}),
            &["spec.hard[pods]: Invalid value: \"1500m\": must be an integer"],
        );
        check(
            &ResourceQuota,
            json!({"hard": {"pods": "1"}, "scopes": ["Odd"]}),
            &["spec.scopes: Invalid value: [\"Odd\"]: unsupported scope"],
        );
        check(
            &ResourceQuota,
            json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}),
            &["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
        );
        check(
            &ResourceQuota,
            json!({"hard": {"pods": "1"}, "scopes": ["BestEffort", "NotBestEffort"]}),
            &["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"],
        );
        check(
            &ResourceQuota,
            json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}),
            &[
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ],
        );
    }

    #[test]
    fn limit_ranges() {
        let item = |item: Value| json!({"limits": [item]});
        check(&LimitRange, item(json!({"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}})), &[]);
        check(
            &LimitRange,
            item(json!({"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}})),
            &["spec.limits[0].min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1"],
        );
        check(
            &LimitRange,
            item(json!({"type": "Pod", "default": {"cpu": "1"}})),
            &["spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"],
        );
        check(
            &LimitRange,
            item(json!({"type": "PersistentVolumeClaim"})),
            &[
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
            ],
        );
        check(
            &LimitRange,
            json!({"limits": [{"type": "Pod"}, {"type": "Pod"}]}),
            &["spec.limits[1].type: Duplicate value: \"Pod\""],
        );
        check(
            &LimitRange,
            item(json!({"type": "Container", "max": {"cpu": "1"}, "defaultRequest": {"cpu": "2"}})),
            &[
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than max value 1",
                "spec.limits[0].defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than default limit value 1",
            ],
        );
    }
}
