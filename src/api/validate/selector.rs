//! The rules of `metav1.LabelSelector`, and of amounts that are a number or a percentage.

use serde_json::Value;

use super::check::{Check, NOT_NEGATIVE};
use super::{FieldError, label_value, labels_errors, percent, qualified_name};

const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

/// Rule: `ValidateLabelSelector`, for the selector that stands at `key`, if any.
pub fn label_selector(check: &mut Check<'_, '_>, key: &str) {
    check.within(key, |selector| {
        let labels = labels_errors(selector.value.get("matchLabels"), &selector.at("matchLabels"));
        selector.extend(labels);
        selector.each("matchExpressions", expression);
    });
}

fn expression(expression: &mut Check<'_, '_>) {
    match expression.text("operator") {
        "In" | "NotIn" => {
            if expression.list("values").is_empty() {
                let why = "must be specified when `operator` is 'In' or 'NotIn'";
                expression.required("values", why);
            }
        }
        "Exists" | "DoesNotExist" => {
            if !expression.list("values").is_empty() {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                expression.forbidden("values", why);
            }
        }
        _ => expression.invalid("operator", "not a valid selector operator"),
    }
    let key = expression.text("key");
    for why in qualified_name(key) {
        expression.push(FieldError::invalid(expression.at("key"), key, why));
    }
    expression.each("values", |value| {
        value.follow_here(label_value(value.value.as_str().unwrap_or_default()));
    });
}

/// Whether a selector has neither labels nor expressions.
pub fn is_empty_selector(selector: &Value) -> bool {
    let none = |key: &str| match selector.get(key) {
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        _ => true,
    };
    none("matchLabels") && none("matchExpressions")
}

/// Whether a selector can be turned into one that selects: its operators are known.
pub fn is_readable_selector(selector: &Value) -> bool {
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    expressions.into_iter().flatten().all(|expression| {
        let operator = expression.get("operator").and_then(Value::as_str).unwrap_or_default();
        OPERATORS.contains(&operator)
    })
}

/// A count, or a share as `25%`, not negative; if `most` says so, at most 100%.
pub fn amount(check: &mut Check<'_, '_>, key: &str, most: bool) {
    match check.get(key) {
        Value::String(text) => {
            check.follow(key, percent(text));
            if most && share(text).is_some_and(|share| share > 100) {
                check.invalid(key, "must not be greater than 100%");
            }
        }
        Value::Number(number) if number.as_i64().is_some_and(|number| number < 0) => {
            check.invalid(key, NOT_NEGATIVE);
        }
        _ => {}
    }
}

fn share(text: &str) -> Option<u64> {
    text.strip_suffix('%').filter(|_| percent(text).is_empty())?.parse().ok()
}

/// Whether a count or share is nothing: 0 or `0%`.
pub fn is_zero_amount(amount: &Value) -> bool {
    match amount {
        Value::String(text) => share(text) == Some(0),
        other => other.as_i64() == Some(0),
    }
}
