//! Filter: volumes within the node's reach.

use crate::client::informer::Key;
use crate::client::typed::node_selected;
use crate::controlplane::scheduler::cycle::Cycle;
use crate::controlplane::scheduler::snapshot::NodeInfo;
use crate::controlplane::scheduler::volumes::claims;
use crate::controlplane::scheduler::why::Refusal;

/// Every bound volume must be within the node's reach, and a claim for one Pod must not be used by another.
pub(super) fn check(cycle: &Cycle<'_>, info: &NodeInfo) -> Result<(), Refusal> {
    let volumes = &cycle.pod.volumes;
    let Some(node) = &info.node else { return Ok(()) };
    if !volumes.reach.iter().all(|selector| node_selected(selector, node)) {
        return Err(Refusal::of_node("node(s) had volume node affinity conflict"));
    }
    if volumes.exclusive.is_empty() {
        return Ok(());
    }
    let uses = |pod: &crate::controlplane::scheduler::snapshot::PodInfo| {
        claims(&pod.pod)
            .into_iter()
            .any(|(name, _)| volumes.exclusive.contains(&Key::new(pod.namespace(), name)))
    };
    if info.pods.values().any(uses) {
        let reason =
            "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
        return Err(Refusal::of_pods(reason));
    }
    match cycle.snapshot.pods().any(|(_, pod)| uses(pod)) {
        true => Err(Refusal::of_node(
            "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
        )),
        false => Ok(()),
    }
}
