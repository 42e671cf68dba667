//! One informer's cache: its objects, its indexes, and who is told of changes.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use tokio::sync::watch;

/// What a cache can hold: any typed API object.
pub trait Object:
    kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static
{
}

impl<K> Object for K where
    K: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static
{
}

/// Namespace and name; the namespace of a cluster-scoped object is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    /// A key in a namespace.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// A key of a cluster-scoped object.
    pub fn cluster(name: impl Into<String>) -> Self {
        Self::new("", name)
    }

    /// The key of the object that has this metadata.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// One object's step: `old` is missing when it appeared, `new` when it is gone.
#[derive(Debug)]
pub struct Change<'a, K> {
    pub old: Option<&'a Arc<K>>,
    pub new: Option<&'a Arc<K>>,
}

impl<'a, K> Change<'a, K> {
    /// The newest state known: the present one, or the last one of an object that is gone.
    pub fn latest(&self) -> Option<&'a Arc<K>> {
        self.new.or(self.old)
    }

    /// Both states, the present one first.
    pub fn both(&self) -> impl Iterator<Item = &'a Arc<K>> {
        self.new.into_iter().chain(self.old)
    }
}

type Handler<K> = Box<dyn Fn(&Change<'_, K>) + Send + Sync>;
type IndexFn<K> = fn(&K) -> Vec<String>;

struct Index<K> {
    name: &'static str,
    of: IndexFn<K>,
    entries: HashMap<String, BTreeSet<Key>>,
}

impl<K> Index<K> {
    fn insert(&mut self, key: &Key, object: &K) {
        for value in (self.of)(object) {
            self.entries.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &Key, object: &K) {
        for value in (self.of)(object) {
            if let Some(keys) = self.entries.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.entries.remove(&value);
                }
            }
        }
    }
}

struct State<K> {
    objects: HashMap<Key, Arc<K>>,
    indexes: Vec<Index<K>>,
}

impl<K> State<K> {
    fn put(&mut self, key: &Key, new: Option<Arc<K>>) -> Option<Arc<K>> {
        let old = match &new {
            Some(new) => self.objects.insert(key.clone(), Arc::clone(new)),
            None => self.objects.remove(key),
        };
        for index in &mut self.indexes {
            if let Some(old) = &old {
                index.remove(key, old);
            }
            if let Some(new) = &new {
                index.insert(key, new);
            }
        }
        old
    }
}

/// The index every cache has.
const NAMESPACE: &str = "namespace";

fn by_namespace<K: Object>() -> Index<K> {
    let of = |object: &K| object.meta().namespace.clone().into_iter().collect();
    Index { name: NAMESPACE, of, entries: HashMap::new() }
}

struct Inner<K> {
    state: RwLock<State<K>>,
    /// Held while changes are delivered, so that a handler added meanwhile misses none and sees none twice.
    handlers: Mutex<Vec<Handler<K>>>,
    synced: watch::Sender<bool>,
}

/// A store of one type's objects. Cloning shares it.
pub struct Cache<K>(Arc<Inner<K>>);

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> fmt::Debug for Cache<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

impl<K: Object> Default for Cache<K> {
    fn default() -> Self {
        Self(Arc::new(Inner {
            state: RwLock::new(State { objects: HashMap::new(), indexes: vec![by_namespace()] }),
            handlers: Mutex::default(),
            synced: watch::Sender::new(false),
        }))
    }
}

