//! What a Pod's claims say about where it may run.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{NodeSelector, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use kube::ResourceExt;

use super::snapshot::Snapshot;
use client::informer::{Cache, Informers, Key};

/// The caches of claims, volumes and classes.
pub(super) struct Storage {
    pub claims: Cache<PersistentVolumeClaim>,
    pub volumes: Cache<PersistentVolume>,
    pub classes: Cache<StorageClass>,
    pub drivers: Cache<CSINode>,
}

/// Labels by which a volume says in which part of the world it is; several values are joined by `__`.
const ZONES: [&str; 4] = [
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

/// A storage driver's volume: the driver, and what it calls the volume.
pub(super) type Attached = (String, String);

/// What one Pod's claims ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct PodVolumes {
    /// Why the Pod can run nowhere yet.
    pub problem: Option<String>,
    /// Where its volumes can be reached: a node must be meant by each.
    pub reach: Vec<NodeSelector>,
    /// Claims that no second Pod may use.
    pub exclusive: Vec<Key>,
    /// Labels of its volumes that a node must share, where it has such labels: name and values.
    pub zones: Vec<(&'static str, Vec<String>)>,
    /// What is attached to the node that it runs on.
    pub attached: BTreeSet<Attached>,
    /// Nodes whose drivers take no more volumes than they have, were this Pod there.
    pub crowded: BTreeSet<String>,
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
        let (claims, volumes, classes) = (informers.cache(), informers.cache(), informers.cache());
        Self { claims, volumes, classes, drivers: informers.cache() }
    }

    pub(super) async fn synced(&self) {
        self.claims.synced().await;
        self.volumes.synced().await;
        self.classes.synced().await;
        self.drivers.synced().await;
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
                let there_spec = there.spec.as_ref();
                let affinity = there_spec.and_then(|spec| spec.node_affinity.as_ref());
                found.reach.extend(affinity.and_then(|affinity| affinity.required.clone()));
                found.zones.extend(zones(&there));
                let source = there_spec.and_then(|spec| spec.csi.as_ref());
                found.attached.extend(source.map(|own| (own.driver.clone(), own.volume_handle.clone())));
                Ok(())
            }
            None if self.waits_for_pod(&claim) => {
                // The volume is still to be made: it counts under its claim's name.
                let class = spec.storage_class_name.as_deref().unwrap_or_default();
                let class = self.classes.get(&Key::cluster(class));
                found.attached.extend(class.map(|class| (class.provisioner.clone(), key.to_string())));
                Ok(())
            }
            None => Err("pod has unbound immediate PersistentVolumeClaims".to_owned()),
        }
    }

    /// Returns the nodes that have no room for a Pod's volumes: a driver there says how many it takes.
    pub(super) fn crowded(&self, volumes: &PodVolumes, snapshot: &Snapshot) -> BTreeSet<String> {
        let mut crowded = BTreeSet::new();
        for (driver, _) in &volumes.attached {
            for node in self.drivers.list() {
                let Some(most) = limit(&node, driver) else { continue };
                let Some(info) = snapshot.node(&node.name_any()) else { continue };
                let mut all: BTreeSet<Attached> =
                    info.pods.values().flat_map(|pod| self.of(&pod.pod).attached).collect();
                let before = all.iter().filter(|(of, _)| of == driver).count();
                all.extend(volumes.attached.iter().cloned());
                let after = all.iter().filter(|(of, _)| of == driver).count();
                // Those that are there already cost nothing.
                if after > before && after > most {
                    crowded.insert(node.name_any());
                }
            }
        }
        crowded
    }

    /// Whether the claim is bound only once its first Pod has a node.
    fn waits_for_pod(&self, claim: &PersistentVolumeClaim) -> bool {
        let class =
            claim.spec.as_ref().and_then(|spec| spec.storage_class_name.as_deref()).unwrap_or_default();
        let class = self.classes.get(&Key::cluster(class));
        class.is_some_and(|class| class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
    }
}

/// How many volumes of a driver a node takes, where it says so.
fn limit(node: &CSINode, driver: &str) -> Option<usize> {
    let own = node.spec.drivers.iter().find(|own| own.name == driver)?;
    usize::try_from(own.allocatable.as_ref()?.count?).ok()
}

fn zones(volume: &PersistentVolume) -> impl Iterator<Item = (&'static str, Vec<String>)> + '_ {
    ZONES.into_iter().filter_map(|label| {
        let values = volume.labels().get(label)?;
        Some((label, values.split("__").map(str::to_owned).collect()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn empty() -> Storage {
        let (claims, volumes, classes) = (Cache::default(), Cache::default(), Cache::default());
        Storage { claims, volumes, classes, drivers: Cache::default() }
    }

    #[test]
    fn a_node_takes_no_more_volumes_than_its_driver_says() {
        let storage = empty();
        let pod = |name: &str| {
            let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": name}});
            let pod = json!({"metadata": {"name": name, "namespace": "ns"},
                "spec": {"containers": [], "volumes": [volume]}});
            from_value::<Pod>(pod).unwrap()
        };
        for name in ["a", "b", "same"] {
            let handle = if name == "same" { "a" } else { name };
            let claim = json!({"metadata": {"name": name, "namespace": "ns"}, "spec": {"volumeName": name}});
            storage.claims.apply(from_value(claim).unwrap());
            let volume = json!({"metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "z1__z2"}},
                "spec": {"csi": {"driver": "d", "volumeHandle": handle}}});
            storage.volumes.apply(from_value(volume).unwrap());
        }
        let limited = json!({"metadata": {"name": "n1"},
            "spec": {"drivers": [{"name": "d", "nodeID": "n1", "allocatable": {"count": 1}}]}});
        storage.drivers.apply(from_value(limited).unwrap());
        let mut snapshot = Snapshot::default();
        for node in ["n1", "n2"] {
            snapshot.put_node(std::sync::Arc::new(from_value(json!({"metadata": {"name": node}})).unwrap()));
        }
        let crowded = |pod: &Pod, snapshot: &Snapshot| storage.crowded(&storage.of(pod), snapshot);
        assert!(crowded(&pod("a"), &snapshot).is_empty());
        snapshot.put_pod(std::sync::Arc::new(pod("a")), "n1");
        assert_eq!(crowded(&pod("b"), &snapshot), BTreeSet::from(["n1".to_owned()]));
        assert!(crowded(&pod("same"), &snapshot).is_empty(), "it is there already");
        let zones = storage.of(&pod("a")).zones;
        assert_eq!(zones, [(ZONES[0], vec!["z1".to_owned(), "z2".to_owned()])]);
    }

    #[test]
    fn claims_say_where_and_whether() {
        let storage = empty();
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
