//! What is particular to PodDisruptionBudgets.

use serde_json::Value;

use crate::resources::Strategy;
use crate::validate::{FieldError, amount, check, label_selector};

/// PodDisruptionBudgets.
pub struct DisruptionBudget;

impl Strategy for DisruptionBudget {
    /// Rule: `ValidatePodDisruptionBudgetSpec`.
    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        check(new, "spec", |spec| {
            if spec.has("minAvailable") && spec.has("maxUnavailable") {
                spec.wrong("minAvailable and maxUnavailable cannot be both set");
            }
            amount(spec, "minAvailable", true);
            amount(spec, "maxUnavailable", true);
            label_selector(spec, "selector");
            spec.maybe_one_of("unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]);
        })
    }

    fn validate_status(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        check(new, "status", |status| {
            status.not_negative(&["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"]);
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn says_what_is_wrong() {
        let check = |spec: Value, expect: &[&str]| {
            let errors = DisruptionBudget.validate(&json!({"spec": spec}), None);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
        };
        check(json!({"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}), &[]);
        check(
            json!({"minAvailable": 1, "maxUnavailable": 1}),
            &[
                "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set",
            ],
        );
        check(
            json!({"minAvailable": -1}),
            &["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"],
        );
        check(
            json!({"maxUnavailable": "150%"}),
            &["spec.maxUnavailable: Invalid value: \"150%\": must not be greater than 100%"],
        );
        check(
            json!({"minAvailable": "half"}),
            &[
                "spec.minAvailable: Invalid value: \"half\": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            ],
        );
        check(
            json!({"unhealthyPodEvictionPolicy": "Odd"}),
            &[
                "spec.unhealthyPodEvictionPolicy: Unsupported value: \"Odd\": supported values: \"AlwaysAllow\", \"IfHealthyBudget\"",
            ],
        );
        check(
            json!({"selector": {"matchLabels": {"a": "b c"}}}),
            &[
                "spec.selector.matchLabels: Invalid value: \"b c\": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ],
        );
    }
}
