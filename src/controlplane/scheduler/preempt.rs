//! Room for an important Pod: which less important ones would have to go.

use super::cycle::Cycle;
use super::filters;
use super::snapshot::{PodInfo, Snapshot};
use super::why::Why;
use crate::client::informer::Key;

/// A node, and the Pods to remove from it.
#[derive(Debug, PartialEq)]
pub(super) struct Room {
    pub node: String,
    pub victims: Vec<Key>,
}

fn fits(pod: &PodInfo, snapshot: &Snapshot, node: &str) -> bool {
    let cycle = Cycle::new(pod, snapshot);
    snapshot.nodes().find(|info| info.name() == node).is_some_and(|info| filters::check(&cycle, info).is_ok())
}

/// Whether room is being made already: less important Pods are ending on the node nominated before.
fn under_way(pod: &PodInfo, snapshot: &Snapshot) -> bool {
    let nominated = pod.pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
    let Some(node) = nominated else { return false };
    let mut there = snapshot.nodes().filter(|info| info.name() == node).flat_map(|info| info.pods.values());
    there.any(|other| other.pod.metadata.deletion_timestamp.is_some() && other.priority() < pod.priority())
}

/// The node where the least important Pods suffice, and as few of them as possible.
pub(super) fn make_room(pod: &PodInfo, snapshot: &Snapshot, why: &Why) -> Option<Room> {
    let never = pod.pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never");
    if never || under_way(pod, snapshot) {
        return None;
    }
    let possible = why.refusals.iter().filter(|(_, refusal)| refusal.preemptible).map(|(node, _)| node);
    let rooms = possible.filter_map(|node| victims(pod, snapshot, node).map(|victims| (node, victims)));
    let cost = |victims: &[PodInfo]| {
        let highest = victims.iter().map(PodInfo::priority).max().unwrap_or(i32::MIN);
        let sum: i64 = victims.iter().map(|victim| i64::from(victim.priority())).sum();
        (highest, sum, victims.len())
    };
    let (node, victims) = rooms.min_by_key(|(_, victims)| cost(victims))?;
    let victims = victims.iter().map(|victim| Key::of(&victim.pod.metadata)).collect();
    Some(Room { node: node.clone(), victims })
}

fn victims(pod: &PodInfo, snapshot: &Snapshot, node: &str) -> Option<Vec<PodInfo>> {
    let info = snapshot.nodes().find(|info| info.name() == node)?;
    let lesser = info.pods.values().filter(|other| other.priority() < pod.priority());
    let mut lesser: Vec<PodInfo> = lesser.cloned().collect();
    let mut without = snapshot.clone();
    for victim in &lesser {
        without.remove_pod(&Key::of(&victim.pod.metadata));
    }
    if lesser.is_empty() || !fits(pod, &without, node) {
        return None;
    }
    // The more important come back first, as long as there is room.
    lesser.sort_by_key(|victim| std::cmp::Reverse(victim.priority()));
    lesser.retain(|victim| {
        without.put_pod(victim.pod.clone(), node);
        let stays = fits(pod, &without, node);
        if !stays {
            without.remove_pod(&Key::of(&victim.pod.metadata));
        }
        !stays
    });
    Some(lesser)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use k8s_openapi::api::core::v1::{Node, Pod};
    use serde_json::{from_value, json};

    use super::super::schedule::schedule;
    use super::*;

    fn pod(name: &str, priority: i32, cpu: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": name}, "spec": {"priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        Arc::new(from_value(pod).unwrap())
    }

    #[test]
    fn the_least_important_make_room() {
        let mut snapshot = Snapshot::default();
        for name in ["n1", "n2"] {
            let node: Node = from_value(json!({"metadata": {"name": name},
                "status": {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "10"}}}))
            .unwrap();
            snapshot.put_node(Arc::new(node));
        }
        snapshot.put_pod(pod("a", 5, "600m"), "n1");
        snapshot.put_pod(pod("b", 1, "300m"), "n2");
        snapshot.put_pod(pod("c", 2, "600m"), "n2");
        let check = |priority: i32, cpu: &str, expect: Option<(&str, &[&str])>| {
            let incoming = PodInfo::new(pod("new", priority, cpu));
            let why = schedule(&incoming, &snapshot, |_| 0).unwrap_err();
            let room = make_room(&incoming, &snapshot, &why);
            let room = room.map(|r| (r.node, r.victims.into_iter().map(|key| key.name).collect::<Vec<_>>()));
            let expect = expect
                .map(|(node, names)| (node.to_owned(), names.iter().map(|n| (*n).to_owned()).collect()));
            assert_eq!(room, expect, "{priority} {cpu}");
        };
        check(10, "700m", Some(("n2", &["c"])));
        check(10, "1", Some(("n2", &["c", "b"])));
        check(1, "700m", None);
        check(10, "2", None);
    }
}
