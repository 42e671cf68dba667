//! Admission of Nodes, and of what nodes write.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Attributes, Context, Operation, Plugin, pod};
use crate::index::{Used, uses_anything};
use api::meta::ObjectExt;
use api::status::ApiError;

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
            ("", "pods", "status") => status_of_pod(attributes, node),
            ("", "pods", "eviction") => pod_here(attributes, node).map(|()| EVICT_HERE.replace("{}", node)),
            ("", "persistentvolumeclaims", "status") => claim_status(attributes),
            ("coordination.k8s.io", "leases", _) => own_lease(attributes, node),
            ("storage.k8s.io", "csinodes", "") => own_csi_node(attributes, node),
            ("resource.k8s.io", "resourceslices", "") => own_slice(attributes, node),
            ("certificates.k8s.io", "certificatesigningrequests", "") => own_certificate(attributes, node),
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
    let owners = |object: &Value| object.array_at("/metadata/ownerReferences").to_vec();
    if owners(new) != attributes.old.map(owners).unwrap_or_default() {
        return Some(format!("node {node:?} is not allowed to modify ownerReferences"));
    }
    let foreign: Vec<&str> =
        changed_labels(attributes.old, new).into_iter().filter(|key| !may_label(key)).collect();
    (!foreign.is_empty()).then(|| format!("is not allowed to modify labels: {}", foreign.join(", ")))
}

