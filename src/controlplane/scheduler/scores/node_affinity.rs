//! Score: preferred node affinity.

use super::by_maximum;
use crate::cycle::Cycle;
use crate::snapshot::NodeInfo;
use client::typed::node_term;

/// Preferred node affinity: the weights of the terms that hold.
pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<f64> {
    let affinity = cycle.pod.pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
    let wishes = affinity
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.as_deref())
        .unwrap_or_default();
    let one = |info: &&NodeInfo| {
        let Some(node) = &info.node else { return 0.0 };
        let held = wishes.iter().filter(|wish| node_term(&wish.preference, node));
        held.map(|wish| f64::from(wish.weight)).sum()
    };
    by_maximum(&nodes.iter().map(one).collect::<Vec<_>>(), false)
}
