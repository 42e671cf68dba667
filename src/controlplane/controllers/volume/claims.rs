//! Binds claims and protects those in use.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{
    Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod,
};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::plan::{self, Observed, Step};
use super::{PROVISIONER, volumes};
use crate::context::{Context, Error, ignore_exists, ignore_not_found};
use crate::harness::{Harness, Outcome, Reconcile};
use client::informer::{Cache, Key};
use client::typed::is_terminal;

/// Keeps a claim until no Pod uses it.
const PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Pods by `namespace/claim`.
const BY_CLAIM: &str = "claim";

/// The names of the claims a Pod uses, those of its ephemeral volumes among them.
pub fn used_by(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let name = |volume: &k8s_openapi::api::core::v1::Volume| match &volume.persistent_volume_claim {
        Some(source) => Some(source.claim_name.clone()),
        None => volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name_any(), volume.name)),
    };
    volumes.filter_map(name).collect()
}

fn keys_of(pod: &Pod) -> Vec<Key> {
    let namespace = pod.namespace().unwrap_or_default();
    used_by(pod).into_iter().map(|name| Key::new(namespace.clone(), name)).collect()
}

pub fn start(context: &Context) {
    let claims = context.cache::<PersistentVolumeClaim>();
    let pods = context.cache::<Pod>();
    pods.index(BY_CLAIM, |pod| keys_of(pod).iter().map(ToString::to_string).collect());
    let reconciler = Reconciler {
        context: context.clone(),
        claims: claims.clone(),
        pods: pods.clone(),
        volumes: context.cache(),
        classes: context.cache(),
        nodes: context.cache(),
    };
    let mut harness = Harness::new(context);
    harness.watches(&claims, |change, queue| {
        change.new.into_iter().for_each(|claim| queue.add(Key::of(&claim.metadata)));
    });
    harness.watches(&pods, |change, queue| {
        change.latest().into_iter().for_each(|pod| keys_of(pod).into_iter().for_each(|key| queue.add(key)));
    });
    let pending = |claims: &Cache<PersistentVolumeClaim>| -> Vec<Key> {
        let bound = |claim: &PersistentVolumeClaim| {
            claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
        };
        let all = claims.list().into_iter().filter(|claim| !bound(claim));
        all.map(|claim| Key::of(&claim.metadata)).collect()
    };
    // A volume that is free may suit any claim that waits; one that is not concerns the claim it is kept for.
    let waiting = claims.clone();
    harness.watches(&reconciler.volumes, move |change, queue| {
        let own = change
            .both()
            .filter_map(|volume| plan::claim_of(volume))
            .filter_map(|reference| Some(Key::new(reference.namespace.clone()?, reference.name.clone()?)));
        own.for_each(|key| queue.add(key));
        if change.new.is_some_and(|volume| plan::claim_of(volume).is_none()) {
            pending(&waiting).into_iter().for_each(|key| queue.add(key));
        }
    });
    let waiting = claims.clone();
    harness.watches(&reconciler.classes, move |_, queue| {
        pending(&waiting).into_iter().for_each(|key| queue.add(key));
    });
    harness.reads(&reconciler.nodes);
    harness.run(2, Arc::new(reconciler));
}

struct Reconciler {
    context: Context,
    claims: Cache<PersistentVolumeClaim>,
    pods: Cache<Pod>,
    volumes: Cache<PersistentVolume>,
    classes: Cache<StorageClass>,
    nodes: Cache<Node>,
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(claim) = self.claims.get(key) else { return Ok(Outcome::Done) };
        let pods = self.pods.find(BY_CLAIM, &key.to_string());
        if self.protect(&claim, pods.iter().any(|pod| !is_terminal(pod))).await? {
            return Ok(Outcome::Done);
        }
        let (volumes, classes, nodes) = (self.volumes.list(), self.classes.list(), self.nodes.list());
        let observed =
            Observed { claim: &claim, volumes: &volumes, classes: &classes, pods: &pods, nodes: &nodes };
        match plan::decide(&observed) {
            Step::Nothing => {}
            Step::SetClass(class) => {
                self.patch(&claim, &json!({"spec": {"storageClassName": class}})).await?;
            }
            Step::Annotate(annotations) => {
                let all: serde_json::Map<String, Value> =
                    annotations.into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
                self.patch(&claim, &json!({"metadata": {"annotations": all}})).await?;
            }
            Step::Bind(name) => {
                if let Some(volume) = volumes.iter().find(|volume| volume.name_any() == name) {
                    self.bind(&claim, volume, &classes).await?;
                }
            }
            Step::Lost => {
                self.say(
                    &claim,
                    true,
                    "ClaimLost",
                    "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
                );
                self.status(&claim, &json!({"phase": "Lost"})).await?;
            }
            Step::Provision { node } => self.provision(&claim, &node, &classes).await?,
            Step::Wait { reason, message, warn } => self.say(&claim, warn, reason, &message),
        }
        Ok(Outcome::Done)
    }
}

impl Reconciler {
    fn say(&self, claim: &PersistentVolumeClaim, warn: bool, reason: &str, message: &str) {
        let about = claim.object_ref(&());
        match warn {
            true => self.context.recorder.warning(about, reason, message),
            false => self.context.recorder.normal(about, reason, message),
        }
    }

