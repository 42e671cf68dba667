//! Which volume a claim gets: a pure function of what is observed.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node, NodeSelectorTerm, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;

use super::PROVISIONER;
use api::quantity::Quantity as Amount;
use client::typed::{is_active, selects};

/// Everything a decision about one claim is made from.
pub struct Observed<'a> {
    pub claim: &'a PersistentVolumeClaim,
    pub volumes: &'a [Arc<PersistentVolume>],
    pub classes: &'a [Arc<StorageClass>],
    /// Pods of the claim's namespace that use it.
    pub pods: &'a [Arc<Pod>],
    pub nodes: &'a [Arc<Node>],
}

/// By these annotations provisioners know which claims are theirs, and the node of the first Pod.
const PROVISIONED_BY: &str = "volume.kubernetes.io/storage-provisioner";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// What is to be done for a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Nothing,
    /// The claim names no class: it gets the default one.
    SetClass(String),
    /// The volume of this name is the claim's: both are to say so.
    Bind(String),
    /// The volume the claim had is gone.
    Lost,
    /// The claim says more to the program that makes its volume.
    Annotate(Vec<(&'static str, String)>),
    /// A volume is to be made on this node.
    Provision {
        node: String,
    },
    /// Nothing can be done yet: the reason and text of an Event.
    Wait {
        reason: &'static str,
        message: String,
        warn: bool,
    },
}

fn wait(reason: &'static str, message: impl Into<String>) -> Step {
    Step::Wait { reason, message: message.into(), warn: false }
}

fn refuse(reason: &'static str, message: impl Into<String>) -> Step {
    Step::Wait { reason, message: message.into(), warn: true }
}

/// The next step for a claim.
pub fn decide(observed: &Observed<'_>) -> Step {
    let Observed { claim, volumes, classes, .. } = *observed;
    let Some(spec) = claim.spec.as_ref().filter(|_| claim.metadata.deletion_timestamp.is_none()) else {
        return Step::Nothing;
    };
    if let Some(name) = spec.volume_name.as_deref().filter(|name| !name.is_empty()) {
        return named(claim, volumes, name);
    }
    // A volume may have been made for just this claim.
    if let Some(volume) = volumes.iter().find(|volume| is_for(volume, claim)) {
        return Step::Bind(volume.name_any());
    }
    let class_name = match (spec.storage_class_name.as_deref(), default_class(classes)) {
        (Some(name), _) => name,
        (None, Some(default)) => return Step::SetClass(default.name_any()),
        (None, None) => "",
    };
    let class = classes.iter().find(|class| class.name_any() == class_name);
    let waits =
        class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let node = chosen_node(observed);
    if waits && node.is_none() {
        return wait("WaitForFirstConsumer", "waiting for first consumer to be created before binding");
    }
    if let Some(volume) = best(observed, class_name, node.as_deref()) {
        return Step::Bind(volume.name_any());
    }
    let Some(class) = class else {
        return match class_name {
            "" => wait(
                "FailedBinding",
                "no persistent volumes available for this claim and no storage class is set",
            ),
            name => refuse("ProvisioningFailed", format!("storageclass.storage.k8s.io \"{name}\" not found")),
        };
    };
    match class.provisioner.as_str() {
        PROVISIONER => provision(observed, node),
        "kubernetes.io/no-provisioner" => {
            wait("FailedBinding", "no persistent volumes available for this claim")
        }
        other => external(claim, other, node.filter(|_| waits)),
    }
}

/// Another program makes the volume: it is told so, and for which node, by the claim's annotations.
fn external(claim: &PersistentVolumeClaim, provisioner: &str, node: Option<String>) -> Step {
    let wanted = [(PROVISIONED_BY, Some(provisioner.to_owned())), (SELECTED_NODE, node)];
    let missing = |(key, value): (&'static str, Option<String>)| {
        let value = value.filter(|value| claim.annotations().get(key) != Some(value))?;
        Some((key, value))
    };
    let missing: Vec<_> = wanted.into_iter().filter_map(missing).collect();
    if !missing.is_empty() {
        return Step::Annotate(missing);
    }
    wait(
        "ExternalProvisioning",
        format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        ),
    )
}

fn provision(observed: &Observed<'_>, node: Option<String>) -> Step {
    if observed.claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()) == Some("Block") {
        return refuse("ProvisioningFailed", "this provisioner makes directories, not block devices");
    }
    // Without a consumer any node will do.
    let any = || {
        let mut ready: Vec<String> = observed
            .nodes
            .iter()
            .filter(|node| client::typed::node_is_ready(node))
            .map(|node| node.name_any())
            .collect();
        ready.sort();
        ready.into_iter().next()
    };
    match node.or_else(any) {
        Some(node) => Step::Provision { node },
        None => wait("FailedBinding", "no node is ready to hold the volume"),
    }
}

