//! Evicts Pods from nodes with `NoExecute` taints, once their tolerations end.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use kube::{Resource, ResourceExt};

use super::context::{Context, Error};
use super::harness::{Harness, Outcome, Reconcile};
use super::indexes;
use super::pod_control::{disruption_target, evict};
use client::informer::{Cache, Key};
use client::typed::{is_terminal, tolerates};

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
    let (pods, nodes) = (indexes::pods(context), context.cache::<Node>());
    let mut harness = Harness::new(context);
    let all = nodes.clone();
    harness.watches(&pods, move |change, queue| {
        let Some(pod) = change.new else { return };
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        if all.get(&Key::cluster(node)).is_some_and(|node| !no_execute(&node).is_empty()) {
            queue.add(Key::of(&pod.metadata));
        }
    });
    let on = pods.clone();
    harness.watches(&nodes, move |change, queue| {
        let Some(node) = change.new else { return };
        let before = change.old.map(|old| no_execute(old)).unwrap_or_default();
        if no_execute(node) != before {
            let there = indexes::on_node(&on, &node.name_any());
            there.iter().for_each(|pod| queue.add(Key::of(&pod.metadata)));
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
        if pod.metadata.deletion_timestamp.is_some() || is_terminal(&pod) {
            return Ok(Outcome::Done);
        }
        let name = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let Some(node) = self.nodes.get(&Key::cluster(name)) else { return Ok(Outcome::Done) };
        let context = &self.context;
        match stays(&pod, &no_execute(&node), context.now()) {
            None => Ok(Outcome::Done),
            Some(left) if left.is_positive() => Ok(Outcome::after(Some(left))),
            Some(_) => {
                let message = format!("Marking for deletion Pod {key}");
                context.recorder.normal(pod.object_ref(&()), "TaintManagerEviction", message);
                let reason = "Taint manager: deleting due to NoExecute taint";
                let target = disruption_target(&pod, "DeletionByTaintManager", reason, context.now());
                evict(context, &pod, Some(target), None).await?;
                Ok(Outcome::Done)
            }
        }
    }
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
