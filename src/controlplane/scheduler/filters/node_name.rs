//! Filter: a Pod that names its node.

use crate::cycle::Cycle;
use crate::snapshot::NodeInfo;
use crate::why::Refusal;

/// A Pod that names its node runs there or nowhere.
pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
    let wanted = cycle.pod.pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    if wanted.is_empty() || wanted == node.name() {
        return Ok(());
    }
    Err(Refusal::of_node("node(s) didn't match the requested node name"))
}
