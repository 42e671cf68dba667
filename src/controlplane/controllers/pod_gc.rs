//! Pods that nobody will finish: on nodes that are gone, deleted before they had a node, or ended and too many.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use serde_json::json;

use super::context::{Context, Error};
use super::harness::{Harness, Outcome, Reconcile};
use super::indexes;
use super::pod_control::{disruption_target, evict};
use client::informer::{Cache, Key};
use client::typed::{is_terminal, node_is_ready};

/// A node may come back under its name: its Pods wait this long (upstream's quarantineTime).
const QUARANTINE: Duration = Duration::from_secs(40);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Keep,
    /// Its node is gone: it failed, and is deleted without waiting for anybody.
    Lost,
    Delete,
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

/// What is known of the node a Pod is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeState {
    Serving,
    /// Somebody has said, by the taint, that nothing runs on it any more.
    OutOfService,
    Gone,
}

fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.into_iter().any(|taint| taint.key == "node.kubernetes.io/out-of-service") && !node_is_ready(node)
}

fn plan(pod: &Pod, node: NodeState) -> Plan {
    let leaving = pod.metadata.deletion_timestamp.is_some();
    match (node_of(pod), node) {
        (Some(_), NodeState::Gone) => Plan::Lost,
        (Some(_), NodeState::OutOfService) if leaving => Plan::Lost,
        (None, _) if leaving => Plan::Delete,
        _ => Plan::Keep,
    }
}

/// Ended Pods beyond the limit, oldest first.
fn surplus(pods: &[Arc<Pod>], limit: usize) -> Vec<Key> {
    let mut ended: Vec<&Arc<Pod>> =
        pods.iter().filter(|pod| is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()).collect();
    ended.sort_by_key(|pod| Reverse(pod.metadata.creation_timestamp.clone()));
    ended.iter().skip(limit).map(|pod| Key::of(&pod.metadata)).collect()
}

pub(super) fn start(context: &Context) {
    let (pods, nodes) = (indexes::pods(context), context.cache::<Node>());
    let mut harness = Harness::new(context);
    let all = nodes.clone();
    let (limit, ended) = (context.settings.terminated_pod_threshold, pods.clone());
    harness.watches(&pods, move |change, queue| {
        let Some(pod) = change.new else { return };
        let key = Key::of(&pod.metadata);
        match node_of(pod) {
            None if pod.metadata.deletion_timestamp.is_some() => queue.add(key),
            Some(node) if all.get(&Key::cluster(node)).is_none() => queue.add_after(key, QUARANTINE),
            Some(node)
                if pod.metadata.deletion_timestamp.is_some()
                    && all.get(&Key::cluster(node)).is_some_and(|node| is_out_of_service(&node)) =>
            {
                queue.add(key);
            }
            _ => {}
        }
        let ends = is_terminal(pod) && !change.old.is_some_and(|old| is_terminal(old));
        if limit > 0 && ends && ended.len() > limit {
            surplus(&ended.list(), limit).into_iter().for_each(|key| queue.add(key));
        }
    });
    let on = pods.clone();
    harness.watches(&nodes, move |change, queue| {
        let there = |node: &Node| indexes::on_node(&on, &node.name_any());
        match (change.new, change.old) {
            (None, Some(node)) => {
                there(node).iter().for_each(|pod| queue.add_after(Key::of(&pod.metadata), QUARANTINE));
            }
            (Some(node), _) if is_out_of_service(node) => {
                there(node).iter().for_each(|pod| queue.add(Key::of(&pod.metadata)));
            }
            _ => {}
        }
    });
    harness.run(2, Arc::new(Reconciler { context: context.clone(), pods, nodes }));
}

struct Reconciler {
    context: Context,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(pod) = self.pods.get(key) else { return Ok(Outcome::Done) };
        let cached = node_of(&pod).and_then(|node| self.nodes.get(&Key::cluster(node)));
        let node = match node_of(&pod) {
            None => NodeState::Serving,
            Some(_) if cached.as_ref().is_some_and(|node| is_out_of_service(node)) => NodeState::OutOfService,
            Some(_) if cached.is_some() => NodeState::Serving,
            // The cache may not have a node that is new.
            Some(name) if self.context.all::<Node>().get_opt(name).await?.is_some() => NodeState::Serving,
            Some(_) => NodeState::Gone,
        };
        let limit = self.context.settings.terminated_pod_threshold;
        let excess = limit > 0 && is_terminal(&pod) && surplus(&self.pods.list(), limit).contains(key);
        let plan = plan(&pod, node);
        if plan == Plan::Keep && !excess {
            return Ok(Outcome::Done);
        }
        let lost = (plan == Plan::Lost && !is_terminal(&pod)).then(|| {
            let message = "PodGC: node no longer exists";
            let mut patch = disruption_target(&pod, "DeletionByPodGC", message, self.context.now());
            patch["status"]["phase"] = json!("Failed");
            patch
        });
        evict(&self.context, &pod, lost, Some(0)).await?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value};

    use super::*;

    #[test]
    fn lost_and_never_placed_pods_go() {
        let check = |pod: Value, node: NodeState, expect: Plan| {
            let parsed: Pod = from_value(pod.clone()).unwrap();
            assert_eq!(plan(&parsed, node), expect, "{pod}");
        };
        let on = json!({"spec": {"nodeName": "n1", "containers": []}});
        check(on.clone(), NodeState::Serving, Plan::Keep);
        check(on.clone(), NodeState::OutOfService, Plan::Keep);
        let leaving = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n1", "containers": []}});
        check(leaving.clone(), NodeState::Serving, Plan::Keep);
        check(leaving, NodeState::OutOfService, Plan::Lost);
        check(on, NodeState::Gone, Plan::Lost);
        check(
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            NodeState::Serving,
            Plan::Delete,
        );
        check(json!({}), NodeState::Serving, Plan::Keep);
    }

    #[test]
    fn the_oldest_ended_pods_are_surplus() {
        let pod = |name: &str, day: u8, phase: &str| -> Arc<Pod> {
            Arc::new(
                from_value(json!({"metadata": {"name": name, "creationTimestamp": format!("2026-01-0{day}T00:00:00Z")},
                    "status": {"phase": phase}}))
                .unwrap(),
            )
        };
        let pods =
            [pod("a", 1, "Failed"), pod("b", 3, "Succeeded"), pod("c", 2, "Failed"), pod("d", 1, "Running")];
        assert_eq!(surplus(&pods, 1), [Key::cluster("c"), Key::cluster("a")]);
        assert!(surplus(&pods, 3).is_empty());
    }
}
