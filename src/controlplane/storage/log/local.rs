//! A log with one writer of its own, on disk or in memory.

use std::sync::Arc;
use std::thread::JoinHandle;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::plan::Write;
use super::queue::{Queue, QueueLimits, queue};
use super::writer::Writer;
use super::{Log, StorageError, Written};
use crate::Event;
use crate::cache::WatchCache;
use rt::Clock;

/// Where the writer makes a batch durable.
pub(crate) trait Journal: Send + 'static {
    /// Makes all of `events` durable, or none.
    fn commit(&mut self, events: &[Arc<Event>]) -> Result<(), StorageError>;
}

/// Forgets everything with the process.
pub(crate) struct Nowhere;

impl Journal for Nowhere {
    fn commit(&mut self, _: &[Arc<Event>]) -> Result<(), StorageError> {
        Ok(())
    }
}

/// A log that this process alone writes. Its writer is a thread of its own, because a commit blocks on the disk; it ends,
/// and the file is closed, when the log is dropped.
pub(crate) struct LocalLog {
    queue: Option<Queue>,
    writer: Option<JoinHandle<()>>,
}

impl LocalLog {
    /// Starts the writer. `Unavailable` if the system has no thread for it.
    pub(crate) fn start(
        journal: impl Journal,
        cache: Arc<WatchCache>,
        clock: Arc<dyn Clock>,
        limits: QueueLimits,
    ) -> Result<Self, StorageError> {
        let (queue, waiting) = queue(limits);
        let writer = Writer::new(cache, journal, clock, waiting);
        let writer = std::thread::Builder::new()
            .name("storage-writer".into())
            .spawn(move || writer.run())
            .map_err(StorageError::unavailable)?;
        Ok(Self { queue: Some(queue), writer: Some(writer) })
    }
}

impl Log for LocalLog {
    fn propose(&self, key: String, write: Write) -> BoxFuture<'_, Written> {
        async move {
            match &self.queue {
                Some(queue) => queue.propose(key, write).await,
                None => Err(StorageError::stopped()),
            }
        }
        .boxed()
    }

    fn catch_up(&self) -> Option<BoxFuture<'_, Result<(), StorageError>>> {
        None
    }
}

impl Drop for LocalLog {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // It ends after the commit it is at; a panic there has been reported by its thread.
            let _ = writer.join();
        }
    }
}
