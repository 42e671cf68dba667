//! Filter: `nodeSelector` and required node affinity.

use crate::client::typed::node_allowed;
use crate::controlplane::scheduler::cycle::Cycle;
use crate::controlplane::scheduler::snapshot::NodeInfo;
use crate::controlplane::scheduler::why::Refusal;

/// `nodeSelector` and required node affinity.
pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
    match &node.node {
        Some(node) if node_allowed(&cycle.pod.pod, node) => Ok(()),
        _ => Err(Refusal::of_node("node(s) didn't match Pod's node affinity/selector")),
    }
}
