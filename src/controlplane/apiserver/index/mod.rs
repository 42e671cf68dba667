//! What deciding about requests needs to know, held in memory: one watch of the store feeds it, so that no request reads
//! policy from storage.
//!
//! ```text
//! list everything of interest -> follow the watch --history lost--> list again
//! ```
//!
//! The index trails the store by the time one task needs to wake. Whoever is about to *refuse* a request because
//! something is not there calls [`Index::caught_up`] first and looks again, so that a client always sees its own writes.

mod known;
mod node_uses;

pub use known::Known;
pub use node_uses::{NodeUses, Used, uses_anything};

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use tokio::sync::watch;

use self::known::Kept;
use api::resources::Table;
use rt::Tasks;
use storage::{Batch, EventKind, Filter, ListQuery, StorageError, Store};

/// Told of every change that the index takes in, in order. Called under the index's lock: it must not block.
pub trait Follower: Send + Sync {
    /// `object` is the new state; `None`: it is gone, and `last` was its last state.
    fn changed(&self, key: &str, object: Option<&serde_json::Value>, last: Option<&serde_json::Value>);
}

/// The index, shared by all who decide.
pub struct Index {
    store: Arc<dyn Store>,
    kept: Arc<Kept>,
    known: RwLock<Known>,
    /// Everything up to this revision is in `known`.
    applied: watch::Sender<u64>,
    followers: Vec<Arc<dyn Follower>>,
}

impl Index {
    /// How long a refusal waits for the index to see what the store has already acknowledged.
    const PATIENCE: Duration = Duration::from_secs(2);

    /// Reads what is there and follows it until the tasks stop.
    pub async fn start(
        store: Arc<dyn Store>,
        resources: &Table,
        followers: Vec<Arc<dyn Follower>>,
        tasks: &Tasks,
    ) -> Result<Arc<Self>, StorageError> {
        let known = RwLock::new(Known::default());
        let index = Arc::new(Self {
            store,
            kept: Arc::new(Kept::of(resources.iter())),
            known,
            applied: watch::Sender::new(0),
            followers,
        });
        let from = index.relist().await?;
        let follow = Arc::clone(&index);
        tasks.spawn_until_stop(async move { follow.follow(from).await });
        Ok(index)
    }

    /// The store that feeds it.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The present state. Hold it briefly, never across an await point.
    pub fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whenever the index has taken something in.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// Whether the store has nothing durable that the index has not seen. Not known where other servers write to it, too.
    pub fn is_current(&self) -> bool {
        self.store.alone() && *self.applied.borrow() >= self.store.revision()
    }

    /// Waits until the index has seen everything that is durable now.
    pub async fn caught_up(&self) {
        let reached = async {
            if !self.store.alone() {
                // Reading anything lets the store see what other servers have written.
                self.store.get("").await.map(drop)?;
            }
            let target = self.store.revision();
            // The sender is the index's own.
            let _ = self.applied.subscribe().wait_for(|revision| *revision >= target).await;
            Ok::<_, StorageError>(())
        };
        match tokio::time::timeout(Self::PATIENCE, reached).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "what other servers wrote is not known"),
            Err(_) => tracing::warn!("the index of policy objects trails the store"),
        }
    }

    async fn relist(&self) -> Result<u64, StorageError> {
        let kept = Arc::clone(&self.kept);
        let filter: Filter = Arc::new(move |entry| kept.wants(&entry.key));
        let query = ListQuery { prefix: "/".to_owned(), filter: Some(filter), ..ListQuery::default() };
        let listing = self.store.list(query).await?;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let stale = known.keys_but(listing.entries.iter().map(|entry| &*entry.key));
        for key in stale {
            self.apply(&mut known, &key, None);
        }
        for entry in &listing.entries {
            if let Ok(object) = parse(&entry.key, Some(&entry.data)) {
                self.apply(&mut known, &entry.key, object);
            }
        }
        drop(known);
        self.applied.send_replace(listing.revision);
        Ok(listing.revision)
    }

    fn apply(&self, known: &mut Known, key: &str, object: Option<Arc<serde_json::Value>>) {
        let last = known.set(key, object.clone());
        for follower in &self.followers {
            follower.changed(key, object.as_deref(), last.as_deref());
        }
    }

    fn take(&self, batch: &Batch) {
        // Read before the lock is taken: every request waits for it.
        let wanted = batch.events.iter().filter(|event| self.kept.wants(&event.entry.key));
        let changes: Vec<_> = wanted
            .filter_map(|event| {
                let data = (event.kind == EventKind::Put).then_some(&event.entry.data[..]);
                Some((&event.entry.key, parse(&event.entry.key, data).ok()?))
            })
            .collect();
        if !changes.is_empty() {
            let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
            for (key, object) in changes {
                self.apply(&mut known, key, object);
            }
        }
        self.applied.send_replace(batch.revision);
    }

    async fn follow(&self, mut from: u64) {
        loop {
            match self.follow_from(&mut from).await {
                StorageError::Unavailable(why) => {
                    tracing::error!(%why, "the store has ended: policy objects are no longer followed");
                    return;
                }
                error => tracing::warn!(%error, "policy objects are listed again"),
            }
            match self.relist().await {
                Ok(revision) => from = revision,
                Err(error) => {
                    tracing::error!(%error, "policy objects cannot be listed");
                    return;
                }
            }
        }
    }

    async fn follow_from(&self, from: &mut u64) -> StorageError {
        let mut watch = match self.store.watch("/".to_owned(), *from) {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        loop {
            match watch.next().await {
                Ok(batch) => {
                    self.take(&batch);
                    *from = batch.revision;
                }
                Err(error) => return error,
            }
        }
    }
}

/// The object that was written; `None`: it is gone. One that cannot be read is left out and said, and blinds nobody.
fn parse(key: &str, data: Option<&[u8]>) -> Result<Option<Arc<serde_json::Value>>, serde_json::Error> {
    let object = data.map(serde_json::from_slice).transpose();
    object
        .map(|object| object.map(Arc::new))
        .inspect_err(|error| tracing::error!(key, %error, "a stored object cannot be read"))
}
