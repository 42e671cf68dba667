//! Pods that nobody will finish: on nodes that are gone, deleted before they had a node, or ended and too many.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use super::context::{Context, Error, ignore_not_found};
use super::views;
use crate::client::informer::{Cache, Key};
use crate::client::queue::Queue;
use crate::client::typed::is_terminal;

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

fn plan(pod: &Pod, node_exists: bool) -> Plan {
    match node_of(pod) {
        Some(_) if !node_exists => Plan::Lost,
        None if pod.metadata.deletion_timestamp.is_some() => Plan::Delete,
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
    let queue = Queue::<Key>::default();
    let (pods, nodes) = (views::pods(context), context.cache::<Node>());
    let (changed, all) = (queue.clone(), nodes.clone());
    let (limit, ended) = (context.settings.terminated_pod_threshold, pods.clone());
    pods.on_change(move |change| {
        let Some(pod) = change.new else { return };
        let key = Key::of(&pod.metadata);
        match node_of(pod) {
            None if pod.metadata.deletion_timestamp.is_some() => changed.add(key),
            Some(node) if all.get(&Key::cluster(node)).is_none() => changed.add_after(key, QUARANTINE),
            _ => {}
        }
        let ends = is_terminal(pod) && !change.old.is_some_and(|old| is_terminal(old));
        if limit > 0 && ends && ended.len() > limit {
            surplus(&ended.list(), limit).into_iter().for_each(|key| changed.add(key));
        }
    });
    let (lost, on) = (queue.clone(), pods.clone());
    nodes.on_change(move |change| {
        if let (None, Some(node)) = (change.new, change.old) {
            let there = views::on_node(&on, &node.name_any());
            there.iter().for_each(|pod| lost.add_after(Key::of(&pod.metadata), QUARANTINE));
        }
    });
    let ready = {
        let (pods, nodes) = (pods.clone(), nodes.clone());
        async move {
            pods.synced().await;
            nodes.synced().await;
        }
    };
    let shared = context.clone();
    context.work(&queue, 2, ready, move |key| {
        let (context, pods, nodes) = (shared.clone(), pods.clone(), nodes.clone());
        async move { reconcile(&context, &pods, &nodes, &key).await }
    });
}

async fn reconcile(
    context: &Context,
    pods: &Cache<Pod>,
    nodes: &Cache<Node>,
    key: &Key,
) -> Result<(), Error> {
    let Some(pod) = pods.get(key) else { return Ok(()) };
    let exists = match node_of(&pod) {
        // The cache may not have a node that is new.
        Some(node) if nodes.get(&Key::cluster(node)).is_none() => {
            context.all::<Node>().get_opt(node).await?.is_some()
        }
        _ => true,
    };
    let limit = context.settings.terminated_pod_threshold;
    let excess = limit > 0 && is_terminal(&pod) && surplus(&pods.list(), limit).contains(key);
    let plan = plan(&pod, exists);
    if plan == Plan::Keep && !excess {
        return Ok(());
    }
    let api = context.api::<Pod>(&key.namespace);
    if plan == Plan::Lost && !is_terminal(&pod) {
        let patch = json!({"status": {"phase": "Failed", "conditions": [{"type": "DisruptionTarget",
            "status": "True", "reason": "DeletionByPodGC", "message": "PodGC: node no longer exists",
            "lastTransitionTime": k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(context.now())}]}});
        ignore_not_found(
            api.patch_status(&key.name, &PatchParams::default(), &Patch::Strategic(patch)).await,
        )?;
    }
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    ignore_not_found(api.delete(&key.name, &now).await)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value};

    use super::*;

    #[test]
    fn lost_and_never_placed_pods_go() {
        let check = |pod: Value, node_exists: bool, expect: Plan| {
            let parsed: Pod = from_value(pod.clone()).unwrap();
            assert_eq!(plan(&parsed, node_exists), expect, "{pod}");
        };
        let on = json!({"spec": {"nodeName": "n1", "containers": []}});
        check(on.clone(), true, Plan::Keep);
        check(on, false, Plan::Lost);
        check(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), true, Plan::Delete);
        check(json!({}), true, Plan::Keep);
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
