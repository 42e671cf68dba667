//! Room for an important Pod: which less important ones would have to go.

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;

use super::cycle::Cycle;
use super::filters;
use super::snapshot::{PodInfo, Snapshot};
use super::why::Why;
use client::informer::Key;
use client::typed::selects;

/// A Pod that is to go, by its name and its uid: another one of the same name is not meant.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Victim {
    pub key: Key,
    pub uid: String,
}

/// A node, and the Pods to remove from it.
#[derive(Debug, PartialEq)]
pub(super) struct Room {
    pub node: String,
    pub victims: Vec<Victim>,
}

fn fits(pod: &PodInfo, snapshot: &Snapshot, node: &str) -> bool {
    let cycle = Cycle::new(pod, snapshot);
    snapshot.node(node).is_some_and(|info| filters::check(&cycle, info).is_ok())
}

/// Whether room is being made already: less important Pods are ending on the node nominated before.
fn under_way(pod: &PodInfo, snapshot: &Snapshot) -> bool {
    let nominated = pod.pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
    let mut there =
        nominated.and_then(|node| snapshot.node(node)).into_iter().flat_map(|info| info.pods.values());
    there.any(|other| other.pod.metadata.deletion_timestamp.is_some() && other.priority() < pod.priority())
}

/// What the removal of Pods costs, the cheapest first: budgets broken, the most important victim, the sum of their
/// priorities, their number, and how long the most important ones have run.
fn cost(victims: &[PodInfo], broken: usize) -> impl Ord + use<> {
    let highest = victims.iter().map(PodInfo::priority).max().unwrap_or(i32::MIN);
    let sum: i64 = victims.iter().map(|victim| i64::from(victim.priority()) + i64::from(i32::MAX) + 1).sum();
    let oldest = victims.iter().filter(|victim| victim.priority() == highest).filter_map(started).min();
    (broken, highest, sum, victims.len(), Reverse(oldest))
}

fn started(pod: &PodInfo) -> Option<Timestamp> {
    pod.pod.status.as_ref()?.start_time.as_ref().map(|at| at.0)
}

/// The node where removing the least matters. Budgets are honoured where that is possible.
pub(super) fn make_room(
    pod: &PodInfo,
    snapshot: &Snapshot,
    why: &Why,
    budgets: &[Arc<PodDisruptionBudget>],
) -> Option<Room> {
    let never = pod.pod.spec.as_ref().and_then(|spec| spec.preemption_policy.as_deref()) == Some("Never");
    if never || under_way(pod, snapshot) {
        return None;
    }
    let possible = why.refusals.iter().filter(|(_, refusal)| refusal.preemptible).map(|(node, _)| node);
    let rooms = possible.filter_map(|node| Some((node, victims(pod, snapshot, node, budgets)?)));
    let (node, (victims, _)) = rooms.min_by_key(|(_, (victims, broken))| cost(victims, *broken))?;
    let victims = victims.iter().map(|victim| Victim {
        key: Key::of(&victim.pod.metadata),
        uid: victim.pod.uid().unwrap_or_default(),
    });
    Some(Room { node: node.clone(), victims: victims.collect() })
}

/// Parts those whose removal would break a budget from those whose would not. Each removal spends of a budget.
fn by_budgets(pods: Vec<PodInfo>, budgets: &[Arc<PodDisruptionBudget>]) -> (Vec<PodInfo>, Vec<PodInfo>) {
    let mut left: Vec<(&PodDisruptionBudget, i32)> = budgets
        .iter()
        .map(|budget| {
            let allowed = budget.status.as_ref().and_then(|status| status.disruptions_allowed);
            (&**budget, allowed.unwrap_or(0))
        })
        .collect();
    pods.into_iter().partition(|pod| {
        let mut breaks = false;
        for (budget, allowed) in &mut left {
            let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            let guarded = budget.namespace().unwrap_or_default() == pod.namespace()
                && selector.is_some_and(|selector| selects(selector, pod.labels()));
            let going = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
            if guarded && !going.is_some_and(|going| going.contains_key(&pod.pod.name_any())) {
                *allowed -= 1;
                breaks |= *allowed < 0;
            }
        }
        breaks
    })
}

