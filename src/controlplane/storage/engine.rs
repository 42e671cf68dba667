use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::oneshot;

use super::disk::{Disk, Journal, Loaded, Nowhere};
use super::history::Limits;
use super::plan::Write;
use super::state::{Shared, State};
use super::watch::Cursor;
use super::writer::{Proposal, Writer};
use super::{Entry, ListQuery, Listing, Payload, StorageError, Store, Watch};
use crate::rt::{Clock, SystemClock};

/// What an engine may be told.
#[derive(Clone)]
pub struct Options {
    /// How much history watchers and lists at older revisions can reach back to.
    pub history: Limits,
    /// What times to live are counted by.
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self { history: Limits { events: 100_000, bytes: 64 << 20 }, clock: Arc::new(SystemClock) }
    }
}

/// Opens the store in the file at `path`, or makes a new one there. `Unavailable` if the file cannot be used.
pub fn open(path: &Path, options: Options) -> Result<Arc<dyn Store>, StorageError> {
    let (disk, loaded) = Disk::open(path)?;
    Ok(Arc::new(Engine::start(disk, loaded, options)?))
}

/// A store that is gone with the process; for tests.
pub fn memory() -> Arc<dyn Store> {
    memory_with(Options::default())
}

/// The same, with options.
pub fn memory_with(options: Options) -> Arc<dyn Store> {
    Arc::new(Engine::start(Nowhere, Loaded::default(), options).expect("the system can start a thread"))
}

/// Readers' and writers' side of the embedded engine. Its writer is a thread of its own, because a commit
/// blocks on the disk; it ends, and the file is closed, when the engine is dropped.
pub(super) struct Engine {
    shared: Arc<Shared>,
    proposals: Option<mpsc::Sender<Proposal>>,
    writer: Option<JoinHandle<()>>,
}

impl Engine {
    pub(super) fn start(
        journal: impl Journal,
        loaded: Loaded,
        options: Options,
    ) -> Result<Self, StorageError> {
        let state = State::new(loaded.entries, loaded.revision, options.history);
        let shared = Arc::new(Shared::new(state));
        let (proposals, waiting) = mpsc::channel();
        let writer = Writer::new(shared.clone(), journal, options.clock, waiting);
        let writer = std::thread::Builder::new()
            .name("storage-writer".into())
            .spawn(move || writer.run())
            .map_err(super::disk::unavailable)?;
        Ok(Self { shared, proposals: Some(proposals), writer: Some(writer) })
    }

    async fn propose(&self, key: String, write: Write) -> Result<Arc<Entry>, StorageError> {
        let (answer, answered) = oneshot::channel();
        let proposal = Proposal { key, write, answer };
        let stopped = || StorageError::Unavailable("the engine has stopped".into());
        self.proposals.as_ref().ok_or_else(stopped)?.send(proposal).map_err(|_| stopped())?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.proposals = None;
        if let Some(writer) = self.writer.take() {
            // It ends after the commit it is at; a panic there has been reported by its thread.
            let _ = writer.join();
        }
    }
}

impl Store for Engine {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Arc<Entry>>, StorageError>> {
        async move { Ok(self.shared.read().get(key).cloned()) }.boxed()
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Listing, StorageError>> {
        async move { self.shared.read().list(&query) }.boxed()
    }

    fn create(&self, key: String, payload: Payload) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>> {
        self.propose(key, Write::Create(payload)).boxed()
    }

    fn update_if(
        &self,
        key: String,
        expected: u64,
        payload: Payload,
    ) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>> {
        self.propose(key, Write::UpdateIf(expected, payload)).boxed()
    }

    fn delete_if(&self, key: String, expected: u64) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>> {
        self.propose(key, Write::DeleteIf(expected)).boxed()
    }

    fn watch(&self, prefix: String, from: u64) -> Result<Box<dyn Watch>, StorageError> {
        Ok(Box::new(Cursor::open(self.shared.clone(), prefix, from)?))
    }

    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<(), StorageError>> {
        async move {
            let mut state = self.shared.write();
            state.reached(revision)?;
            state.history.compact(revision);
            Ok(())
        }
        .boxed()
    }

    fn revision(&self) -> u64 {
        self.shared.read().revision
    }

    fn healthy(&self) -> Result<(), StorageError> {
        match &self.shared.read().failed {
            Some(reason) => Err(StorageError::Unavailable(reason.clone())),
            None => Ok(()),
        }
    }
}
