//! The durable log behind the watch cache: where writes are decided and kept, and where the cache's events come from.
//!
//! | log | decides and keeps | feeds the cache |
//! |---|---|---|
//! | embedded | one writer thread over a redb file | from that writer, as it commits |
//! | memory | the same writer over nothing | the same |
//! | etcd | one transaction of etcd per write | from etcd's own watch |
//!
//! Behind etcd another process may have written, and a read must first let the cache catch up: that is what
//! [`Log::catch_up`] is for.

mod codec;
mod embedded;
mod etcd;
mod local;
mod plan;
mod queue;
mod writer;

pub(super) use embedded::Embedded;
pub(super) use etcd::EtcdLog;
pub use etcd::{Etcd, Member, Members};
pub(super) use local::{Journal, LocalLog, Nowhere};
pub(super) use plan::Write;
pub use queue::QueueLimits;

use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Entry, StorageError, Turn};

/// What a write comes to.
pub(super) type Written = Result<Arc<Entry>, StorageError>;

/// A durable log. Whoever opens one gives it the cache that it feeds.
pub(super) trait Log: Send + Sync + 'static {
    /// Makes one write durable if its precondition holds; returns when the cache shows it. A caller that goes away before
    /// the log has begun to write withdraws the write.
    fn propose(&self, key: String, write: Write) -> BoxFuture<'_, Written>;

    /// A wait until the cache shows everything that was durable when this was called; `None` if it always does.
    fn catch_up(&self) -> Option<BoxFuture<'_, Result<(), StorageError>>>;

    /// As [`super::Store::turn`].
    fn turn<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, Result<Option<Turn>, StorageError>> {
        Box::pin(async { Ok(None) })
    }
}
