//! Filter: no two Pods of a node take the same host port.

use crate::cycle::Cycle;
use crate::snapshot::NodeInfo;
use crate::why::Refusal;

/// No two Pods of a node take the same host port.
pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
    let mut taken = node.pods.values().flat_map(|pod| &pod.ports);
    let clash = !cycle.pod.ports.is_empty()
        && taken.any(|other| cycle.pod.ports.iter().any(|port| port.conflicts(other)));
    if clash {
        return Err(Refusal::of_pods("node(s) didn't have free ports for the requested pod ports"));
    }
    Ok(())
}
