//! Label keys by which a Pod's terms mean its own revision, or others': merged into their selectors when it is made, so that
//! whoever reads the terms needs to know nothing of keys.

use serde_json::{Value, json};

use crate::meta::ObjectExt;
use crate::resources::fill::Fill;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Rule: `applyMatchLabelKeysAndMismatchLabelKeys`, and the same of spread constraints.
pub fn merge(pod: &mut Value) {
    let labels = pod.pointer("/metadata/labels").cloned().unwrap_or_default();
    for kind in ["podAffinity", "podAntiAffinity"] {
        let list = |rule: &str| format!("/spec/affinity/{kind}/{rule}");
        each(pod, &list(REQUIRED), |term| merge_term(term, &labels));
        each(pod, &list(PREFERRED), |wish| {
            if let Some(term) = wish.get_mut("podAffinityTerm") {
                merge_term(term, &labels);
            }
        });
    }
    each(pod, "/spec/topologySpreadConstraints", |constraint| merge_term(constraint, &labels));
}

fn each(pod: &mut Value, pointer: &str, act: impl FnMut(&mut Value)) {
    let list = pod.pointer_mut(pointer).and_then(Value::as_array_mut);
    list.into_iter().flatten().for_each(act);
}

fn merge_term(term: &mut Value, labels: &Value) {
    let mut expressions = Vec::new();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in term.array_at(&format!("/{field}")).iter().filter_map(Value::as_str) {
            // A label that the Pod does not have says nothing.
            if let Some(value) = labels.get(key) {
                expressions.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    let Some(selector) = term.get_mut("labelSelector").filter(|_| !expressions.is_empty()) else { return };
    match selector.get_mut("matchExpressions").and_then(Value::as_array_mut) {
        Some(list) => list.extend(expressions),
        None => selector.put("matchExpressions", Value::Array(expressions)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_become_expressions() {
        let selector = json!({"matchLabels": {"app": "web"}});
        let mut pod = json!({
            "metadata": {"labels": {"app": "web", "pod-template-hash": "h", "tenant": "t"}},
            "spec": {
                "affinity": {"podAntiAffinity": {
                    REQUIRED: [{"labelSelector": selector, "matchLabelKeys": ["pod-template-hash", "absent"],
                        "mismatchLabelKeys": ["tenant"]}],
                    PREFERRED: [{"podAffinityTerm": {"labelSelector": {"matchExpressions": [{"key": "app"}]},
                        "matchLabelKeys": ["tenant"]}}],
                }},
                "topologySpreadConstraints": [{"labelSelector": selector, "matchLabelKeys": ["tenant"]}, {}],
            },
        });
        merge(&mut pod);
        let at = |pointer: &str| pod.pointer(pointer).cloned().unwrap_or_default();
        let tenant = json!({"key": "tenant", "operator": "In", "values": ["t"]});
        let anti = "/spec/affinity/podAntiAffinity";
        assert_eq!(
            at(&format!("{anti}/{REQUIRED}/0/labelSelector/matchExpressions")),
            json!([{"key": "pod-template-hash", "operator": "In", "values": ["h"]},
                {"key": "tenant", "operator": "NotIn", "values": ["t"]}])
        );
        let wish = format!("{anti}/{PREFERRED}/0/podAffinityTerm/labelSelector/matchExpressions");
        assert_eq!(at(&wish), json!([{"key": "app"}, tenant]));
        assert_eq!(
            at("/spec/topologySpreadConstraints/0/labelSelector"),
            json!({"matchLabels": {"app": "web"}, "matchExpressions": [tenant]})
        );
    }
}
