//! A store: the watch cache over a log.

use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::cache::{Cursor, Limits, Snapshot, WatchCache};
use super::log::{Embedded, Etcd, EtcdLog, Journal, LocalLog, Log, Nowhere, QueueLimits, Write};
use super::{Entry, ListQuery, Listing, Payload, StorageError, Store, Turn, Watch};
use rt::{Clock, SystemClock};

/// Where a store keeps what is written to it.
#[derive(Clone, Default)]
pub enum Engine {
    /// In memory: gone with the process; for tests.
    #[default]
    Memory,
    /// In the redb file at this path, which is made if it is not there.
    Embedded(PathBuf),
    /// In an etcd, which other servers may write to as well.
    Etcd(Etcd),
}

/// What a store is opened with.
#[derive(Clone)]
pub struct Config {
    pub engine: Engine,
    /// How much history watchers and lists at older revisions can reach back to.
    pub history: Limits,
    /// How much may wait for the disk.
    pub queue: QueueLimits,
    /// What times to live are counted by.
    pub clock: Arc<dyn Clock>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            engine: Engine::default(),
            history: Limits::default(),
            queue: QueueLimits::default(),
            clock: Arc::new(SystemClock),
        }
    }
}

impl Config {
    /// A store in the file at `path`.
    pub fn embedded(path: impl Into<PathBuf>) -> Self {
        Self { engine: Engine::Embedded(path.into()), ..Self::default() }
    }
}

/// Opens the store that `config` describes. `Unavailable` if it cannot be used.
pub async fn open(config: Config) -> Result<Arc<dyn Store>, StorageError> {
    match &config.engine {
        Engine::Memory => local(Nowhere, Snapshot::default(), config),
        Engine::Embedded(path) => {
            let (journal, snapshot) = Embedded::open(path)?;
            local(journal, snapshot, config)
        }
        Engine::Etcd(etcd) => {
            let (cache, log) = EtcdLog::open(etcd, &config).await?;
            Ok(Arc::new(CachedStore::new(cache, log)))
        }
    }
}

fn local(journal: impl Journal, snapshot: Snapshot, config: Config) -> Result<Arc<dyn Store>, StorageError> {
    let cache = Arc::new(WatchCache::new(snapshot, config.history));
    let log = LocalLog::start(journal, cache.clone(), config.clock, config.queue)?;
    Ok(Arc::new(CachedStore::new(cache, log)))
}

/// A store that is gone with the process; for tests.
pub fn memory() -> Arc<dyn Store> {
    local(Nowhere, Snapshot::default(), Config::default()).expect("the system can start a thread")
}

/// A watch cache and the log that feeds it: reads and watches are the cache's, writes the log's.
pub(super) struct CachedStore<L> {
    cache: Arc<WatchCache>,
    log: L,
}

impl<L: Log> CachedStore<L> {
    pub(super) fn new(cache: Arc<WatchCache>, log: L) -> Self {
        Self { cache, log }
    }

    /// Waits until the cache shows what any process had made durable before.
    async fn caught_up(&self) -> Result<&WatchCache, StorageError> {
        if let Some(catching_up) = self.log.catch_up() {
            catching_up.await?;
        }
        Ok(&self.cache)
    }
}

impl<L: Log> Store for CachedStore<L> {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Arc<Entry>>, StorageError>> {
        async move { Ok(self.caught_up().await?.read().get(key).cloned()) }.boxed()
    }

    fn seen(&self, key: &str) -> Option<Arc<Entry>> {
        self.cache.read().get(key).cloned()
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Listing, StorageError>> {
        async move { self.caught_up().await?.read().list(&query) }.boxed()
    }

    fn create(&self, key: String, payload: Payload) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>> {
        self.log.propose(key, Write::Create(payload))
    }

    fn update_if(
        &self,
        key: String,
        expected: u64,
        payload: Payload,
    ) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>> {
        self.log.propose(key, Write::UpdateIf(expected, payload))
    }

    fn delete_if(&self, key: String, expected: u64) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>> {
        self.log.propose(key, Write::DeleteIf(expected))
    }

    fn watch(&self, prefix: String, from: u64) -> Result<Box<dyn Watch>, StorageError> {
        Ok(Box::new(Cursor::open(self.cache.clone(), prefix, from)?))
    }

    fn turn<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Turn>, StorageError>> {
        self.log.turn(name)
    }

    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<(), StorageError>> {
        async move {
            let mut state = self.cache.write();
            state.reached(revision)?;
            state.history.compact(revision);
            Ok(())
        }
        .boxed()
    }

    fn revision(&self) -> u64 {
        self.cache.read().revision
    }

    fn alone(&self) -> bool {
        self.log.catch_up().is_none()
    }

    fn healthy(&self) -> Result<(), StorageError> {
        self.cache.working()
    }

    fn failed(&self) -> BoxFuture<'_, Arc<str>> {
        self.cache.failed().boxed()
    }
}

#[cfg(test)]
mod tests;