/// A claim that names its volume already.
fn named(claim: &PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>], name: &str) -> Step {
    let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    match volumes.iter().find(|volume| volume.name_any() == name) {
        None if bound => Step::Lost,
        None => Step::Nothing,
        Some(volume) if claim_of(volume).is_none() || is_for(volume, claim) => Step::Bind(name.to_owned()),
        Some(_) => refuse("FailedBinding", format!("volume \"{name}\" already bound to a different claim.")),
    }
}

/// Which claim a volume is bound to, or kept for.
pub fn claim_of(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// Whether a volume is kept for this very claim.
pub fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_of(volume).is_some_and(|reference| {
        reference.namespace == claim.metadata.namespace
            && reference.name == claim.metadata.name
            && reference
                .uid
                .as_ref()
                .is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_ref())
    })
}

/// The class of claims that name none: of several the newest, as upstream has it.
fn default_class(classes: &[Arc<StorageClass>]) -> Option<&Arc<StorageClass>> {
    const MARK: &str = "storageclass.kubernetes.io/is-default-class";
    let defaults = classes.iter().filter(|class| class.annotations().get(MARK).is_some_and(|v| v == "true"));
    defaults
        .max_by_key(|class| (class.metadata.creation_timestamp.clone(), std::cmp::Reverse(class.name_any())))
}

/// Where a volume would be used: the node of a Pod that uses the claim, or the one the scheduler has written down.
fn chosen_node(observed: &Observed<'_>) -> Option<String> {
    let active = observed.pods.iter().filter(|pod| is_active(pod));
    let placed = active.filter_map(|pod| pod.spec.as_ref()?.node_name.clone()).next();
    placed.or_else(|| observed.claim.annotations().get(SELECTED_NODE).cloned())
}

/// The smallest free volume that has all that is asked for.
fn best<'a>(observed: &Observed<'a>, class: &str, node: Option<&str>) -> Option<&'a Arc<PersistentVolume>> {
    let spec = observed.claim.spec.as_ref()?;
    let asked = storage(spec.resources.as_ref().and_then(|resources| resources.requests.as_ref()))?;
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    let labels = node.map(|name| {
        let found = observed.nodes.iter().find(|node| node.name_any() == name);
        found.map(|node| node.labels().clone()).unwrap_or_default()
    });
    let fits = |volume: &&Arc<PersistentVolume>| {
        let Some(has) = volume.spec.as_ref() else { return false };
        let modes = has.access_modes.as_deref().unwrap_or_default();
        let free = has.claim_ref.is_none() && volume.metadata.deletion_timestamp.is_none();
        let selector = spec.selector.as_ref();
        free && has.storage_class_name.as_deref().unwrap_or_default() == class
            && mode(&has.volume_mode) == mode(&spec.volume_mode)
            && spec.access_modes.iter().flatten().all(|wanted| modes.contains(wanted))
            && storage(has.capacity.as_ref()).is_some_and(|size| size >= asked)
            && selector.is_none_or(|selector| selects(selector, volume.metadata.labels.as_ref()))
            && labels.as_ref().is_none_or(|labels| reaches(volume, labels))
    };
    let size = |volume: &&Arc<PersistentVolume>| {
        let capacity = volume.spec.as_ref().and_then(|spec| storage(spec.capacity.as_ref()));
        (capacity.unwrap_or_default(), volume.name_any())
    };
    observed.volumes.iter().filter(fits).min_by_key(size)
}

/// Bytes of storage among resources.
pub fn storage(resources: Option<&BTreeMap<String, Quantity>>) -> Option<i64> {
    Amount::parse(&resources?.get("storage")?.0).ok().map(|amount| amount.value())
}

/// Whether a volume can be used on a node with these labels.
pub fn reaches(volume: &PersistentVolume, labels: &BTreeMap<String, String>) -> bool {
    let required = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    let Some(required) = required else { return true };
    required.node_selector_terms.iter().any(|term| term_holds(term, labels))
}

