//! Labels and label selectors of typed objects.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// An object's labels.
pub type Labels = BTreeMap<String, String>;

/// Whether a label selector matches. An empty selector matches everything; an operator the API does
/// not know matches nothing.
pub fn selects(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let get = |key: &str| labels.and_then(|labels| labels.get(key));
    let exact = selector.match_labels.iter().flatten().all(|(key, value)| get(key) == Some(value));
    exact
        && selector.match_expressions.iter().flatten().all(|term| {
            let listed = |value: &String| term.values.iter().flatten().any(|v| v == value);
            match (term.operator.as_str(), get(&term.key)) {
                ("In", value) => value.is_some_and(listed),
                ("NotIn", value) => !value.is_some_and(listed),
                ("Exists", value) => value.is_some(),
                ("DoesNotExist", value) => value.is_none(),
                _ => false,
            }
        })
}

/// Whether every pair of a plain selector (a Service's) is among the labels.
pub fn selects_map(selector: &Labels, labels: Option<&Labels>) -> bool {
    selector.iter().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selectors_match_as_the_api_defines() {
        let labels: Labels = [("app".to_owned(), "web".to_owned())].into();
        let check = |selector: serde_json::Value, expect: bool| {
            let parsed: LabelSelector = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(selects(&parsed, Some(&labels)), expect, "{selector}");
        };
        check(json!({}), true);
        check(json!({"matchLabels": {"app": "web"}}), true);
        check(json!({"matchLabels": {"app": "db"}}), false);
        check(json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web", "x"]}]}), true);
        check(json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false);
        check(json!({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["web"]}]}), true);
        check(json!({"matchExpressions": [{"key": "app", "operator": "Exists"}]}), true);
        check(json!({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}), false);
        check(json!({"matchExpressions": [{"key": "app", "operator": "Near"}]}), false);
    }
}
