//! Nodes: hears their heartbeats, says when one is silent, and keeps taints in step with conditions.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::context::{Context, Error, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use super::indexes;
use super::node_zones::{Eviction, Limiter};
use client::informer::{Cache, Key};
use client::typed::{is_ready, node_condition, node_is_ready};

const LEASES: &str = "kube-node-lease";
const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Conditions a kubelet reports, and the message for one it never reported.
const REPORTED: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Conditions that, when true, keep new Pods off.
const PRESSURE: &[(&str, &str)] = &[
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Every taint this controller sets and removes, by key and effect.
fn is_ours(taint: &Taint) -> bool {
    let by_condition = PRESSURE.iter().any(|(_, key)| *key == taint.key) || taint.key == UNSCHEDULABLE;
    let by_ready = taint.key == NOT_READY || taint.key == UNREACHABLE;
    (by_condition && taint.effect == "NoSchedule")
        || (by_ready && (taint.effect == "NoSchedule" || taint.effect == "NoExecute"))
}

/// Whether the node has a taint of ours that drives Pods out.
fn drives_out(node: &Node) -> bool {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    taints.any(|taint| is_ours(taint) && taint.effect == "NoExecute")
}

/// The taints a node should have, by its conditions; those of others stay. Its Pods are driven out only with `evict`.
fn taints(node: &Node, evict: bool, now: Timestamp) -> Vec<Taint> {
    let status = |kind: &str| node_condition(node, kind).map_or("Unknown", |condition| &condition.status);
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    match status("Ready") {
        "True" => {}
        "False" => wanted.extend([(NOT_READY, "NoSchedule"), (NOT_READY, "NoExecute")]),
        // A node that has just registered has not said anything yet: it is not ready rather than lost.
        _ if node_condition(node, "Ready").is_none() => wanted.push((NOT_READY, "NoSchedule")),
        _ => wanted.extend([(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")]),
    }
    wanted.retain(|(_, effect)| evict || *effect != "NoExecute");
    wanted.extend(
        PRESSURE.iter().filter(|(kind, _)| status(kind) == "True").map(|(_, key)| (*key, "NoSchedule")),
    );
    if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let old: Vec<Taint> = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).cloned().collect();
    let keeps =
        |taint: &Taint| !is_ours(taint) || wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut new: Vec<Taint> = old.into_iter().filter(keeps).collect();
    for (key, effect) in wanted {
        if !new.iter().any(|taint| taint.key == key && taint.effect == effect) {
            new.push(Taint {
                key: key.to_owned(),
                effect: effect.to_owned(),
                time_added: Some(Time(now)),
                value: None,
            });
        }
    }
    new
}

/// The conditions of a node that has fallen silent: nobody knows.
fn unknown(node: &Node, now: Timestamp) -> Vec<NodeCondition> {
    let mut all: Vec<NodeCondition> =
        node.status.iter().flat_map(|status| status.conditions.iter().flatten()).cloned().collect();
    for kind in REPORTED {
        match all.iter_mut().find(|condition| condition.type_ == *kind) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(Time(now));
            }
            None => all.push(NodeCondition {
                type_: (*kind).to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    all
}

/// A sign of life, as the node wrote it: only that it changes counts, for clocks differ.
#[derive(Clone, Debug, Default, PartialEq)]
struct Beat {
    renewed: Option<MicroTime>,
    reported: Option<Time>,
}

#[derive(Clone, Debug)]
struct Heard {
    beat: Beat,
    at: Timestamp,
}

struct Reconciler {
    context: Context,
    nodes: Cache<Node>,
    leases: Cache<Lease>,
    pods: Cache<Pod>,
    heard: Mutex<HashMap<String, Heard>>,
    limiter: Mutex<Limiter>,
}

pub(super) fn start(context: &Context) {
    let (nodes, pods) = (context.cache::<Node>(), indexes::pods(context));
    let leases = context.informers.selected::<Lease>(&format!("metadata.namespace={LEASES}"));
    let mut harness = Harness::new(context);
    let reconciler = Arc::new(Reconciler {
        context: context.clone(),
        nodes: nodes.clone(),
        leases: leases.clone(),
        pods: pods.clone(),
        heard: Mutex::default(),
        limiter: Mutex::default(),
    });
    let me = Arc::clone(&reconciler);
    harness.watches(&nodes, move |change, queue| {
        let Some(node) = change.latest() else { return };
        let name = node.name_any();
        let event = |reason: &str, message: String| {
            me.context.recorder.normal(node.object_ref(&()), reason, message);
        };
        match (change.old, change.new) {
            (None, Some(_)) => {
                event("RegisteredNode", format!("Node {name} event: Registered Node {name} in Controller"));
            }
            (Some(_), None) => {
                me.heard.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
                event("RemovingNode", format!("Node {name} event: Removing Node {name} from Controller"));
            }
            _ => {}
        }
        // Whether others may lose their Pods depends on how many nodes answer.
        if change.new.map(|node| node_is_ready(node)) != change.old.map(|node| node_is_ready(node)) {
            let silent = me.nodes.list().into_iter().filter(|node| !node_is_ready(node));
            silent.for_each(|node| queue.add(node.name_any()));
        }
        queue.add(name);
    });
    harness.watches(&leases, |change, queue| {
        change.new.into_iter().for_each(|lease| queue.add(lease.name_any()));
    });
    harness.reads(&pods);
    harness.run(2, reconciler);
}

impl Reconciler {
    /// How long until the node counts as silent; zero when it does.
    fn patience(&self, node: &Node) -> Duration {
        let (name, now) = (node.name_any(), self.context.now());
        let lease = self.leases.named(LEASES, &name);
        let beat = Beat {
            renewed: lease.and_then(|lease| lease.spec.as_ref()?.renew_time.clone()),
            reported: node_condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.clone()),
        };
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let last = heard.entry(name).or_insert_with(|| Heard { beat: beat.clone(), at: now });
        if last.beat != beat {
            *last = Heard { beat, at: now };
        }
        let grace =
            SignedDuration::try_from(self.context.settings.node_monitor_grace).unwrap_or(SignedDuration::MAX);
        let left = last.at.duration_since(now).saturating_add(grace);
        if left.is_positive() { left.unsigned_abs() } else { Duration::ZERO }
    }

    /// Whether the node's Pods may be driven out now, and when to ask again.
    fn may_evict(&self, node: &Node, now: Timestamp) -> (bool, Option<SignedDuration>) {
        if node_is_ready(node) || node_condition(node, "Ready").is_none() {
            return (true, None);
        }
        // The cache may not have what was just written about this node.
        let mut nodes = self.nodes.list();
        nodes.retain(|other| other.metadata.name != node.metadata.name);
        let all = nodes.iter().map(|other| &**other).chain([node]);
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        let decided = match drives_out(node) {
            // It has lost them already: only that no node answers takes it back.
            true => Limiter::default().decide(node, all, now),
            false => limiter.decide(node, all, now),
        };
        match decided {
            Eviction::Allowed => (true, None),
            Eviction::Later(left) => (drives_out(node), left),
            Eviction::Off => (false, None),
        }
    }

    async fn taint(&self, node: &Node, evict: bool, now: Timestamp) -> Result<(), Error> {
        let taints = taints(node, evict, now);
        let old = node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default();
        if taints == old {
            return Ok(());
        }
        let fell = |key: &str| taints.iter().any(|t| t.key == key) && !old.iter().any(|t| t.key == key);
        if fell(UNREACHABLE) || fell(NOT_READY) && node_condition(node, "Ready").is_some() {
            let message = format!("Node {} status is now: NodeNotReady", node.name_any());
            self.context.recorder.normal(node.object_ref(&()), "NodeNotReady", message);
        }
        let version = node.resource_version();
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
        let api = self.context.all::<Node>();
        ignore_not_found(api.patch(&node.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(())
    }

    /// Pods of a node that is not ready serve nobody: Services lead around them.
    async fn pods_not_ready(&self, node: &Node) -> Result<(), Error> {
        for pod in indexes::on_node(&self.pods, &node.name_any()) {
            if !is_ready(&pod) {
                continue;
            }
            let patch = json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [{"type": "Ready",
                "status": "False", "lastTransitionTime": Time(self.context.now())}]}});
            let api = self.context.api::<Pod>(&pod.namespace().unwrap_or_default());
            let params = PatchParams::default();
            ignore_not_found(api.patch_status(&pod.name_any(), &params, &Patch::Strategic(patch)).await)?;
            self.context.recorder.warning(pod.object_ref(&()), "NodeNotReady", "Node is not ready");
        }
        Ok(())
    }
}

impl Reconcile for Reconciler {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Outcome, Error> {
        let Some(node) = self.nodes.get(&Key::cluster(name)) else { return Ok(Outcome::Done) };
        if node.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let now = self.context.now();
        let patience = self.patience(&node);
        let mut node = Node::clone(&node);
        if patience.is_zero() {
            let conditions = unknown(&node, now);
            if node.status.as_ref().and_then(|status| status.conditions.as_ref()) != Some(&conditions) {
                node.status.get_or_insert_default().conditions = Some(conditions);
                let api = self.context.all::<Node>();
                node = api.replace_status(name, &PostParams::default(), &node).await?;
            }
        }
        let ready = node_condition(&node, "Ready").map(|ready| ready.status.clone());
        if ready.is_some_and(|status| status != "True") {
            self.pods_not_ready(&node).await?;
        }
        let (evict, later) = self.may_evict(&node, now);
        self.taint(&node, evict, now).await?;
        let patience = SignedDuration::try_from(patience).ok().filter(SignedDuration::is_positive);
        Ok(Outcome::after([patience, later].into_iter().flatten().min()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value};

    use super::*;

    fn node(conditions: Value, spec: Value) -> Node {
        from_value(json!({"metadata": {"name": "n1"}, "spec": spec, "status": {"conditions": conditions}}))
            .unwrap()
    }

    #[test]
    fn taints_follow_conditions() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let check = |node: &Node, expect: &[&str]| {
            let got: Vec<String> = taints(node, true, now)
                .iter()
                .map(|taint| format!("{}:{}", taint.key, taint.effect))
                .collect();
            assert_eq!(got, expect);
        };
        let ready = |status: &str| json!([{"type": "Ready", "status": status}]);
        let own = json!({"taints": [{"key": "mine", "effect": "NoSchedule"}, {"key": NOT_READY, "effect": "NoSchedule"}]});
        check(&node(ready("True"), own.clone()), &["mine:NoSchedule"]);
        let not_ready = [
            "mine:NoSchedule",
            "node.kubernetes.io/not-ready:NoSchedule",
            "node.kubernetes.io/not-ready:NoExecute",
        ];
        check(&node(ready("False"), own.clone()), &not_ready);
        let lost = [
            "mine:NoSchedule",
            "node.kubernetes.io/unreachable:NoSchedule",
            "node.kubernetes.io/unreachable:NoExecute",
        ];
        check(&node(ready("Unknown"), own), &lost);
        check(&node(json!([]), json!({})), &["node.kubernetes.io/not-ready:NoSchedule"]);
        let full = json!([{"type": "Ready", "status": "True"}, {"type": "DiskPressure", "status": "True"}]);
        let both =
            ["node.kubernetes.io/disk-pressure:NoSchedule", "node.kubernetes.io/unschedulable:NoSchedule"];
        check(&node(full, json!({"unschedulable": true})), &both);
    }

    #[test]
    fn a_silent_node_is_unknown() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let node = node(json!([{"type": "Ready", "status": "True"}]), json!({}));
        let conditions = unknown(&node, now);
        assert_eq!(conditions.len(), 4);
        assert!(conditions.iter().all(|condition| condition.status == "Unknown"));
        assert_eq!(conditions[0].reason.as_deref(), Some("NodeStatusUnknown"));
        let again = Node {
            status: Some(k8s_openapi::api::core::v1::NodeStatus {
                conditions: Some(conditions.clone()),
                ..Default::default()
            }),
            ..node
        };
        assert_eq!(unknown(&again, now), conditions);
    }
}
