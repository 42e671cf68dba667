//! Score: the emptier the better, or the fuller, as the profile has it.

use super::{MAX, fullness};
use crate::cycle::Cycle;
use crate::snapshot::NodeInfo;
use client::typed::resources::{CPU, MEMORY};

/// The emptier the better, or the fuller, as the profile has it.
pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<f64> {
    let one = |node: &&NodeInfo| {
        let free = [CPU, MEMORY].into_iter().filter_map(|resource| fullness(cycle, node, resource));
        let fullest = cycle.pod.profile.fullest;
        let free: Vec<f64> = free.map(|full| if fullest { full } else { 1.0 - full } * MAX).collect();
        let count: f64 = free.iter().map(|_| 1.0).sum();
        if free.is_empty() { 0.0 } else { free.iter().sum::<f64>() / count }
    };
    nodes.iter().map(one).collect()
}
