use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};

use super::cache::{Cache, Object};
use crate::rt::{Backoff, Tasks};

/// Between attempts to list or watch again.
const RETRY: Backoff = Backoff { first: Duration::from_millis(20), max: Duration::from_secs(5) };

/// The caches of one process, by type. Cloning shares them.
#[derive(Clone)]
pub struct Informers {
    client: Client,
    tasks: Tasks,
    caches: Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send + Sync>>>>,
}

impl Informers {
    /// No caches yet: each starts when it is first asked for, and reads through `client`.
    pub fn new(client: Client, tasks: &Tasks) -> Self {
        Self { client, tasks: tasks.clone(), caches: Arc::default() }
    }

    /// The cache of a type, over all namespaces.
    pub fn cache<K: Object>(&self) -> Cache<K> {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = caches.get(&TypeId::of::<K>()).and_then(|any| any.downcast_ref::<Cache<K>>()) {
            return cache.clone();
        }
        let cache = Cache::<K>::default();
        caches.insert(TypeId::of::<K>(), Box::new(cache.clone()));
        self.tasks.spawn_until_stop(feed(cache.clone(), self.client.clone(), watcher::Config::default()));
        cache
    }

    /// A cache of the caller's own, of the objects that a field selector picks.
    pub fn selected<K: Object>(&self, fields: &str) -> Cache<K> {
        let cache = Cache::<K>::default();
        let config = watcher::Config::default().fields(fields);
        self.tasks.spawn_until_stop(feed(cache.clone(), self.client.clone(), config));
        cache
    }
}

/// Lists and watches for ever, and keeps the cache up to date. Field ownership is dropped: no reader
/// of a cache needs it, and it is often half of an object.
async fn feed<K: Object>(cache: Cache<K>, client: Client, config: watcher::Config) {
    let mut events = pin!(watcher::watcher(Api::<K>::all(client), config));
    let mut listed = Vec::new();
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
            Event::Init => listed.clear(),
            Event::InitApply(object) => listed.push(object),
            Event::InitDone => cache.replace(std::mem::take(&mut listed)),
            Event::Apply(object) => cache.apply(object),
            Event::Delete(object) => cache.delete(object),
        }
    }
}