    async fn patch(&self, claim: &PersistentVolumeClaim, patch: &Value) -> Result<(), Error> {
        let api = self.context.api::<PersistentVolumeClaim>(&claim.namespace().unwrap_or_default());
        ignore_not_found(api.patch(&claim.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(())
    }

    async fn status(&self, claim: &PersistentVolumeClaim, status: &Value) -> Result<(), Error> {
        let api = self.context.api::<PersistentVolumeClaim>(&claim.namespace().unwrap_or_default());
        let patch = json!({ "status": status });
        let name = claim.name_any();
        ignore_not_found(api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await)?;
        Ok(())
    }

    /// A claim is kept while a Pod uses it. True when the claim was changed: what comes next begins with that.
    async fn protect(&self, claim: &PersistentVolumeClaim, used: bool) -> Result<bool, Error> {
        let protected = claim.finalizers().iter().any(|finalizer| finalizer == PROTECTION);
        let leaving = claim.metadata.deletion_timestamp.is_some();
        let mut finalizers = claim.finalizers().to_vec();
        match (leaving, protected) {
            (false, false) => finalizers.push(PROTECTION.to_owned()),
            (true, true) if !used => finalizers.retain(|finalizer| finalizer != PROTECTION),
            _ => return Ok(leaving),
        }
        let revision = &claim.metadata.resource_version;
        let patch = json!({"metadata": {"finalizers": finalizers, "resourceVersion": revision}});
        self.patch(claim, &patch).await?;
        Ok(true)
    }

    /// The volume says whose it is first, then the claim which it has: a crash in between is completed later.
    async fn bind(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
        classes: &[Arc<StorageClass>],
    ) -> Result<(), Error> {
        let has = plan::claim_of(volume).and_then(|reference| reference.uid.clone()).unwrap_or_default();
        if Some(&has) != claim.metadata.uid.as_ref() {
            let patch = json!({"metadata": {"resourceVersion": volume.metadata.resource_version},
                "spec": {"claimRef": reference(claim)}});
            let api = self.context.all::<PersistentVolume>();
            api.patch(&volume.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
        }
        let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref());
        if named != Some(&volume.name_any()) {
            let patch = json!({"spec": {"volumeName": volume.name_any()},
                "metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}});
            self.patch(claim, &patch).await?;
        }
        let spec = volume.spec.clone().unwrap_or_default();
        let capacity = self.grown(claim, volume, &spec, classes).await?;
        let told = claim.status.as_ref().is_some_and(|status| {
            status.phase.as_deref() == Some("Bound") && json!(status.capacity) == capacity
        });
        if told {
            return Ok(());
        }
        let status = json!({"phase": "Bound", "accessModes": spec.access_modes, "capacity": capacity});
        self.status(claim, &status).await
    }

    /// The volume's capacity; a directory of ours grows to what the claim asks for, where its class allows that.
    async fn grown(
        &self,
        claim: &PersistentVolumeClaim,
        volume: &PersistentVolume,
        spec: &PersistentVolumeSpec,
        classes: &[Arc<StorageClass>],
    ) -> Result<Value, Error> {
        // A volume of somebody else grows step by step, and whoever takes the last one says so in the claim.
        let status = claim.status.as_ref().filter(|status| status.phase.as_deref() == Some("Bound"));
        let told = status.and_then(|status| status.capacity.as_ref());
        if let Some(told) = told.filter(|_| !volumes::is_ours(volume)) {
            return Ok(json!(told));
        }
        let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
        let grows = plan::storage(requests) > plan::storage(spec.capacity.as_ref());
        let class = classes.iter().find(|class| Some(class.name_any()) == spec.storage_class_name);
        let may = class.is_some_and(|class| class.allow_volume_expansion == Some(true));
        if !(grows && may && volumes::is_ours(volume)) {
            return Ok(json!(spec.capacity));
        }
        let asked = requests.and_then(|requests| requests.get("storage"));
        let capacity = json!({ "storage": asked });
        let patch = json!({"spec": {"capacity": capacity}});
        let api = self.context.all::<PersistentVolume>();
        api.patch(&volume.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(capacity)
    }

    async fn provision(
        &self,
        claim: &PersistentVolumeClaim,
        node: &str,
        classes: &[Arc<StorageClass>],
    ) -> Result<(), Error> {
        let spec = claim.spec.clone().unwrap_or_default();
        let class = classes.iter().find(|class| Some(class.name_any()) == spec.storage_class_name);
        let policy = class.and_then(|class| class.reclaim_policy.clone());
        let name = format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or_default());
        let requests = spec.resources.and_then(|resources| resources.requests).unwrap_or_default();
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume",
            "metadata": {"name": name, "annotations": {"pv.kubernetes.io/provisioned-by": PROVISIONER}},
            "spec": {
                "capacity": {"storage": requests.get("storage")},
                "accessModes": spec.access_modes,
                "persistentVolumeReclaimPolicy": policy.unwrap_or_else(|| "Delete".to_owned()),
                "storageClassName": spec.storage_class_name,
                "volumeMode": "Filesystem",
                "claimRef": reference(claim),
                "hostPath": {"path": volumes::directory(&name), "type": "DirectoryOrCreate"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}},
            },
        });
        let volume: PersistentVolume =
            serde_json::from_value(volume).map_err(|error| Error::Other(error.to_string()))?;
        ignore_exists(self.context.all().create(&PostParams::default(), &volume).await)?;
        let text = format!("Successfully provisioned volume {name}");
        self.say(claim, false, "ProvisioningSucceeded", &text);
        Ok(())
    }
}

fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: claim.namespace(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        ..Default::default()
    }
}
