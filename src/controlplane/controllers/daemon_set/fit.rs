//! Which nodes a DaemonSet's Pods belong on.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec,
    Toleration,
};

use super::super::history::REVISION_LABEL;
use super::super::pod_control::template_pod;
use client::typed::{first_untolerated, node_allowed};

/// What every Pod of a DaemonSet bears with, as upstream adds it.
const TOLERATED: &[(&str, &str)] = &[
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// The same for Pods on the node's own network.
const HOST_NETWORK: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");
const NAME_FIELD: &str = "metadata.name";
/// Which generation of the template a Pod is of, as old clients ask.
const GENERATION: &str = "pod-template-generation";
const GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";

/// Whether a node should have a Pod of a DaemonSet, and whether one that is there may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub run: bool,
    pub stay: bool,
}

fn tolerations(spec: &PodSpec) -> Vec<Toleration> {
    let mut all = spec.tolerations.clone().unwrap_or_default();
    let host = spec.host_network.unwrap_or_default().then_some(HOST_NETWORK);
    for (key, effect) in TOLERATED.iter().copied().chain(host) {
        let known = |toleration: &Toleration| {
            toleration.key.as_deref() == Some(key)
                && toleration.effect.as_deref() == Some(effect)
                && toleration.operator.as_deref() == Some("Exists")
                && toleration.toleration_seconds.is_none()
        };
        if !all.iter().any(known) {
            all.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some(effect.to_owned()),
                ..Toleration::default()
            });
        }
    }
    all
}

/// Returns the DaemonSet's Pod without a node: its template with the tolerations all such Pods have.
pub(super) fn bare_pod(set: &DaemonSet, hash: &str) -> Pod {
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = template_pod(&template, set);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_LABEL.to_owned(), hash.to_owned());
    let generation = set.metadata.annotations.as_ref().and_then(|all| all.get(GENERATION_ANNOTATION));
    if let Some(generation) = generation {
        labels.insert(GENERATION.to_owned(), generation.clone());
    }
    let spec = pod.spec.get_or_insert_default();
    spec.tolerations = Some(tolerations(spec));
    pod
}

/// Ties a Pod to one node by affinity; the scheduler still places it, and so sees what it takes.
pub(super) fn tie(mut pod: Pod, node: &str) -> Pod {
    let field = NodeSelectorRequirement {
        key: NAME_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let affinity: &mut Affinity = pod.spec.get_or_insert_default().affinity.get_or_insert_default();
    let affinity: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    let required: &mut NodeSelector =
        affinity.required_during_scheduling_ignored_during_execution.get_or_insert_default();
    if required.node_selector_terms.is_empty() {
        required.node_selector_terms.push(NodeSelectorTerm::default());
    }
    for term in &mut required.node_selector_terms {
        term.match_fields = Some(vec![field.clone()]);
    }
    pod
}

/// Returns the node a Pod is on, or is tied to.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    let spec = pod.spec.as_ref()?;
    if let Some(node) = spec.node_name.as_deref().filter(|node| !node.is_empty()) {
        return Some(node);
    }
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    let fields = required.node_selector_terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let mut named = fields.filter(|field| field.key == NAME_FIELD && field.operator == "In");
    named.next()?.values.as_ref()?.first().map(String::as_str)
}

/// Decides about a node; `pod` is the DaemonSet's [`bare_pod`].
pub(super) fn verdict(pod: &Pod, node: &Node) -> Verdict {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let wanted = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).filter(|name| !name.is_empty());
    if wanted.is_some_and(|wanted| wanted != name) || !node_allowed(pod, node) {
        return Verdict { run: false, stay: false };
    }
    let taints: Vec<_> = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).collect();
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_ref());
    let keeps_off =
        |effects: &[&str]| first_untolerated(taints.iter().copied(), tolerations, effects).is_some();
    Verdict { run: !keeps_off(&["NoSchedule", "NoExecute"]), stay: !keeps_off(&["NoExecute"]) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn set(spec: Value) -> DaemonSet {
        let mut pod = json!({"containers": [{"name": "c"}]});
        json_patch::merge(&mut pod, &spec);
        from_value(json!({"metadata": {"name": "d", "namespace": "ns", "uid": "u"},
            "spec": {"selector": {}, "template": {"spec": pod}}}))
        .unwrap()
    }

    #[test]
    fn nodes_are_chosen_by_name_affinity_and_taints() {
        let node: Node = from_value(json!({"metadata": {"name": "n1", "labels": {"disk": "ssd"}}})).unwrap();
        let tainted = |effect: &str| -> Node {
            let mut node = node.clone();
            node.spec = from_value(json!({"taints": [{"key": "k", "effect": effect}]})).unwrap();
            node
        };
        let check = |spec: Value, node: &Node, run: bool, stay: bool| {
            let pod = bare_pod(&set(spec.clone()), "h");
            assert_eq!(verdict(&pod, node), Verdict { run, stay }, "{spec}");
        };
        check(json!({}), &node, true, true);
        check(json!({"nodeName": "n2"}), &node, false, false);
        check(json!({"nodeSelector": {"disk": "ssd"}}), &node, true, true);
        check(json!({"nodeSelector": {"disk": "hdd"}}), &node, false, false);
        check(json!({}), &tainted("NoSchedule"), false, true);
        check(json!({}), &tainted("NoExecute"), false, false);
        check(json!({}), &tainted("PreferNoSchedule"), true, true);
        check(
            json!({"tolerations": [{"key": "k", "operator": "Exists"}]}),
            &tainted("NoExecute"),
            true,
            true,
        );
        let mut cordoned = node.clone();
        cordoned.spec = from_value(
            json!({"taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}),
        )
        .unwrap();
        check(json!({}), &cordoned, true, true);
    }

    #[test]
    fn a_tied_pod_says_its_node() {
        let pod = tie(bare_pod(&set(json!({})), "h"), "n7");
        assert_eq!(target(&pod), Some("n7"));
        assert_eq!(pod.metadata.labels.unwrap()[REVISION_LABEL], "h");
        let own = json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "Exists"}]}]}}}});
        let pod = tie(bare_pod(&set(own), "h"), "n7");
        let here: Node = from_value(json!({"metadata": {"name": "n7", "labels": {"disk": "x"}}})).unwrap();
        let other: Node = from_value(json!({"metadata": {"name": "n8", "labels": {"disk": "x"}}})).unwrap();
        assert!(node_allowed(&pod, &here) && !node_allowed(&pod, &other));
    }
}
