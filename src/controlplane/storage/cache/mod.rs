//! The watch cache: the present state, its recent history, and cursors into it.
//!
//! A log feeds it (`publish`, in revision order) and says when there will be no more (`fail`); readers and watchers see
//! nothing else. It does not know where the events come from: from this process' own writer, or from a server's watch.
//!
//! ```text
//! log --publish--> state + history --announce--> watchers
//!     `--fail------> readers go on, watchers are told why
//! ```

mod cursor;
mod history;
mod state;
mod waiters;

pub(super) use cursor::Cursor;
pub use history::Limits;
pub(super) use state::State;
use waiters::Waiters;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{Entry, Event, StorageError};

/// What a log holds when it is opened: where the cache begins.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) entries: BTreeMap<Arc<str>, Arc<Entry>>,
    pub(super) revision: u64,
}

/// The state and its history, shared by the log that feeds it and by all readers.
#[derive(Debug)]
pub(super) struct WatchCache {
    state: RwLock<State>,
    waiters: Waiters,
    /// Why nothing more will come; `None` while the log works.
    failure: watch::Sender<Option<Arc<str>>>,
}

impl WatchCache {
    pub(super) fn new(snapshot: Snapshot, limits: Limits) -> Self {
        let state = State::new(snapshot.entries, snapshot.revision, limits);
        Self { state: RwLock::new(state), waiters: Waiters::default(), failure: watch::Sender::new(None) }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows durable events, which follow what is shown already, to readers.
    pub(super) fn publish(&self, events: &[Arc<Event>], now: Timestamp) {
        self.write().apply(events, now);
    }

    /// Wakes the watchers of published events. Apart from [`WatchCache::publish`], so that who waits for the answer to a
    /// write is not kept waiting by the number of watchers.
    pub(super) fn announce(&self, events: &[Arc<Event>]) {
        self.waiters.wake(events);
    }

    /// From now on there are no more events: waiting watchers are told.
    pub(super) fn fail(&self, reason: Arc<str>) {
        self.failure.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(reason);
            first
        });
        self.waiters.wake_all();
    }

    /// Why nothing more will come; `None` while the log works.
    pub(super) fn failure(&self) -> Option<Arc<str>> {
        self.failure.borrow().clone()
    }

    /// Resolves with the reason when the log has failed.
    pub(super) async fn failed(&self) -> Arc<str> {
        let mut failure = self.failure.subscribe();
        match failure.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            Err(_) => "the engine has stopped".into(),
        }
    }

    /// `Unavailable` once the log has failed.
    pub(super) fn working(&self) -> Result<(), StorageError> {
        self.failure().map_or(Ok(()), |reason| Err(StorageError::Unavailable(reason)))
    }
}
