//! Filter: `nodeSelector` and required node affinity.

use crate::cycle::Cycle;
use crate::snapshot::NodeInfo;
use crate::why::Refusal;
use client::typed::node_allowed;

/// `nodeSelector` and required node affinity.
pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
    match &node.node {
        Some(node) if node_allowed(&cycle.pod.pod, node) => Ok(()),
        _ => Err(Refusal::of_node("node(s) didn't match Pod's node affinity/selector")),
    }
}
