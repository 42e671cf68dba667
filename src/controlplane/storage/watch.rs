use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;

use super::state::Shared;
use super::{Batch, StorageError, Watch};

/// Events per batch, at most: what a reader that has fallen behind takes at once.
const BATCH: usize = 1024;

/// A cursor over the shared history: it holds a revision, and no events.
pub(super) struct Cursor {
    shared: Arc<Shared>,
    prefix: String,
    /// Everything up to here has been handed out.
    revision: u64,
    grown: watch::Receiver<()>,
}

impl Cursor {
    pub(super) fn open(shared: Arc<Shared>, prefix: String, from: u64) -> Result<Self, StorageError> {
        let grown = {
            let mut state = shared.write();
            state.reached(from)?;
            state.history.covers(&prefix, from)?;
            state.history.open_lane(&prefix).subscribe()
        };
        Ok(Self { shared, prefix, revision: from, grown })
    }

    /// What happened since the last call, without waiting.
    fn read(&mut self) -> Result<Batch, StorageError> {
        let state = self.shared.read();
        let mut events = Vec::new();
        let mut revision = state.revision;
        if let Some(lane) = state.history.lane(&self.prefix) {
            for event in lane.behind(self.revision)? {
                if !event.entry.key.starts_with(&self.prefix) {
                    continue;
                }
                events.push(event.clone());
                if events.len() == BATCH {
                    revision = event.revision;
                    break;
                }
            }
        }
        if let (true, Some(reason)) = (events.is_empty(), &state.failed) {
            return Err(StorageError::Unavailable(reason.clone()));
        }
        drop(state);
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
                // The sender lives in the history that this cursor keeps alive: it is never closed.
                if self.grown.changed().await.is_err() {
                    return Err(StorageError::Unavailable("the engine has stopped".into()));
                }
            }
        }
        .boxed()
    }

    fn progress(&mut self) -> Result<Batch, StorageError> {
        self.read()
    }
}
