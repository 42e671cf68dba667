//! Filter: required affinity and anti-affinity between Pods.

use crate::cycle::{Cycle, topology_pair};
use crate::snapshot::NodeInfo;
use crate::terms::pod_term;
use crate::why::Refusal;

/// Required affinity and anti-affinity between Pods, in both directions.
pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
    let found = cycle.neighbours();
    let at = |key: &str| topology_pair(node, key);
    let affinity = cycle.pod.required(false);
    let near =
        affinity.iter().all(|term| at(&term.topology_key).is_some_and(|pair| found.wanted.contains(&pair)));
    if !near && !starts_a_series(cycle, node) {
        return Err(Refusal::of_node("node(s) didn't match pod affinity rules"));
    }
    let mut anti = cycle.pod.required(true).iter();
    if anti.any(|term| at(&term.topology_key).is_some_and(|pair| found.avoided.contains(&pair))) {
        return Err(Refusal::of_pods("node(s) didn't match pod anti-affinity rules"));
    }
    if found.forbidden.iter().any(|(key, value)| node.label(key) == Some(value)) {
        return Err(Refusal::of_pods("node(s) didn't satisfy existing pods anti-affinity rules"));
    }
    Ok(())
}

/// The first of Pods that want to be near each other may go anywhere its terms have a domain.
fn starts_a_series(cycle: &Cycle<'_>, node: &NodeInfo) -> bool {
    let pod = cycle.pod;
    cycle.neighbours().wanted.is_empty()
        && pod.required(false).iter().all(|term| {
            node.label(&term.topology_key).is_some()
                && pod_term(term, pod.namespace(), pod, &cycle.snapshot.namespaces)
        })
}
