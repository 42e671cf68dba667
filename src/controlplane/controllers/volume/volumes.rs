//! Releases, recycles and protects volumes.

use std::sync::Arc;

use http::Request;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::{PROVISIONER, plan};
use crate::context::{Context, Error, ignore_not_found};
use crate::harness::{Harness, Outcome, Reconcile};
use client::informer::{Cache, Key};
use config::NodeConfig;

/// Keeps a volume while a claim is bound to it.
const PROTECTION: &str = "kubernetes.io/pv-protection";

/// Where a volume's data is on its node.
pub fn directory(volume: &str) -> String {
    format!("{}/volumes/{volume}", NodeConfig::STATE_DIR)
}

/// Whether this server made the volume.
pub fn is_ours(volume: &PersistentVolume) -> bool {
    volume.annotations().get("pv.kubernetes.io/provisioned-by").is_some_and(|by| by == PROVISIONER)
}

/// What is to become of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Available,
    Bound,
    /// Its claim is gone; it is kept as it is.
    Released,
    /// Its claim is gone, and its data goes with it.
    Delete,
}

fn fate(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Fate {
    let Some(reference) = plan::claim_of(volume) else { return Fate::Available };
    // Kept for a claim that has not been made yet.
    let Some(uid) = reference.uid.as_ref().filter(|uid| !uid.is_empty()) else { return Fate::Available };
    if claim.is_some_and(|claim| claim.metadata.uid.as_ref() == Some(uid)) {
        return Fate::Bound;
    }
    let policy = volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref());
    if policy == Some("Delete") && is_ours(volume) { Fate::Delete } else { Fate::Released }
}

pub fn start(context: &Context) {
    let volumes = context.cache::<PersistentVolume>();
    let claims = context.cache::<PersistentVolumeClaim>();
    let mut harness = Harness::new(context);
    harness.watches(&volumes, |change, queue| {
        change.new.into_iter().for_each(|volume| queue.add(volume.name_any()));
    });
    harness.watches(&claims, |change, queue| {
        let named = change.both().filter_map(|claim| claim.spec.as_ref()?.volume_name.clone());
        named.for_each(|name| queue.add(name));
    });
    harness.run(2, Arc::new(Reconciler { context: context.clone(), volumes, claims }));
}

struct Reconciler {
    context: Context,
    volumes: Cache<PersistentVolume>,
    claims: Cache<PersistentVolumeClaim>,
}

impl Reconcile for Reconciler {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Outcome, Error> {
        let Some(volume) = self.volumes.get(&Key::cluster(name)) else { return Ok(Outcome::Done) };
        let claim = plan::claim_of(&volume).and_then(|reference| {
            self.claims.named(reference.namespace.as_deref()?, reference.name.as_deref()?)
        });
        let fate = fate(&volume, claim.as_deref());
        self.protect(&volume, fate).await?;
        let leaving = volume.metadata.deletion_timestamp.is_some();
        match fate {
            Fate::Available if !leaving => self.phase(&volume, "Available").await?,
            Fate::Available => {}
            Fate::Bound => self.phase(&volume, "Bound").await?,
            Fate::Released => self.phase(&volume, "Released").await?,
            Fate::Delete => {
                self.phase(&volume, "Released").await?;
                if !leaving {
                    self.delete(&volume).await?;
                }
            }
        }
        Ok(Outcome::Done)
    }
}

impl Reconciler {
    async fn patch(&self, volume: &PersistentVolume, patch: &Value) -> Result<(), Error> {
        let api = self.context.all::<PersistentVolume>();
        ignore_not_found(api.patch(&volume.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(())
    }

    async fn phase(&self, volume: &PersistentVolume, phase: &str) -> Result<(), Error> {
        if volume.status.as_ref().and_then(|status| status.phase.as_deref()) == Some(phase) {
            return Ok(());
        }
        let patch = json!({"status": {"phase": phase}});
        let api = self.context.all::<PersistentVolume>();
        let name = volume.name_any();
        ignore_not_found(api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch)).await)?;
        Ok(())
    }

    /// A volume is kept while it is bound.
    async fn protect(&self, volume: &PersistentVolume, fate: Fate) -> Result<(), Error> {
        let protected = volume.finalizers().iter().any(|finalizer| finalizer == PROTECTION);
        let leaving = volume.metadata.deletion_timestamp.is_some();
        let mut finalizers = volume.finalizers().to_vec();
        match (leaving, protected) {
            (false, false) => finalizers.push(PROTECTION.to_owned()),
            (true, true) if fate != Fate::Bound => finalizers.retain(|finalizer| finalizer != PROTECTION),
            _ => return Ok(()),
        }
        let revision = &volume.metadata.resource_version;
        self.patch(volume, &json!({"metadata": {"finalizers": finalizers, "resourceVersion": revision}}))
            .await
    }

    /// Deletes the data on its node, then the volume. Data of a node that is gone went with it.
    async fn delete(&self, volume: &PersistentVolume) -> Result<(), Error> {
        if let Some(node) = node_of(volume) {
            let path = format!("/api/v1/nodes/{node}/proxy/localVolumes/{}", volume.name_any());
            let request = Request::delete(path).body(Vec::new()).map_err(|e| Error::Other(e.to_string()))?;
            match self.context.client.request_text(request).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => {
                    let text = error.to_string();
                    self.context.recorder.warning(volume.object_ref(&()), "VolumeFailedDelete", text);
                    return Err(error.into());
                }
            }
        }
        let api = self.context.all::<PersistentVolume>();
        ignore_not_found(api.delete(&volume.name_any(), &DeleteParams::default()).await)?;
        Ok(())
    }
}

/// The one node a volume of ours is on.
fn node_of(volume: &PersistentVolume) -> Option<String> {
    let required = volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    let mut expressions =
        required.node_selector_terms.iter().flat_map(|term| term.match_expressions.iter().flatten());
    let named = expressions.find(|expression| expression.key == "kubernetes.io/hostname")?;
    named.values.as_ref()?.first().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_follows_its_claim() {
        let check = |claim_ref: Value, policy: &str, by: &str, claim: Option<&str>, expect: Fate| {
            let volume: PersistentVolume = serde_json::from_value(json!({
                "metadata": {"name": "v", "annotations": {"pv.kubernetes.io/provisioned-by": by}},
                "spec": {"claimRef": claim_ref, "persistentVolumeReclaimPolicy": policy}}))
            .expect("a volume");
            let claim = claim.map(|uid| PersistentVolumeClaim {
                metadata: kube::core::ObjectMeta { uid: Some(uid.into()), ..Default::default() },
                ..Default::default()
            });
            assert_eq!(fate(&volume, claim.as_ref()), expect);
        };
        let bound = json!({"namespace": "n", "name": "c", "uid": "u"});
        check(Value::Null, "Delete", PROVISIONER, None, Fate::Available);
        check(json!({"namespace": "n", "name": "c"}), "Retain", "", None, Fate::Available);
        check(bound.clone(), "Delete", PROVISIONER, Some("u"), Fate::Bound);
        check(bound.clone(), "Delete", PROVISIONER, Some("other"), Fate::Delete);
        check(bound.clone(), "Delete", "somebody", None, Fate::Released);
        check(bound, "Retain", PROVISIONER, None, Fate::Released);
    }
}
