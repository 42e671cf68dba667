//! Filter: cordoned nodes.

use k8s_openapi::api::core::v1::Taint;

use crate::cycle::Cycle;
use crate::snapshot::NodeInfo;
use crate::why::Refusal;
use client::typed::tolerates_any;

/// A cordoned node takes only Pods that tolerate that.
pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
    let spec = node.node.as_ref().and_then(|node| node.spec.as_ref());
    if spec.and_then(|spec| spec.unschedulable) != Some(true) {
        return Ok(());
    }
    let cordon = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    let tolerations = cycle.pod.pod.spec.as_ref().and_then(|spec| spec.tolerations.as_ref());
    if tolerates_any(tolerations, &cordon) {
        return Ok(());
    }
    Err(Refusal::of_node("node(s) were unschedulable"))
}
