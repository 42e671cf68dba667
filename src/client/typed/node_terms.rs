//! Which nodes a Pod's node selector and node affinity mean: the scheduler and the DaemonSet controller ask the same.

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod};

fn requirement(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = || requirement.values.iter().flatten();
    let listed = |value: &str| values().any(|candidate| candidate == value);
    let number = |text: &str| text.parse::<i64>().ok();
    let bound = || values().next().and_then(|text| number(text));
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => !value.is_some_and(listed),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => value.and_then(number).zip(bound()).is_some_and(|(value, bound)| value > bound),
        "Lt" => value.and_then(number).zip(bound()).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

/// Whether a node term means this node. An empty term means none.
pub fn node_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label =
        |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let field = |key: &str| if key == "metadata.name" { node.metadata.name.as_deref() } else { None };
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|wish| requirement(wish, label(&wish.key)))
        && fields.iter().all(|wish| requirement(wish, field(&wish.key)))
}

fn required(pod: &Pod) -> Option<&NodeSelector> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    affinity.required_during_scheduling_ignored_during_execution.as_ref()
}

/// Whether a Pod's node selector and required node affinity allow the node.
pub fn node_allowed(pod: &Pod, node: &Node) -> bool {
    let selector = pod.spec.as_ref().and_then(|spec| spec.node_selector.as_ref());
    let labels = node.metadata.labels.as_ref();
    let plain = selector.into_iter().flatten();
    plain.clone().all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
        && required(pod).is_none_or(|selector| node_selected(selector, node))
}

/// Whether any term of a node selector means the node.
pub fn node_selected(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| node_term(term, node))
}
