//! Score: processor and memory evenly used.

use super::{MAX, fullness};
use crate::cycle::Cycle;
use crate::snapshot::NodeInfo;
use client::typed::resources::{CPU, MEMORY};

/// Processor and memory evenly used.
pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<f64> {
    let one = |node: &&NodeInfo| {
        let both = fullness(cycle, node, CPU).zip(fullness(cycle, node, MEMORY));
        both.map_or(MAX, |(cpu, memory)| (1.0 - (cpu - memory).abs() / 2.0) * MAX)
    };
    nodes.iter().map(one).collect()
}
