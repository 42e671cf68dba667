//! Filters: volumes within the node's reach, no more than its drivers take, and none that another Pod has for itself.

use k8s_openapi::api::core::v1::Node;

use crate::cycle::Cycle;
use crate::snapshot::{NodeInfo, PodInfo};
use crate::volumes::{PodVolumes, claims};
use crate::why::Refusal;
use client::informer::Key;
use client::typed::node_selected;

/// Every bound volume must be within the node's reach.
pub(super) fn reach(cycle: &Cycle<'_>, info: &NodeInfo) -> Result<(), Refusal> {
    let reaches = |node: &Node| cycle.pod.volumes.reach.iter().all(|selector| node_selected(selector, node));
    match info.node.as_ref().is_none_or(|node| reaches(node)) {
        true => Ok(()),
        false => Err(Refusal::of_node("node(s) had volume node affinity conflict")),
    }
}

/// A driver must take one more volume there.
pub(super) fn limits(cycle: &Cycle<'_>, info: &NodeInfo) -> Result<(), Refusal> {
    match cycle.pod.volumes.crowded.contains(info.name()) {
        true => Err(Refusal::of_pods("node(s) exceed max volume count")),
        false => Ok(()),
    }
}

/// The node must be where the volumes are.
pub(super) fn zone(cycle: &Cycle<'_>, info: &NodeInfo) -> Result<(), Refusal> {
    match shares_zone(&cycle.pod.volumes, info) {
        true => Ok(()),
        false => Err(Refusal::of_node("node(s) had no available volume zone")),
    }
}

/// A claim for one Pod must not be used by another.
pub(super) fn exclusive(cycle: &Cycle<'_>, info: &NodeInfo) -> Result<(), Refusal> {
    let volumes = &cycle.pod.volumes;
    if volumes.exclusive.is_empty() {
        return Ok(());
    }
    let uses = |pod: &PodInfo| {
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

/// Whether the node is in the parts of the world where the volumes are. One that says of none is in all of them.
fn shares_zone(volumes: &PodVolumes, info: &NodeInfo) -> bool {
    let says = |(label, _): &(&str, Vec<String>)| info.label(label).is_some();
    let same =
        |(label, values): &(&str, Vec<String>)| info.label(label).is_some_and(|own| values.contains(own));
    !volumes.zones.iter().any(says) || volumes.zones.iter().all(same)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn a_volume_s_zone_is_its_pod_s() {
        let zone = "topology.kubernetes.io/zone";
        let check = |labels: Value, expect: bool| {
            let node = from_value(json!({"metadata": {"name": "n", "labels": labels}})).expect("a Node");
            let info = NodeInfo { node: Some(Arc::new(node)), ..NodeInfo::default() };
            let zones = vec![(zone, vec!["a".to_owned(), "b".to_owned()])];
            let volumes = PodVolumes { zones, ..PodVolumes::default() };
            assert_eq!(shares_zone(&volumes, &info), expect, "{labels}");
        };
        check(json!({zone: "a"}), true);
        check(json!({zone: "c"}), false);
        check(json!({"other": "c"}), true);
    }
}
