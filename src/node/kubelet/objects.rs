//! ConfigMaps, Secrets and claims that Pods refer to by name.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watch_object};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::container::{Data, Source};
use super::spec;
use rt::Tasks;

/// What Pods refer to by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Secret,
    /// Of a claim only whether its volume has grown and the node is to let the file system follow.
    Claim,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
            Self::Claim => "PersistentVolumeClaim",
        }
    }

    /// As the API's messages name the resource.
    pub fn lower(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
            Self::Claim => "persistentvolumeclaim",
        }
    }
}

type Key = (Kind, String, String);

/// ConfigMaps, Secrets and claims of Pods on this node: one watch per object somebody refers to, none for the others
/// (a node may read no more than that).
pub struct Objects {
    client: Client,
    tasks: Tasks,
    entries: Mutex<HashMap<Key, Weak<Entry>>>,
}

/// One watched object; the watch ends when nobody holds it any more.
pub struct Entry {
    kind: Kind,
    name: String,
    /// `None` until first heard of; then whether it exists, with its contents.
    value: watch::Receiver<Option<Option<Data>>>,
    watching: AbortHandle,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Objects {
    pub fn new(client: Client, tasks: Tasks) -> Self {
        Self { client, tasks, entries: Mutex::default() }
    }

    /// Starts watching (or joins the watch of) one object.
    pub fn watch(&self, kind: Kind, namespace: &str, name: &str) -> Arc<Entry> {
        let key = (kind, namespace.to_owned(), name.to_owned());
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(&key).and_then(Weak::upgrade) {
            return entry;
        }
        entries.retain(|_, entry| entry.strong_count() > 0);
        let (sender, value) = watch::channel(None);
        let client = self.client.clone();
        let task = match kind {
            Kind::ConfigMap => {
                let api: Api<ConfigMap> = Api::namespaced(client, namespace);
                self.tasks.spawn_until_stop(feed(watch_object(api, name), sender, config_map_data))
            }
            Kind::Secret => {
                let api: Api<Secret> = Api::namespaced(client, namespace);
                self.tasks.spawn_until_stop(feed(watch_object(api, name), sender, secret_data))
            }
            Kind::Claim => {
                let api: Api<PersistentVolumeClaim> = Api::namespaced(client, namespace);
                self.tasks.spawn_until_stop(feed(watch_object(api, name), sender, growth))
            }
        };
        let entry = Arc::new(Entry { kind, name: name.to_owned(), value, watching: task.abort_handle() });
        entries.insert(key, Arc::downgrade(&entry));
        entry
    }
}

async fn feed<K: Debug + Send + 'static>(
    stream: impl Stream<Item = watcher::Result<Option<K>>> + Send + 'static,
    sender: watch::Sender<Option<Option<Data>>>,
    data: fn(K) -> BTreeMap<String, Vec<u8>>,
) {
    let mut stream = Box::pin(stream.default_backoff());
    while let Some(item) = stream.next().await {
        match item {
            Ok(object) => {
                let new = Some(object.map(|object| Arc::new(data(object))));
                // What changed beside the contents concerns nobody here.
                sender.send_if_modified(|old| {
                    let changed = *old != new;
                    *old = new;
                    changed
                });
            }
            Err(error) => tracing::debug!(%error, "an object a Pod refers to cannot be watched yet"),
        }
    }
}

fn config_map_data(object: ConfigMap) -> BTreeMap<String, Vec<u8>> {
    let text = object.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    let binary = object.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
    text.chain(binary).collect()
}

fn secret_data(object: Secret) -> BTreeMap<String, Vec<u8>> {
    object.data.into_iter().flatten().map(|(key, value)| (key, value.0)).collect()
}

fn growth(claim: PersistentVolumeClaim) -> BTreeMap<String, Vec<u8>> {
    let asked = claim.spec.and_then(|spec| spec.resources?.requests?.get("storage").cloned());
    let conditions = claim.status.and_then(|status| status.conditions).unwrap_or_default();
    let pending = conditions.iter().any(|one| one.type_ == "FileSystemResizePending" && one.status == "True");
    let size = asked.filter(|_| pending).map(|asked| ("storage".to_owned(), asked.0.into_bytes()));
    size.into_iter().collect()
}

/// Everything one Pod refers to, held as long as its worker lives.
#[derive(Clone, Default)]
pub struct Held(Vec<Arc<Entry>>);

impl Held {
    /// Watches what `pod` refers to.
    pub fn of(objects: &Objects, pod: &Pod) -> Self {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        Self(references(pod).iter().map(|(kind, name)| objects.watch(*kind, namespace, name)).collect())
    }

    /// Waits until everything was heard of once and returns what there is.
    pub async fn source(&self) -> Source {
        let mut all = HashMap::new();
        for entry in &self.0 {
            let mut value = entry.value.clone();
            let data = match value.wait_for(Option::is_some).await {
                Ok(data) => data.clone().flatten(),
                Err(_) => None,
            };
            all.insert((entry.kind, entry.name.clone()), data);
        }
        Source(all)
    }

    /// Wakes at the next change of any of them.
    pub async fn changed(&mut self, seen: &mut Vec<watch::Receiver<Option<Option<Data>>>>) {
        if seen.len() != self.0.len() {
            *seen = self.0.iter().map(|entry| entry.value.clone()).collect();
        }
        if seen.is_empty() {
            return std::future::pending().await;
        }
        let waiting = seen.iter_mut().map(|value| Box::pin(value.changed()));
        if futures::future::select_all(waiting).await.0.is_err() {
            std::future::pending().await
        }
    }
}

/// The ConfigMaps, Secrets and claims a Pod's definition names, each once.
pub fn references(pod: &Pod) -> Vec<(Kind, String)> {
    let spec = spec(pod);
    let mut all = Vec::new();
    for volume in spec.volumes.iter().flatten() {
        let claim = volume.persistent_volume_claim.as_ref().map(|source| source.claim_name.clone());
        let own = volume.ephemeral.as_ref().map(|_| format!("{}-{}", pod.name_any(), volume.name));
        all.extend(claim.or(own).map(|name| (Kind::Claim, name)));
        all.extend(volume.config_map.iter().map(|map| (Kind::ConfigMap, map.name.clone())));
        let secret = volume.secret.as_ref().and_then(|secret| secret.secret_name.clone());
        all.extend(secret.map(|name| (Kind::Secret, name)));
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            all.extend(source.config_map.iter().map(|map| (Kind::ConfigMap, map.name.clone())));
            all.extend(source.secret.iter().map(|secret| (Kind::Secret, secret.name.clone())));
        }
    }
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        for from in container.env_from.iter().flatten() {
            all.extend(from.config_map_ref.iter().map(|map| (Kind::ConfigMap, map.name.clone())));
            all.extend(from.secret_ref.iter().map(|secret| (Kind::Secret, secret.name.clone())));
        }
        for from in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
            all.extend(from.config_map_key_ref.iter().map(|map| (Kind::ConfigMap, map.name.clone())));
            all.extend(from.secret_key_ref.iter().map(|secret| (Kind::Secret, secret.name.clone())));
        }
    }
    all.extend(spec.image_pull_secrets.iter().flatten().map(|secret| (Kind::Secret, secret.name.clone())));
    all.retain(|(_, name)| !name.is_empty());
    all.sort();
    all.dedup();
    all
}
