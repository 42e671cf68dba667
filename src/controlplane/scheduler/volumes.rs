//! What a Pod's claims say about where it may run.

use k8s_openapi::api::core::v1::{NodeSelector, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::ResourceExt;

use crate::client::informer::{Cache, Informers, Key};

/// The caches of claims, volumes and classes.
pub(super) struct Storage {
    pub claims: Cache<PersistentVolumeClaim>,
    pub volumes: Cache<PersistentVolume>,
    pub classes: Cache<StorageClass>,
}

/// What one Pod's claims ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PodVolumes {
    /// Why the Pod can run nowhere yet.
    pub problem: Option<String>,
    /// Where its volumes can be reached: a node must be meant by each.
    pub reach: Vec<NodeSelector>,
    /// Claims that no second Pod may use.
    pub exclusive: Vec<Key>,
}

/// Returns the names of the claims a Pod uses, and whether each is made for the Pod itself.
pub(super) fn claims(pod: &Pod) -> Vec<(String, bool)> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let one = |volume: &k8s_openapi::api::core::v1::Volume| match &volume.persistent_volume_claim {
        Some(source) => Some((source.claim_name.clone(), false)),
        None => volume.ephemeral.as_ref().map(|_| (format!("{}-{}", pod.name_any(), volume.name), true)),
    };
    volumes.filter_map(one).collect()
}

impl Storage {
    pub(super) fn new(informers: &Informers) -> Self {
        Self { claims: informers.cache(), volumes: informers.cache(), classes: informers.cache() }
    }

    pub(super) async fn synced(&self) {
        self.claims.synced().await;
        self.volumes.synced().await;
        self.classes.synced().await;
    }

    /// Returns what a Pod's claims ask for.
    pub(super) fn of(&self, pod: &Pod) -> PodVolumes {
        let mut found = PodVolumes::default();
        for (name, own) in claims(pod) {
            let key = Key::new(pod.namespace().unwrap_or_default(), &name);
            if let Err(problem) = self.look(&key, own, &mut found) {
                found.problem = Some(problem);
                return found;
            }
        }
        found
    }

    fn look(&self, key: &Key, own: bool, found: &mut PodVolumes) -> Result<(), String> {
        let name = &key.name;
        let Some(claim) = self.claims.get(key) else {
            return Err(match own {
                true => {
                    format!(
                        "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
                    )
                }
                false => format!("persistentvolumeclaim {name:?} not found"),
            });
        };
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
        }
        let Some(spec) = &claim.spec else { return Ok(()) };
        if spec.access_modes.iter().flatten().any(|mode| mode == "ReadWriteOncePod") {
            found.exclusive.push(key.clone());
        }
        match spec.volume_name.as_deref().filter(|volume| !volume.is_empty()) {
            Some(volume) => {
                let there = self.volumes.get(&Key::cluster(volume)).ok_or_else(|| {
                    format!(
                        "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
                    )
                })?;
                let affinity = there.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
                found.reach.extend(affinity.and_then(|affinity| affinity.required.clone()));
                Ok(())
            }
            None if self.waits_for_pod(&claim) => Ok(()),
            None => Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
        }
    }

    /// Whether the claim is bound only once its first Pod has a node.
    fn waits_for_pod(&self, claim: &PersistentVolumeClaim) -> bool {
        let class =
            claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
        let class = self.classes.get(&Key::cluster(class));
        class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn claims_say_where_and_whether() {
        let storage =
            Storage { claims: Cache::default(), volumes: Cache::default(), classes: Cache::default() };
        let claim = |name: &str, spec: Value| {
            let claim = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": spec});
            storage.claims.apply(from_value(claim).unwrap());
        };
        claim("bound", json!({"volumeName": "v", "accessModes": ["ReadWriteOncePod"]}));
        claim("lost", json!({"volumeName": "gone"}));
        claim("late", json!({"storageClassName": "late"}));
        claim("now", json!({"storageClassName": "now"}));
        for (name, mode) in [("late", "WaitForFirstConsumer"), ("now", "Immediate")] {
            let class = json!({"metadata": {"name": name}, "provisioner": "p", "volumeBindingMode": mode});
            storage.classes.apply(from_value(class).unwrap());
        }
        let volume = json!({"metadata": {"name": "v"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": []}}}});
        storage.volumes.apply(from_value(volume).unwrap());
        let check = |volume: Value, problem: Option<&str>, reach: usize, exclusive: usize| {
            let mut volume = volume;
            volume["name"] = json!("x");
            let pod = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": [], "volumes": [volume]}});
            let found = storage.of(&from_value(pod).unwrap());
            assert_eq!(found.problem.as_deref(), problem, "{volume}");
            assert_eq!((found.reach.len(), found.exclusive.len()), (reach, exclusive), "{volume}");
        };
        let of = |name: &str| json!({"persistentVolumeClaim": {"claimName": name}});
        check(json!({"emptyDir": {}}), None, 0, 0);
        check(of("bound"), None, 1, 1);
        check(of("late"), None, 0, 0);
        check(of("now"), Some("pod has unbound immediate PersistentVolumeClaims"), 0, 0);
        check(of("none"), Some("persistentvolumeclaim \"none\" not found"), 0, 0);
        let lost = "persistentvolumeclaim \"lost\" bound to non-existent persistentvolume \"gone\"";
        check(of("lost"), Some(lost), 0, 0);
        let own = "waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-x\"";
        check(json!({"ephemeral": {}}), Some(own), 0, 0);
    }
}
