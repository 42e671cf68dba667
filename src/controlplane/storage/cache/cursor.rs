//! A reader's position in the history.

use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::WatchCache;
use crate::{Batch, StorageError, Watch, covers};

/// Events per batch, at most: what a reader that has fallen behind takes at once.
const BATCH: usize = 1024;

/// A position in the shared history: it holds a revision, and no events.
pub(crate) struct Cursor {
    cache: Arc<WatchCache>,
    prefix: String,
    /// Everything up to here has been handed out.
    revision: u64,
    grown: watch::Receiver<()>,
}

impl Cursor {
    /// A cursor behind `from`. `Future` or `Compacted` if the history does not reach from there.
    pub(crate) fn open(cache: Arc<WatchCache>, prefix: String, from: u64) -> Result<Self, StorageError> {
        {
            let state = cache.read();
            state.reached(from)?;
            state.history.reaches(&prefix, from)?;
        }
        let grown = cache.waiters.subscribe(&prefix);
        Ok(Self { cache, prefix, revision: from, grown })
    }

    /// What happened since the last call, without waiting.
    fn read(&mut self) -> Result<Batch, StorageError> {
        // Asked first: what was published before the failure is still handed out.
        let working = self.cache.working();
        let state = self.cache.read();
        let mut events = Vec::new();
        let mut revision = state.revision;
        if let Some(log) = state.history.log(&self.prefix) {
            for event in log.behind(self.revision)?.filter(|event| covers(&self.prefix, &event.entry.key)) {
                events.push(event.clone());
                if events.len() == BATCH {
                    revision = event.revision;
                    break;
                }
            }
        }
        drop(state);
        if events.is_empty() {
            working?;
        }
        self.revision = revision;
        Ok(Batch { events, revision })
    }
}

impl Watch for Cursor {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, StorageError>> {
        async move {
            loop {
                // Marked as seen before reading: what comes after the read wakes the wait below.
                self.grown.mark_unchanged();
                let batch = self.read()?;
                if !batch.events.is_empty() {
                    return Ok(batch);
                }
                // The cache, which this cursor keeps alive, keeps the sender while there is a receiver.
                if self.grown.changed().await.is_err() {
                    return Err(StorageError::stopped());
                }
            }
        }
        .boxed()
    }

    fn progress(&mut self) -> Result<Batch, StorageError> {
        self.read()
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.cache.waiters.unsubscribe(&self.prefix);
    }
}
