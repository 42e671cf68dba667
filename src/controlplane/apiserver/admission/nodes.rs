use serde_json::json;

use super::{Attributes, Context, Operation, Plugin, pod};
use crate::api::meta::ObjectExt;
use crate::api::status::ApiError;

/// A new node takes no Pods before it has proved to be ready: the node lifecycle controller removes the taint.
pub(super) struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn mutate(&self, attributes: &mut Attributes<'_>, _context: &Context<'_>) -> Result<(), ApiError> {
        if !attributes.is("", "nodes") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let Some(object) = attributes.object.as_mut() else { return Ok(()) };
        const NOT_READY: &str = "node.kubernetes.io/not-ready";
        let tainted = object
            .array_at("/spec/taints")
            .iter()
            .any(|t| t.str_at("/key") == Some(NOT_READY) && t.str_at("/effect") == Some("NoSchedule"));
        if !tainted && let Some(object) = object.as_object_mut() {
            let spec = object.entry("spec").or_insert_with(|| json!({}));
            pod::push(spec, "taints", json!({"key": NOT_READY, "effect": "NoSchedule"}));
        }
        Ok(())
    }
}

/// A kubelet changes its own node, its own lease and the Pods that run on it, and nobody else's.
pub(super) struct NodeRestriction;

/// Labels that a kubelet may set on its node, of those whose prefix belongs to Kubernetes.
const OWN_LABELS: &[&str] = &[
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "kubernetes.io/arch",
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
];

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn validate(&self, attributes: &Attributes<'_>, _context: &Context<'_>) -> Result<(), ApiError> {
        let Some(node) = attributes.user.node() else { return Ok(()) };
        let refused = match (attributes.group, attributes.resource, attributes.subresource) {
            ("", "nodes", _) => own_node(attributes, node),
            ("", "pods", "") => own_pod(attributes, node),
            ("", "pods", "status" | "eviction") => pod_here(attributes, node),
            ("coordination.k8s.io", "leases", _) => own_lease(attributes, node),
            _ => None,
        };
        match refused {
            Some(why) => Err(attributes.forbidden(&why)),
            None => Ok(()),
        }
    }
}

fn own_node(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    let name = attributes.object_name();
    if name != node {
        return Some(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    if attributes.operation == Operation::Delete {
        return Some(format!("node {node:?} is not allowed to delete node {name:?}"));
    }
    let new = attributes.object.as_ref()?;
    if attributes.operation == Operation::Update
        && let Some(old) = attributes.old
        && old.array_at("/spec/taints") != new.array_at("/spec/taints")
    {
        return Some(format!("node {node:?} is not allowed to modify taints"));
    }
    let before = |key: &str| attributes.old.and_then(|old| old.label(key));
    let mut foreign: Vec<&str> = new
        .labels()
        .filter(|(key, value)| before(key) != Some(value) && !may_label(key))
        .map(|(key, _)| key)
        .collect();
    foreign.sort_unstable();
    (!foreign.is_empty()).then(|| format!("is not allowed to modify labels: {}", foreign.join(", ")))
}

fn may_label(key: &str) -> bool {
    let Some((prefix, _)) = key.split_once('/') else { return true };
    let within = |domain: &str| prefix == domain || prefix.ends_with(&format!(".{domain}"));
    if within("node-restriction.kubernetes.io") {
        return false;
    }
    let kubernetes = within("kubernetes.io") || within("k8s.io");
    !kubernetes
        || OWN_LABELS.contains(&key)
        || within("kubelet.kubernetes.io")
        || within("node.kubernetes.io")
}

fn own_pod(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    match attributes.operation {
        Operation::Create => {
            let pod = attributes.object.as_ref()?;
            if pod.annotation(pod::MIRROR).is_none() {
                return Some(format!(
                    "pod does not have {:?} annotation, node {node:?} can only create mirror pods",
                    pod::MIRROR
                ));
            }
            let on = pod.str_at("/spec/nodeName").unwrap_or_default();
            (on != node)
                .then(|| format!("node {node:?} can only create pods with spec.nodeName set to itself"))
        }
        Operation::Delete => {
            let on = attributes.old?.str_at("/spec/nodeName").unwrap_or_default();
            (on != node)
                .then(|| format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        Operation::Update => Some(format!(
            "unexpected operation \"UPDATE\", node {node:?} can only create and delete mirror pods"
        )),
        Operation::Connect => None,
    }
}

fn pod_here(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    let on = attributes.old?.str_at("/spec/nodeName").unwrap_or_default();
    (on != node).then(|| {
        format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself")
    })
}

fn own_lease(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    if attributes.namespace != "kube-node-lease" {
        return Some("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    (attributes.object_name() != node)
        .then(|| "can only access node lease with the same name as the requesting node".to_owned())
}
