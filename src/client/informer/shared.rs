//! The informers of one process, shared by type.

use std::any::{Any, TypeId};
use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource as _};

use super::cache::{Cache, Key, Object};
use super::sent::Sent;
use crate::client::events::Recorder;
use crate::rt::{Backoff, SystemClock, Tasks};

/// Between attempts to list or watch again.
const RETRY: Backoff = Backoff { first: Duration::from_millis(20), max: Duration::from_secs(5) };

/// The caches of one process, by type. Cloning shares them.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    tasks: Tasks,
    caches: Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send + Sync>>>>,
    complaints: Complaints,
}

impl Informers {
    /// No caches yet: each starts when it is first asked for, and reads through `client`.
    pub fn new(client: Client, tasks: &Tasks) -> Self {
        let events = Recorder::start(client.clone(), "informer", "", Arc::new(SystemClock), tasks);
        let complaints = Complaints { events, unreadable: Arc::default() };
        Self { client, tasks: tasks.clone(), caches: Arc::default(), complaints }
    }

    /// How often an object came that could not be read.
    pub fn unreadable(&self) -> u64 {
        self.complaints.unreadable.load(Ordering::Relaxed)
    }

    fn feed<K: Object>(
        &self,
        cache: &Cache<K>,
        config: watcher::Config,
    ) -> impl Future<Output = ()> + use<K> {
        feed(cache.clone(), self.client.clone(), config, self.complaints.clone())
    }

    /// The cache of a type, over all namespaces.
    pub fn cache<K: Object>(&self) -> Cache<K> {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = caches.get(&TypeId::of::<K>()).and_then(|any| any.downcast_ref::<Cache<K>>()) {
            return cache.clone();
        }
        let cache = Cache::<K>::default();
        caches.insert(TypeId::of::<K>(), Box::new(cache.clone()));
        self.tasks.spawn_until_stop(self.feed(&cache, watcher::Config::default()));
        cache
    }

    /// A cache of the caller's own, of the objects that a field selector picks.
    pub fn selected<K: Object>(&self, fields: &str) -> Cache<K> {
        let cache = Cache::<K>::default();
        let config = watcher::Config::default().fields(fields);
        self.tasks.spawn_until_stop(self.feed(&cache, config));
        cache
    }
}

/// Says what objects could not be read: in a log line, an Event and a count.
#[derive(Clone)]
struct Complaints {
    events: Recorder,
    unreadable: Arc<AtomicU64>,
}

impl Complaints {
    fn unreadable<K: Object>(&self, meta: &ObjectMeta, why: &str) {
        self.unreadable.fetch_add(1, Ordering::Relaxed);
        let kind = K::kind(&());
        tracing::error!(%kind, key = %Key::of(meta), why, "an object cannot be read");
        let about = ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(kind.clone().into_owned()),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            ..ObjectReference::default()
        };
        let message =
            format!("This object cannot be read as a {kind}, and is left out until it is mended: {why}");
        self.events.warning(about, "Unreadable", message);
    }
}

/// Lists and watches for ever, and keeps the cache up to date. Field ownership is dropped: no reader
/// of a cache needs it, and it is often half of an object. An object that cannot be read stays as it was last seen.
async fn feed<K: Object>(cache: Cache<K>, client: Client, config: watcher::Config, complaints: Complaints) {
    let mut events = pin!(watcher::watcher(Api::<Sent<K>>::all(client), config));
    let (mut listed, mut unread) = (Vec::new(), BTreeSet::new());
    let mut failures = 0;
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event.modify(|object| object.meta_mut().managed_fields = None),
            Err(error) => {
                failures += 1;
                let kind = K::kind(&());
                tracing::debug!(%kind, %error, failures, "watch interrupted");
                tokio::time::sleep(RETRY.delay(failures)).await;
                continue;
            }
        };
        failures = 0;
        match event {
            Event::Init => {
                listed.clear();
                unread.clear();
            }
            Event::InitApply(Sent::Readable(object)) => listed.push(object),
            Event::InitApply(Sent::Unreadable { meta, why }) => {
                complaints.unreadable::<K>(&meta, &why);
                unread.insert(Key::of(&meta));
            }
            Event::InitDone => cache.replace_but(std::mem::take(&mut listed), std::mem::take(&mut unread)),
            Event::Apply(Sent::Readable(object)) => cache.apply(object),
            Event::Apply(Sent::Unreadable { meta, why }) => complaints.unreadable::<K>(&meta, &why),
            Event::Delete(Sent::Readable(object)) => cache.delete(object),
            Event::Delete(Sent::Unreadable { meta, .. }) => cache.forget(&Key::of(&meta)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use k8s_openapi::api::core::v1::Pod;
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// A list with a bad Pod among good ones, then a watch that turns a good one bad and brings another.
    #[tokio::test]
    async fn a_bad_object_blinds_no_cache() {
        let answer = |request: Request<Body>| async move {
            let pod = |name: &str, period: i64| {
                json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a", "resourceVersion": "5"},
                    "spec": {"containers": [{"name": "c", "livenessProbe": {"periodSeconds": period}}]}})
            };
            let big = 1_i64 << 33;
            let body = match request.uri().query() {
                Some(query) if query.contains("watch=true") => {
                    let event =
                        |kind: &str, object| json!({"type": kind, "object": object}).to_string() + "\n";
                    event("MODIFIED", pod("one", big)) + &event("ADDED", pod("two", 1))
                }
                _ if request.method() == http::Method::GET => {
                    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "4"},
                        "items": [pod("bad", big), pod("one", 1)]})
                    .to_string()
                }
                _ => json!({}).to_string(),
            };
            Ok::<_, Infallible>(Response::new(Body::from(body.into_bytes())))
        };
        let tasks = Tasks::new();
        let informers = Informers::new(Client::new(tower::service_fn(answer), "default"), &tasks);
        let cache = informers.cache::<Pod>();
        let seen = async {
            while cache.get(&Key::new("a", "two")).is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.expect("the watch goes on");
        assert!(cache.get(&Key::new("a", "one")).is_some(), "it stays as it was last seen");
        assert!(cache.get(&Key::new("a", "bad")).is_none());
        assert!(informers.unreadable() >= 2);
        tasks.stop().cancel();
    }
}
