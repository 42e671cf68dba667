//! Makes the claims of generic ephemeral volumes.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Resource, ResourceExt};

use crate::context::{Context, Error, ignore_exists};
use crate::harness::{Harness, Outcome, Reconcile};
use client::informer::{Cache, Key};
use client::typed::{is_active, owner_ref};

pub fn start(context: &Context) {
    let pods = context.cache::<Pod>();
    let claims = context.cache::<PersistentVolumeClaim>();
    let mut harness = Harness::new(context);
    harness.watches(&pods, |change, queue| {
        if let Some(pod) = change.new.filter(|pod| has_ephemeral(pod) && is_active(pod)) {
            queue.add(Key::of(&pod.metadata));
        }
    });
    harness.reads(&claims);
    harness.run(1, Arc::new(Reconciler { context: context.clone(), pods, claims }));
}

fn has_ephemeral(pod: &Pod) -> bool {
    let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.any(|volume| volume.ephemeral.is_some())
}

/// The claims a Pod's ephemeral volumes stand for; they go with the Pod, which owns them.
fn claims_of(pod: &Pod) -> Vec<PersistentVolumeClaim> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claim = |volume: &k8s_openapi::api::core::v1::Volume| {
        let template = volume.ephemeral.as_ref()?.volume_claim_template.as_ref()?;
        let metadata = template.metadata.clone().unwrap_or_default();
        Some(PersistentVolumeClaim {
            metadata: ObjectMeta {
                name: Some(format!("{}-{}", pod.name_any(), volume.name)),
                namespace: pod.namespace(),
                labels: metadata.labels,
                annotations: metadata.annotations,
                owner_references: Some(vec![owner_ref(pod)]),
                ..Default::default()
            },
            spec: Some(template.spec.clone()),
            status: None,
        })
    };
    volumes.filter_map(claim).collect()
}

struct Reconciler {
    context: Context,
    pods: Cache<Pod>,
    claims: Cache<PersistentVolumeClaim>,
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(pod) = self.pods.get(key).filter(|pod| pod.metadata.deletion_timestamp.is_none()) else {
            return Ok(Outcome::Done);
        };
        for claim in claims_of(&pod) {
            if let Some(old) = self.claims.get(&Key::of(&claim.metadata)) {
                if !client::typed::is_controlled_by(&old.metadata, &pod.uid().unwrap_or_default()) {
                    let text = format!(
                        "PVC \"{}\" was not created for pod \"{}\" (pod is not owner)",
                        old.name_any(),
                        pod.name_any()
                    );
                    self.context.recorder.warning(pod.object_ref(&()), "FailedBinding", text);
                }
                continue;
            }
            let api = self.context.api::<PersistentVolumeClaim>(&key.namespace);
            ignore_exists(api.create(&PostParams::default(), &claim).await)?;
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_the_pod_s_own() {
        let pod: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u"},
            "spec": {"containers": [], "volumes": [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"accessModes": ["ReadWriteOnce"]}}}}]}}))
        .expect("a Pod");
        let claims = claims_of(&pod);
        assert_eq!(claims[0].name_any(), "p-scratch");
        assert_eq!(claims[0].labels().get("a").map(String::as_str), Some("b"));
        assert_eq!(claims[0].owner_references()[0].uid, "u");
    }
}