/// Labels that were set, changed or removed, in order.
fn changed_labels<'a>(old: Option<&'a Value>, new: &'a Value) -> Vec<&'a str> {
    let before: BTreeMap<&str, &str> = old.into_iter().flat_map(Value::labels).collect();
    let now: BTreeMap<&str, &str> = new.labels().collect();
    let keys: BTreeSet<&str> = before.keys().chain(now.keys()).copied().collect();
    keys.into_iter().filter(|key| before.get(key) != now.get(key)).collect()
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
            if pod.str_at("/spec/nodeName") != Some(node) {
                return Some(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
            }
            not_owned_by(pod, node).or_else(|| {
                let used = uses_anything(pod)?;
                let what = match used {
                    Used::ServiceAccount => "a service account",
                    Used::Secret => "secrets",
                    Used::ConfigMap => "configmaps",
                    Used::Claim => "persistentvolumeclaims",
                    Used::ResourceClaim => "resourceclaims",
                };
                Some(format!("node {node:?} can not create pods that reference {what}"))
            })
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

/// A mirror Pod belongs to its node.
fn not_owned_by(pod: &Value, node: &str) -> Option<String> {
    let wrong = |what: &str| Some(format!("node {node:?} can only create pods with {what}"));
    match pod.array_at("/metadata/ownerReferences") {
        [] => wrong("an owner reference set to itself"),
        [owner] => {
            let itself = owner.text("apiVersion") == Some("v1")
                && owner.text("kind") == Some("Node")
                && owner.text("name") == Some(node);
            if !itself {
                return wrong("an owner reference set to itself");
            }
            if owner.bool_at("/controller") != Some(true) {
                return wrong("a controller reference set to itself");
            }
            match owner.bool_at("/blockOwnerDeletion") {
                Some(true) => {
                    Some(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"))
                }
                _ => None,
            }
        }
        _ => wrong("a single owner reference set to itself"),
    }
}

const EVICT_HERE: &str = "node \"{}\" can only evict pods with spec.nodeName set to itself";

/// `Some` if the Pod is on another node.
fn pod_here(attributes: &Attributes<'_>, node: &str) -> Option<()> {
    let on = attributes.old?.str_at("/spec/nodeName").unwrap_or_default();
    (on != node).then_some(())
}

fn status_of_pod(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    if pod_here(attributes, node).is_some() {
        return Some(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let (old, new) = (attributes.old?, attributes.object.as_ref()?);
    if !changed_labels(Some(old), new).is_empty() {
        return Some(format!("node {node:?} cannot update labels through pod status"));
    }
    const CLAIMS: &str = "/status/resourceClaimStatuses";
    (old.array_at(CLAIMS) != new.array_at(CLAIMS))
        .then(|| format!("node {node:?} cannot update resource claim statuses"))
}

/// Of a claim a node says how far a resize has come, and nothing else.
fn claim_status(attributes: &Attributes<'_>) -> Option<String> {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(status) = object.get_mut("status").and_then(Value::as_object_mut) {
            for field in ["capacity", "conditions", "allocatedResources", "allocatedResourceStatuses"] {
                status.remove(field);
            }
        }
        if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            meta.remove("managedFields");
        }
        let empty =
            object.get("status").is_some_and(|status| status.as_object().is_some_and(|map| map.is_empty()));
        if empty && let Some(map) = object.as_object_mut() {
            map.remove("status");
        }
        object
    };
    (rest(attributes.old?) != rest(attributes.object.as_ref()?)).then(|| {
        "is not allowed to update fields other than status.quantity and status.conditions".to_owned()
    })
}

fn own_csi_node(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    (attributes.object_name() != node)
        .then(|| "can only access CSINode with the same name as the requesting node".to_owned())
}

fn own_slice(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    let slice = attributes.old.or(attributes.object.as_ref())?;
    let on = slice.str_at("/spec/nodeName").unwrap_or_default();
    let verb = match attributes.operation {
        Operation::Create => "create",
        Operation::Delete => "delete",
        Operation::Update | Operation::Connect => "update",
    };
    (on != node)
        .then(|| format!("can only {verb} ResourceSlices with the same NodeName as the requesting node"))
}

/// A node asks for certificates of its own name alone.
fn own_certificate(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    const OF_NODES: [&str; 2] =
        ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
    let request = attributes.object.as_ref().filter(|_| attributes.operation == Operation::Create)?;
    if !OF_NODES.contains(&request.str_at("/spec/signerName").unwrap_or_default()) {
        return None;
    }
    let pem = super::decode_base64(request.str_at("/spec/request").unwrap_or_default());
    let csr = pem.and_then(|bytes| String::from_utf8(bytes).ok()).and_then(|pem| pki::Csr::parse(&pem).ok());
    let name = csr.map(|csr| csr.common_name).unwrap_or_default();
    (name != format!("system:node:{node}"))
        .then(|| format!("can only create a node CSR with CN=system:node:{node}, requested CN={name}"))
}

fn own_lease(attributes: &Attributes<'_>, node: &str) -> Option<String> {
    if attributes.namespace != "kube-node-lease" {
        return Some("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    (attributes.object_name() != node)
        .then(|| "can only access node lease with the same name as the requesting node".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{Notes, Warnings};
    use super::*;
    use crate::user::UserInfo;
    use api::resources::builtin;

    fn check(resource: &str, old: Option<Value>, new: Value, expect: Option<&str>) {
        let user = UserInfo::new("system:node:n1", &[UserInfo::NODES]);
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let rows = builtin();
        let row = rows.iter().find(|row| row.group.is_empty() && row.plural == resource).unwrap();
        let attributes = Attributes {
            user: &user,
            row,
            warnings: Warnings::default(),
            notes: &Notes::default(),
            operation: if old.is_some() { Operation::Update } else { Operation::Create },
            group: "",
            resource,
            kind: "",
            subresource,
            namespace: "default",
            name: new.name(),
            object: Some(new.clone()),
            old: old.as_ref(),
            dry_run: false,
        };
        let refused = match (resource, subresource) {
            ("nodes", _) => own_node(&attributes, "n1"),
            ("pods", "") => own_pod(&attributes, "n1"),
            ("pods", "status") => status_of_pod(&attributes, "n1"),
            _ => claim_status(&attributes),
        };
        assert_eq!(refused.as_deref(), expect, "{resource}/{subresource} {old:?} {new}");
    }

    #[test]
    fn a_node_says_of_itself_what_a_node_may() {
        let node = |labels: Value, rest: Value| {
            let mut node = json!({"metadata": {"name": "n1", "labels": labels}});
            node["spec"] = rest;
            node
        };
        let plain = node(json!({"a": "1", "node-role.kubernetes.io/x": ""}), json!({}));
        let mut other = plain.clone();
        other["metadata"]["labels"]["a"] = "2".into();
        check("nodes", Some(plain.clone()), other.clone(), None);
        check("nodes/status", Some(plain.clone()), other, None);
        let without = node(json!({"a": "1"}), json!({}));
        let labels = "is not allowed to modify labels: node-role.kubernetes.io/x";
        check("nodes", Some(plain.clone()), without.clone(), Some(labels));
        check("nodes/status", Some(without), plain.clone(), Some(labels));
        let tainted =
            node(json!({"a": "1", "node-role.kubernetes.io/x": ""}), json!({"taints": [{"key": "k"}]}));
        check(
            "nodes/status",
            Some(plain.clone()),
            tainted,
            Some("node \"n1\" is not allowed to modify taints"),
        );
        let mut owned = plain.clone();
        owned["metadata"]["ownerReferences"] = json!([{"name": "x"}]);
        check(
            "nodes/status",
            Some(plain),
            owned,
            Some("node \"n1\" is not allowed to modify ownerReferences"),
        );
    }

    #[test]
    fn a_node_makes_mirrors_of_its_own_that_use_nothing() {
        let mirror = |owner: Value, spec: Value| {
            let mut pod = json!({"metadata": {"name": "p", "annotations": {pod::MIRROR: "x"}, "ownerReferences": owner}});
            pod["spec"] = spec;
            pod
        };
        let own = json!([{"apiVersion": "v1", "kind": "Node", "name": "n1", "controller": true}]);
        let here = json!({"nodeName": "n1", "containers": []});
        check("pods", None, mirror(own.clone(), here.clone()), None);
        let expect = "node \"n1\" can only create pods with an owner reference set to itself";
        check("pods", None, mirror(json!([]), here.clone()), Some(expect));
        check("pods", None, mirror(json!([{"kind": "Node", "name": "n2"}]), here), Some(expect));
        let uses = json!({"nodeName": "n1", "containers": [{"envFrom": [{"secretRef": {"name": "s"}}]}]});
        let expect = "node \"n1\" can not create pods that reference secrets";
        check("pods", None, mirror(own, uses), Some(expect));
    }

    #[test]
    fn a_node_reports_of_its_pods_and_claims_and_no_more() {
        let pod = json!({"metadata": {"name": "p", "labels": {"app": "a"}}, "spec": {"nodeName": "n1"}});
        let mut other = pod.clone();
        other["status"] = json!({"phase": "Running"});
        check("pods/status", Some(pod.clone()), other.clone(), None);
        other["metadata"]["labels"]["app"] = "b".into();
        check("pods/status", Some(pod), other, Some("node \"n1\" cannot update labels through pod status"));
        let claim = json!({"metadata": {"name": "c"}, "spec": {}});
        let mut resized = claim.clone();
        resized["status"] = json!({"capacity": {"storage": "2Gi"}});
        check("persistentvolumeclaims/status", Some(claim.clone()), resized.clone(), None);
        resized["metadata"]["finalizers"] = json!(["x"]);
        let expect = "is not allowed to update fields other than status.quantity and status.conditions";
        check("persistentvolumeclaims/status", Some(claim), resized, Some(expect));
    }
}