/// The Pods that must go from a node, and how many budgets that breaks; `None` when it would not help.
fn victims(
    pod: &PodInfo,
    snapshot: &Snapshot,
    node: &str,
    budgets: &[Arc<PodDisruptionBudget>],
) -> Option<(Vec<PodInfo>, usize)> {
    let info = snapshot.node(node)?;
    let lesser = info.pods.values().filter(|other| other.priority() < pod.priority());
    let mut lesser: Vec<PodInfo> = lesser.cloned().collect();
    let mut without = snapshot.clone();
    for victim in &lesser {
        without.remove_pod(&Key::of(&victim.pod.metadata));
    }
    if lesser.is_empty() || !fits(pod, &without, node) {
        return None;
    }
    // The more important come back first, as long as there is room; before them those that budgets guard.
    lesser.sort_by_key(|victim| (Reverse(victim.priority()), started(victim)));
    let (mut guarded, mut free) = by_budgets(lesser, budgets);
    let mut stays = |victim: &PodInfo| {
        without.put_pod(victim.pod.clone(), node);
        let stays = fits(pod, &without, node);
        if !stays {
            without.remove_pod(&Key::of(&victim.pod.metadata));
        }
        stays
    };
    guarded.retain(|victim| !stays(victim));
    free.retain(|victim| !stays(victim));
    let broken = guarded.len();
    guarded.extend(free);
    Some((guarded, broken))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, Pod};
    use serde_json::{from_value, json};

    use super::super::schedule::schedule;
    use super::*;

    fn pod(name: &str, priority: i32, cpu: &str) -> Arc<Pod> {
        let pod = json!({"metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"name": name}},
            "spec": {"priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}});
        Arc::new(from_value(pod).unwrap())
    }

    fn snapshot() -> Snapshot {
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
        snapshot
    }

    fn check(priority: i32, cpu: &str, guarded: &[&str], expect: Option<(&str, &[&str])>) {
        let snapshot = snapshot();
        let budgets = guarded.iter().map(|name| {
            let budget = json!({"metadata": {"name": name, "namespace": "ns"},
                "spec": {"selector": {"matchLabels": {"name": name}}}, "status": {"disruptionsAllowed": 0}});
            Arc::new(from_value(budget).unwrap())
        });
        let budgets: Vec<Arc<PodDisruptionBudget>> = budgets.collect();
        let incoming = PodInfo::new(pod("new", priority, cpu));
        let why = schedule(&incoming, &snapshot, |_| 0).unwrap_err();
        let room = make_room(&incoming, &snapshot, &why, &budgets);
        let room = room.map(|r| (r.node, r.victims.into_iter().map(|victim| victim.uid).collect::<Vec<_>>()));
        let expect =
            expect.map(|(node, names)| (node.to_owned(), names.iter().map(|n| (*n).to_owned()).collect()));
        assert_eq!(room, expect, "{priority} {cpu} {guarded:?}");
    }

    #[test]
    fn the_least_important_make_room() {
        check(10, "700m", &[], Some(("n2", &["c"])));
        check(10, "1", &[], Some(("n2", &["c", "b"])));
        check(1, "700m", &[], None);
        check(10, "2", &[], None);
    }

    #[test]
    fn guarded_pods_go_last() {
        check(10, "700m", &["c"], Some(("n1", &["a"])));
        check(10, "700m", &["c", "a"], Some(("n2", &["c"])));
    }

    #[test]
    fn room_that_was_made_is_held() {
        let mut snapshot = snapshot();
        snapshot.remove_pod(&Key::new("ns", "a"));
        let important = PodInfo::new(pod("important", 9, "900m"));
        snapshot.nominate(&important, "n1");
        let lesser = PodInfo::new(pod("lesser", 3, "500m"));
        assert!(schedule(&lesser, &snapshot, |_| 0).is_err(), "the room is for another");
        assert_eq!(schedule(&important, &snapshot, |_| 0), Ok("n1".to_owned()));
        let more = PodInfo::new(pod("more", 11, "500m"));
        assert_eq!(schedule(&more, &snapshot, |_| 0), Ok("n1".to_owned()), "the more important comes first");
    }
}
