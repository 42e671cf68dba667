//! The drivers that are registered, and which of their volumes are in use here.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::csi::api::node_service_capability::rpc::Type as Feature;
use crate::csi::{Driver, NodeInfo};

/// A driver that may be called.
#[derive(Clone, Debug)]
pub struct Registered {
    pub driver: Driver,
    pub info: NodeInfo,
    pub features: HashSet<Feature>,
}

/// What is written beside a volume that a driver mounted, for whoever unmounts it: names are upstream's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Staged {
    pub driver_name: String,
    pub volume_handle: String,
    /// The PersistentVolume's name, or the volume's in its Pod.
    #[serde(rename = "specVolID")]
    pub spec_vol_id: String,
    pub volume_lifecycle_mode: String,
    /// Empty where nothing was attached.
    #[serde(rename = "attachmentID", default)]
    pub attachment_id: String,
}

impl Staged {
    /// Beside the folder `mount`.
    pub const FILE: &'static str = "vol_data.json";

    pub fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join(Self::FILE)).ok()?).ok()
    }

    /// As the Node's status names volumes that must not be detached.
    fn unique_name(&self) -> String {
        format!("kubernetes.io/csi/{}^{}", self.driver_name, self.volume_handle)
    }
}

/// Where a driver puts a volume for the whole node, under the kubelet's folder.
pub fn staging(kubelet: &Path, driver: &str, handle: &str) -> PathBuf {
    let hash = hex::encode(ring::digest::digest(&ring::digest::SHA256, handle.as_bytes()));
    kubelet.join("plugins/kubernetes.io/csi").join(driver).join(hash).join("globalmount")
}

type Locks = Mutex<HashMap<(String, String), Arc<tokio::sync::Mutex<()>>>>;

/// The drivers of this node. Cheap to clone.
#[derive(Clone)]
pub struct Drivers {
    kubelet: PathBuf,
    known: Arc<Mutex<BTreeMap<String, Registered>>>,
    locks: Arc<Locks>,
    /// Counts changes of what is in use, for the Node's status.
    used: watch::Sender<u64>,
}

impl Drivers {
    /// None yet. `kubelet` is the kubelet's folder.
    pub fn new(kubelet: &Path) -> Self {
        Self {
            kubelet: kubelet.to_owned(),
            known: Arc::default(),
            locks: Arc::default(),
            used: watch::Sender::new(0),
        }
    }

    pub fn kubelet(&self) -> &Path {
        &self.kubelet
    }

    /// The driver of that name, if it is registered.
    pub fn get(&self, name: &str) -> Option<Registered> {
        self.lock().get(name).cloned()
    }

    pub fn all(&self) -> BTreeMap<String, Registered> {
        self.lock().clone()
    }

    pub(super) fn put(&self, name: &str, registered: Registered) {
        self.lock().insert(name.to_owned(), registered);
    }

    pub(super) fn remove(&self, name: &str) {
        self.lock().remove(name);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Registered>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only one at a time mounts or unmounts a volume.
    pub async fn hold(&self, driver: &str, handle: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let key = (driver.to_owned(), handle.to_owned());
        let lock = {
            let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody holds or waits for.
            locks.retain(|_, lock| Arc::strong_count(lock) > 1);
            locks.entry(key).or_default().clone()
        };
        lock.lock_owned().await
    }

    /// Tells that what is in use may have changed.
    pub fn touch(&self) {
        self.used.send_modify(|count| *count += 1);
    }

    /// Wakes whenever what is in use may have changed.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.used.subscribe()
    }

    /// The folders of volumes that drivers mounted for Pods, with what was written beside them.
    pub fn mounted(&self) -> Vec<(PathBuf, Staged)> {
        let pods = entries(&self.kubelet.join("pods"));
        pods.into_iter().flat_map(|pod| mounted_in(&pod)).collect()
    }

    /// Attached volumes that Pods of this node use, as the Node's status names them.
    pub fn in_use(&self) -> Vec<String> {
        let attached = self.mounted().into_iter().filter(|(_, staged)| !staged.attachment_id.is_empty());
        let names: BTreeSet<String> = attached.map(|(_, staged)| staged.unique_name()).collect();
        names.into_iter().collect()
    }
}

/// The same of one Pod, by its folder.
pub fn mounted_in(pod: &Path) -> Vec<(PathBuf, Staged)> {
    let volumes = entries(&pod.join("volumes/kubernetes.io~csi"));
    volumes.into_iter().filter_map(|dir| Staged::read(&dir).map(|staged| (dir, staged))).collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_read_from_disk() {
        let dir = tempfile::tempdir().expect("folder");
        let drivers = Drivers::new(dir.path());
        let write = |pod: &str, volume: &str, attachment: &str| {
            let at = dir.path().join("pods").join(pod).join("volumes/kubernetes.io~csi").join(volume);
            fs::create_dir_all(&at).expect("folder");
            let staged = Staged {
                driver_name: "d.example.com".into(),
                volume_handle: volume.into(),
                attachment_id: attachment.into(),
                ..Staged::default()
            };
            fs::write(at.join(Staged::FILE), serde_json::to_vec(&staged).expect("JSON")).expect("written");
        };
        assert!(drivers.in_use().is_empty());
        write("a", "v1", "csi-1");
        write("b", "v1", "csi-1");
        write("b", "inline", "");
        assert_eq!(drivers.in_use(), ["kubernetes.io/csi/d.example.com^v1"]);
        assert_eq!(drivers.mounted().len(), 3);
    }
}
