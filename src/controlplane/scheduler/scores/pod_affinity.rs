//! Score: preferred affinity between Pods.

use std::collections::HashMap;

use super::MAX;
use crate::cycle::{Cycle, TopologyPair, topology_pair};
use crate::snapshot::NodeInfo;
use crate::terms::pod_term;

/// What a Pod that requires this one's company adds (upstream's hardPodAffinityWeight).
const REQUIRED: f64 = 1.0;

/// Preferred affinity between Pods: this one's wishes, and the wishes of those already there.
pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<f64> {
    let places = weigh(cycle);
    if places.is_empty() {
        return vec![0.0; nodes.len()];
    }
    let one = |node: &&NodeInfo| -> f64 {
        let here = places.iter().filter(|((key, value), _)| node.label(key) == Some(value));
        here.map(|(_, weight)| weight).sum()
    };
    let raw: Vec<f64> = nodes.iter().map(one).collect();
    let (min, max) = raw.iter().fold((f64::MAX, f64::MIN), |(min, max), v| (min.min(*v), max.max(*v)));
    let stretch = |value: &f64| if max > min { MAX * (value - min) / (max - min) } else { 0.0 };
    raw.iter().map(stretch).collect()
}

fn weigh(cycle: &Cycle<'_>) -> HashMap<TopologyPair, f64> {
    let mut places = HashMap::new();
    let (pod, namespaces) = (cycle.pod, &cycle.snapshot.namespaces);
    let mut add = |node: &NodeInfo, key: &str, weight: f64| {
        if let Some(place) = topology_pair(node, key) {
            *places.entry(place).or_insert(0.0) += weight;
        }
    };
    let signs = [(false, 1.0), (true, -1.0)];
    if signs.iter().any(|(anti, _)| !pod.preferred(*anti).is_empty()) {
        for (node, other) in cycle.snapshot.pods() {
            for (anti, sign) in signs {
                for wish in pod.preferred(anti) {
                    let term = &wish.pod_affinity_term;
                    if pod_term(term, pod.namespace(), other, namespaces) {
                        add(node, &term.topology_key, sign * f64::from(wish.weight));
                    }
                }
            }
        }
    }
    for (node, other) in cycle.snapshot.opinionated() {
        for (anti, sign) in signs {
            for wish in other.preferred(anti) {
                let term = &wish.pod_affinity_term;
                if pod_term(term, other.namespace(), pod, namespaces) {
                    add(node, &term.topology_key, sign * f64::from(wish.weight));
                }
            }
        }
        for term in other.required(false) {
            if pod_term(term, other.namespace(), pod, namespaces) {
                add(node, &term.topology_key, REQUIRED);
            }
        }
    }
    places
}
