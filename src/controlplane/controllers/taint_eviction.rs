//! Evicts Pods from nodes with `NoExecute` taints, once their tolerations end.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::api::{DeleteParams, Preconditions};
use kube::{Resource, ResourceExt};

use super::context::{Context, Error, ignore_not_found};
use super::views;
use crate::client::informer::{Cache, Key};
use crate::client::queue::Queue;
use crate::client::typed::{is_terminal, tolerates};

fn no_execute(node: &Node) -> Vec<&Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.filter(|taint| taint.effect == "NoExecute").collect()
}

/// How long the Pod may stay: zero when it must go, `None` when nothing drives it out.
fn stays(pod: &Pod, taints: &[&Taint], now: Timestamp) -> Option<SignedDuration> {
    let tolerations = pod.spec.as_ref().and_then(|spec| spec.tolerations.as_ref());
    let one = |taint: &&Taint| {
        let fitting = tolerations.into_iter().flatten().filter(|toleration| tolerates(toleration, taint));
        // Of several tolerations the shortest counts; one without a time lasts for ever.
        let seconds: Vec<Option<i64>> = fitting.map(|toleration| toleration.toleration_seconds).collect();
        if seconds.is_empty() {
            return Some(SignedDuration::ZERO);
        }
        let shortest = seconds.into_iter().flatten().min()?;
        let since = taint.time_added.as_ref().map_or(now, |at| at.0);
        let left = since.duration_since(now) + SignedDuration::from_secs(shortest.max(0));
        Some(left.max(SignedDuration::ZERO))
    };
    taints.iter().filter_map(one).min()
}

pub(super) fn start(context: &Context) {
    let queue = Queue::<Key>::default();
    let (pods, nodes) = (views::pods(context), context.cache::<Node>());
    let placed = queue.clone();
    let all = nodes.clone();
    pods.on_change(move |change| {
        let Some(pod) = change.new else { return };
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        if all.get(&Key::cluster(node)).is_some_and(|node| !no_execute(&node).is_empty()) {
            placed.add(Key::of(&pod.metadata));
        }
    });
    let (tainted, on) = (queue.clone(), pods.clone());
    nodes.on_change(move |change| {
        let Some(node) = change.new else { return };
        let before = change.old.map(|old| no_execute(old)).unwrap_or_default();
        if no_execute(node) != before {
            let there = views::on_node(&on, &node.name_any());
            there.iter().for_each(|pod| tainted.add(Key::of(&pod.metadata)));
        }
    });
    let ready = {
        let (pods, nodes) = (pods.clone(), nodes.clone());
        async move {
            pods.synced().await;
            nodes.synced().await;
        }
    };
    let shared = Arc::new((context.clone(), queue.clone(), pods, nodes));
    context.work(&queue, 2, ready, move |key| {
        let shared = Arc::clone(&shared);
        async move {
            let (context, queue, pods, nodes) = &*shared;
            reconcile(context, queue, pods, nodes, &key).await
        }
    });
}

async fn reconcile(
    context: &Context,
    queue: &Queue<Key>,
    pods: &Cache<Pod>,
    nodes: &Cache<Node>,
    key: &Key,
) -> Result<(), Error> {
    let Some(pod) = pods.get(key) else { return Ok(()) };
    if pod.metadata.deletion_timestamp.is_some() || is_terminal(&pod) {
        return Ok(());
    }
    let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
    let Some(node) = nodes.get(&Key::cluster(name)) else { return Ok(()) };
    match stays(&pod, &no_execute(&node), context.now()) {
        None => {}
        Some(left) if left.is_positive() => queue.add_after(key.clone(), left.unsigned_abs()),
        Some(_) => {
            let message = format!("Marking for deletion Pod {key}");
            context.recorder.normal(pod.object_ref(&()), "TaintManagerEviction", message);
            let params = DeleteParams {
                preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
                ..DeleteParams::default()
            };
            ignore_not_found(context.api::<Pod>(&key.namespace).delete(&key.name, &params).await)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn pods_stay_as_long_as_they_tolerate() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let check = |tolerations: Value, expect: Option<i64>| {
            let pod: Pod =
                from_value(json!({"spec": {"containers": [], "tolerations": tolerations}})).unwrap();
            let taint: Taint =
                from_value(json!({"key": "k", "effect": "NoExecute", "timeAdded": "2026-01-01T00:00:00Z"}))
                    .unwrap();
            assert_eq!(stays(&pod, &[&taint], now).map(|left| left.as_secs()), expect, "{tolerations}");
        };
        let forever = json!({"key": "k", "operator": "Exists"});
        let for_seconds = |n: i64| json!({"key": "k", "operator": "Exists", "tolerationSeconds": n});
        check(json!([]), Some(0));
        check(json!([forever]), None);
        check(json!([for_seconds(300)]), Some(240));
        check(json!([for_seconds(300), for_seconds(90)]), Some(30));
        check(json!([for_seconds(30)]), Some(0));
        assert_eq!(stays(&Pod::default(), &[], now), None);
    }
}
