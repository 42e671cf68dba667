//! Which of the possible nodes is best. One file per score; each gives 0 to 100, and counts with its weight.

mod allocated;
mod balanced;
mod image_locality;
mod node_affinity;
mod pod_affinity;
mod taints;
mod topology_spread;

use super::cycle::Cycle;
use super::snapshot::NodeInfo;

/// The best a score can give.
const MAX: f64 = 100.0;

type Score = fn(&Cycle<'_>, &[&NodeInfo]) -> Vec<f64>;

/// Every score by upstream's name, with its weight in upstream's default profile.
pub(super) const ALL: &[(&str, Score, f64)] = &[
    ("TaintToleration", taints::score, 3.0),
    ("NodeAffinity", node_affinity::score, 2.0),
    ("PodTopologySpread", topology_spread::score, 2.0),
    ("InterPodAffinity", pod_affinity::score, 2.0),
    ("NodeResourcesFit", allocated::score, 1.0),
    ("NodeResourcesBalancedAllocation", balanced::score, 1.0),
    ("ImageLocality", image_locality::score, 1.0),
];

/// The weighted sum for each node, by the scores of the Pod's profile.
pub(super) fn total(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<f64> {
    let mut total = vec![0.0; nodes.len()];
    let chosen = cycle.pod.profile.scores.as_ref();
    for (name, score, usual) in ALL {
        let weight = match chosen {
            None => *usual,
            Some(chosen) => chosen.iter().find(|(own, _)| own == name).map_or(0.0, |(_, weight)| *weight),
        };
        if weight == 0.0 {
            continue;
        }
        for (sum, part) in total.iter_mut().zip(score(cycle, nodes)) {
            // Whole points, so that almost equal nodes tie and share the Pods.
            *sum += part.clamp(0.0, MAX).floor() * weight;
        }
    }
    total
}

/// Stretches raw values to 0..=100 by their maximum; `reverse` when less is better.
fn by_maximum(raw: &[f64], reverse: bool) -> Vec<f64> {
    let max = raw.iter().copied().fold(0.0, f64::max);
    let one = |value: &f64| if max == 0.0 { 0.0 } else { value * MAX / max };
    raw.iter().map(|value| if reverse { MAX - one(value) } else { one(value) }).collect()
}

/// An amount as a score's number. Amounts are far below 2^52.
#[allow(clippy::cast_precision_loss)]
fn number(amount: i64) -> f64 {
    amount as f64
}

/// How full a node would be of a resource with the Pod on it; `None` when it has none of it.
fn fullness(cycle: &Cycle<'_>, node: &NodeInfo, resource: &str) -> Option<f64> {
    let capacity = node.allocatable.get(resource).copied().filter(|amount| *amount > 0)?;
    let used = node.assumed.get(resource).copied().unwrap_or(0);
    let more = cycle.pod.assumed.get(resource).copied().unwrap_or(0);
    Some((number(used + more) / number(capacity)).min(1.0))
}