impl<K: Object> Cache<K> {
    /// The object under a key.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read(|state| state.objects.get(key).cloned())
    }

    /// The object of that name in a namespace.
    pub fn named(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        self.get(&Key::new(namespace, name))
    }

    /// Every object, in no particular order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read(|state| state.objects.values().cloned().collect())
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.read(|state| state.objects.len())
    }

    /// True when there is no object.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an index (once per name): `of` says under which values an object is found.
    pub fn index(&self, name: &'static str, of: IndexFn<K>) {
        let mut state = self.0.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.indexes.iter().any(|index| index.name == name) {
            return;
        }
        let mut index = Index { name, of, entries: HashMap::new() };
        for (key, object) in &state.objects {
            index.insert(key, object);
        }
        state.indexes.push(index);
    }

    /// The objects an index has under a value, by key. An index that was never added finds nothing.
    pub fn find(&self, index: &str, value: &str) -> Vec<Arc<K>> {
        self.read(|state| {
            let entries = state.indexes.iter().find(|i| i.name == index).and_then(|i| i.entries.get(value));
            let keys = entries.into_iter().flatten();
            keys.filter_map(|key| state.objects.get(key).cloned()).collect()
        })
    }

    /// The objects of a namespace, by key.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<K>> {
        self.find(NAMESPACE, namespace)
    }

    /// Calls `handler` for every object there is (as an appearance) and for every later change, in
    /// order. It runs on the watch's task: it must be quick, and is meant to put keys in queues.
    pub fn on_change(&self, handler: impl Fn(&Change<'_, K>) + Send + Sync + 'static) {
        let mut handlers = self.handlers();
        for object in self.list() {
            handler(&Change { old: None, new: Some(&object) });
        }
        handlers.push(Box::new(handler));
    }

    /// Waits until the first list is complete.
    pub async fn synced(&self) {
        let mut synced = self.0.synced.subscribe();
        // The sender lives in `self`, so waiting cannot fail.
        let _ = synced.wait_for(|synced| *synced).await;
    }

    /// Takes over one object, new or changed.
    pub fn apply(&self, object: K) {
        let key = Key::of(object.meta());
        self.put(&key, Some(Arc::new(object)));
    }

    /// Forgets one object. The last state, as the watch told it, is what handlers see.
    pub fn delete(&self, object: K) {
        let key = Key::of(object.meta());
        let handlers = self.handlers();
        let old = self.write(|state| state.put(&key, None));
        if old.is_some() {
            let last = Arc::new(object);
            deliver(&handlers, &Change { old: Some(&last), new: None });
        }
    }

    /// Forgets the object at `key`, of which no last state can be told.
    pub(super) fn forget(&self, key: &Key) {
        self.put(key, None);
    }

    /// Takes over a complete list: what it lacks is gone.
    pub fn replace(&self, objects: Vec<K>) {
        self.replace_but(objects, BTreeSet::new());
    }

    /// The same, but what stands at `unread` stays as it was last seen: it is there, and could not be read.
    pub(super) fn replace_but(&self, objects: Vec<K>, unread: BTreeSet<Key>) {
        let mut keys = unread;
        keys.extend(objects.iter().map(|object| Key::of(object.meta())));
        let gone: Vec<Key> =
            self.read(|state| state.objects.keys().filter(|key| !keys.contains(*key)).cloned().collect());
        for key in gone {
            self.put(&key, None);
        }
        for object in objects {
            self.apply(object);
        }
        self.0.synced.send_replace(true);
    }

    fn put(&self, key: &Key, new: Option<Arc<K>>) {
        let handlers = self.handlers();
        let old = self.write(|state| state.put(key, new.clone()));
        if old.is_some() || new.is_some() {
            deliver(&handlers, &Change { old: old.as_ref(), new: new.as_ref() });
        }
    }

    fn handlers(&self) -> MutexGuard<'_, Vec<Handler<K>>> {
        self.0.handlers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, f: impl FnOnce(&State<K>) -> T) -> T {
        f(&self.0.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, f: impl FnOnce(&mut State<K>) -> T) -> T {
        f(&mut self.0.state.write().unwrap_or_else(PoisonError::into_inner))
    }
}

fn deliver<K: Object>(handlers: &[Handler<K>], change: &Change<'_, K>) {
    for handler in handlers {
        // A handler's bug must not end the watch that all others live by.
        if std::panic::catch_unwind(AssertUnwindSafe(|| handler(change))).is_err() {
            let key = change.latest().map(|object| Key::of(object.meta())).unwrap_or_default();
            tracing::error!(kind = %K::kind(&()), %key, "a handler panicked over a change");
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    fn pod(name: &str, node: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": "ns", "name": name}, "spec": {"nodeName": node, "containers": []}
        }))
        .unwrap()
    }

    fn by_node(pod: &Pod) -> Vec<String> {
        pod.spec.iter().filter_map(|spec| spec.node_name.clone()).collect()
    }

    fn names(pods: &[Arc<Pod>]) -> Vec<&str> {
        pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect()
    }

    #[test]
    fn indexes_follow_changes() {
        let cache = Cache::<Pod>::default();
        cache.apply(pod("a", "n1"));
        cache.index("node", by_node);
        cache.apply(pod("b", "n1"));
        assert_eq!(names(&cache.find("node", "n1")), ["a", "b"]);
        cache.apply(pod("a", "n2"));
        assert_eq!(names(&cache.find("node", "n1")), ["b"]);
        cache.delete(pod("b", "n1"));
        assert!(cache.find("node", "n1").is_empty());
        assert_eq!(names(&cache.in_namespace("ns")), ["a"]);
    }

    #[test]
    fn a_handler_that_panics_stops_nobody() {
        let cache = Cache::<Pod>::default();
        cache.on_change(|_| panic!("as it should"));
        let seen = Arc::new(Mutex::new(0));
        let count = Arc::clone(&seen);
        cache.on_change(move |_| *count.lock().unwrap() += 1);
        cache.apply(pod("a", "n1"));
        cache.delete(pod("a", "n1"));
        assert_eq!(*seen.lock().unwrap(), 2);
    }

    #[test]
    fn a_relist_tells_what_is_gone_and_late_handlers_see_what_is_there() {
        let cache = Cache::<Pod>::default();
        cache.replace(vec![pod("a", "n1"), pod("b", "n1")]);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        cache.on_change(move |change| {
            let name = change.latest().and_then(|pod| pod.metadata.name.clone()).unwrap();
            log.lock().unwrap().push((name, change.old.is_some(), change.new.is_some()));
        });
        seen.lock().unwrap().clear();
        cache.replace(vec![pod("b", "n2"), pod("c", "n1")]);
        let expect = [("a", true, false), ("b", true, true), ("c", false, true)];
        assert_eq!(*seen.lock().unwrap(), expect.map(|(n, o, w)| (n.to_owned(), o, w)));
    }
}
