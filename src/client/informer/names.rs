//! The names of a kind's objects: what is left of a cache for who only counts them. Any kind can be followed, also one
//! that came into being while the process runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use kube::core::ApiResource;
use kube::runtime::watcher;
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use super::cache::Key;
use super::raw::Raw;
use super::shared::{Sink, follow};
use rt::Tasks;

/// How long a first list may take.
const PATIENCE: Duration = Duration::from_secs(10);

type ByNamespace = HashMap<String, BTreeSet<String>>;

/// The names of one kind's objects, kept up to date until this is dropped.
pub struct Names {
    all: Arc<Mutex<ByNamespace>>,
    synced: watch::Receiver<bool>,
    end: DropGuard,
}

impl Names {
    /// Begins to follow a kind; `on_change` is told the namespace of whatever comes or goes.
    pub(super) fn follow(
        client: Client,
        resource: ApiResource,
        tasks: &Tasks,
        on_change: impl Fn(&str) + Send + 'static,
    ) -> Self {
        let (all, (tell, synced)) = (Arc::new(Mutex::default()), watch::channel(false));
        let sink = Follower {
            all: Arc::clone(&all),
            listed: HashMap::new(),
            synced: tell,
            on_change: Box::new(on_change),
        };
        let end = tasks.stop().child_token();
        let stop = end.clone();
        tasks.spawn(async move {
            stop.run_until_cancelled(follow(client, resource, watcher::Config::default(), Box::new(sink)))
                .await;
        });
        Self { all, synced, end: end.drop_guard() }
    }

    /// Ends it now, whoever still holds it: the kind is served no more.
    pub fn end(&self) {
        self.end.token().cancel();
    }

    /// How many objects a namespace has, once all have been listed; as far as is known when this has ended, or when the
    /// kind cannot be listed: that holds nobody up.
    pub async fn count(&self, namespace: &str) -> usize {
        let mut synced = self.synced.clone();
        let _ = tokio::time::timeout(PATIENCE, synced.wait_for(|synced| *synced)).await;
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(namespace).map_or(0, BTreeSet::len)
    }
}

struct Follower {
    all: Arc<Mutex<ByNamespace>>,
    listed: ByNamespace,
    synced: watch::Sender<bool>,
    on_change: Box<dyn Fn(&str) + Send>,
}

impl Sink for Follower {
    fn begin(&mut self) {
        self.listed.clear();
    }

    fn listed(&mut self, object: &Raw) {
        let Key { namespace, name } = Key::of(&object.meta);
        self.listed.entry(namespace).or_default().insert(name);
    }

    fn complete(&mut self) {
        let new = std::mem::take(&mut self.listed);
        let mut touched: BTreeSet<String> = new.keys().cloned().collect();
        let old = std::mem::replace(&mut *self.all.lock().unwrap_or_else(PoisonError::into_inner), new);
        touched.extend(old.into_keys());
        self.synced.send_replace(true);
        touched.iter().for_each(|namespace| (self.on_change)(namespace));
    }

    fn applied(&mut self, object: &Raw) {
        let Key { namespace, name } = Key::of(&object.meta);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let new = all.entry(namespace.clone()).or_default().insert(name);
        drop(all);
        if new {
            (self.on_change)(&namespace);
        }
    }

    fn deleted(&mut self, object: &Raw) {
        let Key { namespace, name } = Key::of(&object.meta);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = all.get_mut(&namespace).is_some_and(|names| names.remove(&name));
        drop(all);
        if gone {
            (self.on_change)(&namespace);
        }
    }
}