fn term_holds(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>) -> bool {
    term.match_expressions.iter().flatten().all(|expression| {
        let value = labels.get(&expression.key);
        let listed = |value: &String| expression.values.iter().flatten().any(|one| one == value);
        match expression.operator.as_str() {
            "In" => value.is_some_and(listed),
            "NotIn" => !value.is_some_and(listed),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).expect("an object")
    }

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let mut claim = json!({"metadata": {"name": "data", "namespace": "shop", "uid": "u"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
        json_patch::merge(&mut claim["spec"], &spec);
        object(claim)
    }

    fn volume(name: &str, size: &str, spec: Value) -> Arc<PersistentVolume> {
        let mut volume = json!({"metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}}});
        json_patch::merge(&mut volume["spec"], &spec);
        Arc::new(object(volume))
    }

    fn class(name: &str, mode: &str, default: bool) -> Arc<StorageClass> {
        Arc::new(object(json!({"metadata": {"name": name,
                "annotations": {"storageclass.kubernetes.io/is-default-class": default.to_string()}},
            "provisioner": PROVISIONER, "volumeBindingMode": mode})))
    }

    fn check(claim: &PersistentVolumeClaim, volumes: &[Arc<PersistentVolume>], pods: Value, expect: &Step) {
        let pods: Vec<Pod> = object(pods);
        let pods: Vec<_> = pods.into_iter().map(Arc::new).collect();
        let classes = [class("standard", "WaitForFirstConsumer", true), class("now", "Immediate", false)];
        let node: Node =
            object(json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        let nodes = [Arc::new(node)];
        let observed = Observed { claim, volumes, classes: &classes, pods: &pods, nodes: &nodes };
        assert_eq!(&decide(&observed), expect);
    }

    #[test]
    fn claims_wait_for_their_first_pod_and_get_a_directory_there() {
        let standard = claim(json!({"storageClassName": "standard"}));
        let waiting = wait("WaitForFirstConsumer", "waiting for first consumer to be created before binding");
        check(&claim(json!({})), &[], json!([]), &Step::SetClass("standard".into()));
        check(&standard, &[], json!([]), &waiting);
        check(&standard, &[], json!([{"spec": {"containers": []}}]), &waiting);
        let placed = json!([{"spec": {"containers": [], "nodeName": "n1"}}]);
        check(&standard, &[], placed.clone(), &Step::Provision { node: "n1".into() });
        check(
            &claim(json!({"storageClassName": "now"})),
            &[],
            json!([]),
            &Step::Provision { node: "n1".into() },
        );
        let block = claim(json!({"storageClassName": "standard", "volumeMode": "Block"}));
        let no = refuse("ProvisioningFailed", "this provisioner makes directories, not block devices");
        check(&block, &[], placed, &no);
    }

    #[test]
    fn the_smallest_volume_that_fits_is_taken() {
        let own = claim(json!({"storageClassName": ""}));
        let bind = |name: &str| Step::Bind(name.to_owned());
        let none = wait(
            "FailedBinding",
            "no persistent volumes available for this claim and no storage class is set",
        );
        let (big, small) = (volume("big", "5Gi", json!({})), volume("small", "2Gi", json!({})));
        check(&own, &[big.clone(), small], json!([]), &bind("small"));
        check(&own, &[volume("tiny", "1Mi", json!({}))], json!([]), &none);
        check(&own, &[volume("classy", "2Gi", json!({"storageClassName": "x"}))], json!([]), &none);
        check(&own, &[volume("read", "2Gi", json!({"accessModes": ["ReadOnlyMany"]}))], json!([]), &none);
        let taken = json!({"claimRef": {"namespace": "shop", "name": "other", "uid": "o"}});
        check(&own, &[volume("taken", "2Gi", taken)], json!([]), &none);
        let kept = json!({"claimRef": {"namespace": "shop", "name": "data"}});
        check(&own, &[big, volume("kept", "9Gi", kept)], json!([]), &bind("kept"));
        let elsewhere = json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions":
            [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}]}]}}});
        let placed = json!([{"spec": {"containers": [], "nodeName": "n1"}}]);
        check(&own, &[volume("far", "2Gi", elsewhere)], placed, &none);
    }

    #[test]
    fn a_named_volume_is_bound_lost_or_somebody_else_s() {
        let mut own = claim(json!({"volumeName": "v"}));
        check(&own, &[], json!([]), &Step::Nothing);
        check(&own, &[volume("v", "1Gi", json!({}))], json!([]), &Step::Bind("v".into()));
        let taken = json!({"claimRef": {"namespace": "shop", "name": "data", "uid": "older"}});
        let no = refuse("FailedBinding", "volume \"v\" already bound to a different claim.");
        check(&own, &[volume("v", "1Gi", taken)], json!([]), &no);
        own.status = object(json!({"phase": "Bound"}));
        check(&own, &[], json!([]), &Step::Lost);
    }
}
