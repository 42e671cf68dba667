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
use kube::core::ApiResource;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};

use super::cache::{Cache, Key, Object};
use super::names::Names;
use super::raw::Raw;
use crate::events::Recorder;
use rt::{Backoff, SystemClock, Tasks};

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

    /// How often an object came that could not be read, in Prometheus' text form.
    pub fn render(&self) -> String {
        const NAME: &str = "minik_informer_unreadable_objects_total";
        let count = self.complaints.unreadable.load(Ordering::Relaxed);
        format!(
            "# HELP {NAME} Objects that came and could not be read.\n# TYPE {NAME} counter\n{NAME} {count}\n"
        )
    }

    fn feed<K: Object>(&self, cache: &Cache<K>, config: watcher::Config) {
        let feed = Feed {
            cache: cache.clone(),
            complaints: self.complaints.clone(),
            listed: Vec::new(),
            unread: BTreeSet::new(),
        };
        let resource = ApiResource::erase::<K>(&());
        self.tasks.spawn_until_stop(follow(self.client.clone(), resource, config, Box::new(feed)));
    }

    /// The cache of a type, over all namespaces.
    pub fn cache<K: Object>(&self) -> Cache<K> {
        let mut caches = self.caches.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cache) = caches.get(&TypeId::of::<K>()).and_then(|any| any.downcast_ref::<Cache<K>>()) {
            return cache.clone();
        }
        let cache = Cache::<K>::default();
        caches.insert(TypeId::of::<K>(), Box::new(cache.clone()));
        self.feed(&cache, watcher::Config::default());
        cache
    }

    /// The names of a kind's objects, whatever the kind; `on_change` is told the namespace of what comes or goes. It ends when
    /// it is dropped.
    pub fn names(&self, resource: &ApiResource, on_change: impl Fn(&str) + Send + 'static) -> Names {
        Names::follow(self.client.clone(), resource.clone(), &self.tasks, on_change)
    }

    /// A cache of the caller's own, of the objects that a field selector picks.
    pub fn selected<K: Object>(&self, fields: &str) -> Cache<K> {
        let cache = Cache::<K>::default();
        let config = watcher::Config::default().fields(fields);
        self.feed(&cache, config);
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

/// Where a watch of one type leads to. The watch itself knows no type.
pub(super) trait Sink: Send {
    /// A list begins.
    fn begin(&mut self);
    /// An object of the list.
    fn listed(&mut self, object: &Raw);
    /// The list is complete.
    fn complete(&mut self);
    /// An object is new or changed.
    fn applied(&mut self, object: &Raw);
    /// An object is gone; this was its last state.
    fn deleted(&mut self, object: &Raw);
}

/// Keeps one cache. An object that cannot be read stays as it was last seen.
struct Feed<K> {
    cache: Cache<K>,
    complaints: Complaints,
    listed: Vec<K>,
    unread: BTreeSet<Key>,
}

impl<K: Object> Sink for Feed<K> {
    fn begin(&mut self) {
        self.listed.clear();
        self.unread.clear();
    }

    fn listed(&mut self, object: &Raw) {
        match object.read() {
            Ok(object) => self.listed.push(object),
            Err(why) => {
                self.complaints.unreadable::<K>(&object.meta, &why);
                self.unread.insert(Key::of(&object.meta));
            }
        }
    }

    fn complete(&mut self) {
        self.cache.replace_but(std::mem::take(&mut self.listed), std::mem::take(&mut self.unread));
    }

    fn applied(&mut self, object: &Raw) {
        match object.read() {
            Ok(object) => self.cache.apply(object),
            Err(why) => self.complaints.unreadable::<K>(&object.meta, &why),
        }
    }

    fn deleted(&mut self, object: &Raw) {
        match object.read() {
            Ok(object) => self.cache.delete(object),
            Err(_) => self.cache.forget(&Key::of(&object.meta)),
        }
    }
}

/// Whether the server has never come to what was seen: its state was put back, and only a new list tells what holds.
fn is_ahead(error: &watcher::Error) -> bool {
    let watcher::Error::WatchStartFailed(kube::Error::Api(status)) = error else { return false };
    status.code == 504 && status.message.contains("Too large resource version")
}

/// Lists and watches for ever, and tells the sink. Compiled once, for all types.
pub(super) async fn follow(
    client: Client,
    resource: ApiResource,
    config: watcher::Config,
    mut sink: Box<dyn Sink>,
) {
    let api = Api::<Raw>::all_with(client, &resource);
    let mut events = pin!(watcher::watcher(api.clone(), config.clone()));
    let mut failures = 0;
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                failures += 1;
                tracing::debug!(kind = resource.kind, %error, failures, "watch interrupted");
                if is_ahead(&error) {
                    events.set(watcher::watcher(api.clone(), config.clone()));
                }
                tokio::time::sleep(RETRY.delay(failures)).await;
                continue;
            }
        };
        failures = 0;
        match event {
            Event::Init => sink.begin(),
            Event::InitApply(object) => sink.listed(&object),
            Event::InitDone => sink.complete(),
            Event::Apply(object) => sink.applied(&object),
            Event::Delete(object) => sink.deleted(&object),
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
                    // The type stands first, as the API writes it.
                    let event = |kind: &str, object: serde_json::Value| {
                        format!("{{\"type\":\"{kind}\",\"object\":{object}}}\n")
                    };
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
        assert!(informers.complaints.unreadable.load(Ordering::Relaxed) >= 2);
        tasks.stop().cancel();
    }

    /// A server whose state was put back has not come to what was seen of it: what there is now is listed.
    #[tokio::test]
    async fn who_has_seen_more_than_there_is_lists_again() {
        let lists = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lists);
        let answer = move |request: Request<Body>| {
            let lists = Arc::clone(&counted);
            async move {
                let watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
                let list = |name: &str, revision: &str| {
                    let pod = json!({"apiVersion": "v1", "kind": "Pod",
                        "metadata": {"name": name, "namespace": "a", "resourceVersion": revision}});
                    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": revision}, "items": [pod]})
                };
                let (code, body) = match (watch, lists.load(Ordering::SeqCst)) {
                    (true, 1) => (
                        504,
                        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Timeout", "code": 504,
                            "message": "Timeout: Too large resource version: 90, current: 7"}),
                    ),
                    (true, _) => return std::future::pending().await,
                    (false, listed) => {
                        lists.fetch_add(1, Ordering::SeqCst);
                        (200, if listed == 0 { list("before", "90") } else { list("now", "7") })
                    }
                };
                let answer = Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
                Ok::<_, Infallible>(answer.expect("an answer"))
            }
        };
        let tasks = Tasks::new();
        let informers = Informers::new(Client::new(tower::service_fn(answer), "default"), &tasks);
        let cache = informers.cache::<Pod>();
        let seen = async {
            while cache.get(&Key::new("a", "now")).is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.expect("listed again");
        assert!(cache.get(&Key::new("a", "before")).is_none());
        tasks.stop().cancel();
    }
}
