//! Filter: taints that are not tolerated.

use crate::cycle::Cycle;
use crate::snapshot::NodeInfo;
use crate::why::Refusal;
use client::typed::first_untolerated;

/// Every taint that keeps Pods off must be tolerated.
pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
    let spec = node.node.as_ref().and_then(|node| node.spec.as_ref());
    let taints = spec.into_iter().flat_map(|spec| spec.taints.iter().flatten());
    let tolerations = cycle.pod.pod.spec.as_ref().and_then(|spec| spec.tolerations.as_ref());
    match first_untolerated(taints, tolerations, &["NoSchedule", "NoExecute"]) {
        None => Ok(()),
        Some(taint) => {
            let value = taint.value.as_deref().unwrap_or_default();
            Err(Refusal::of_node(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)))
        }
    }
}
