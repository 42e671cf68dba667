//! Revisioned keys with watch: the trait every engine keeps, and the engines.
//!
//! It knows bytes, keys and revisions, and no Kubernetes kind. Keys are `/`-separated paths. Every
//! write gets the next revision, a `u64` that starts at 1 and never repeats or goes back, across restarts
//! too. A write that was acknowledged is durable. Readers see only durable state.
//!
//! A store is two parts: the **log** decides and keeps writes, the **watch cache** holds the present state and its recent
//! history, and is all that readers and watchers see. The log feeds the cache.
//!
//! ```text
//! propose --log: batched by one writer--> durable (one transaction, one fsync) --cache--> visible to get and list --> watchers
//! ```
//!
//! Another log is one file or folder beside `log/embedded.rs` and one arm in [`open`].

mod cache;
mod log;
mod moving;
mod record;
mod store;

pub use cache::Limits;
pub use log::{Etcd, Member, Members, QueueLimits};
pub use moving::{Saved, load, put_in_place, save};
pub use record::{Attrs, Encodings, Entry, Event, EventKind, Payload, Turn};
pub use store::{Config, Engine, memory, open};

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

/// Why a storage call did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StorageError {
    /// `create` met an existing key.
    #[error("key {0} already exists")]
    Exists(String),
    /// `update_if` or `delete_if` met another revision than expected; the entry that stands is included,
    /// `None` if the key is absent.
    #[error("key was changed by somebody else")]
    Conflict(Option<Arc<Entry>>),
    /// Another entry holds a name that this one was to hold, or was written in its turn: nothing was written.
    #[error("{0} is held by somebody else")]
    Taken(String),
    /// The revision asked for lies before the compacted one: start again from a fresh list (HTTP 410).
    #[error("revision {asked} is compacted; the oldest is {oldest}")]
    Compacted { asked: u64, oldest: u64 },
    /// The revision asked for has not been reached (HTTP 504 "Too large resource version").
    #[error("revision {asked} is in the future; the current one is {current}")]
    Future { asked: u64, current: u64 },
    /// The engine has stopped, or its disk failed; nothing was acknowledged.
    #[error("storage is unavailable: {0}")]
    Unavailable(Arc<str>),
    /// Too much waits for the disk already, or its turn did not come in time: this was not written (HTTP 429).
    #[error("too many writes wait for the disk; this one was not made")]
    Overloaded,
    /// The disk has the write and did not confirm it in time: it may come to stand or not (HTTP 504). If it does, watchers
    /// are told; if it does not, the engine has failed.
    #[error("the disk has not confirmed the write within {} s: it may still be made", waited.as_secs())]
    Undecided { waited: Duration },
}

impl StorageError {
    fn unavailable(error: impl std::fmt::Display) -> Self {
        Self::Unavailable(error.to_string().into())
    }

    fn stopped() -> Self {
        Self::Unavailable("the engine has stopped".into())
    }

    /// Why, without the words around it.
    fn reason(&self) -> Arc<str> {
        match self {
            Self::Unavailable(reason) => reason.clone(),
            other => other.to_string().into(),
        }
    }
}

/// Whether `prefix` covers `key`: a prefix that ends with a slash (or is empty) covers what stands below it, any other is
/// one key.
fn covers(prefix: &str, key: &str) -> bool {
    if prefix.is_empty() || prefix.ends_with('/') { key.starts_with(prefix) } else { key == prefix }
}

/// Tells which entries a list wants, from key and attributes alone.
pub type Filter = Arc<dyn Fn(&Entry) -> bool + Send + Sync>;

/// What a list asks for.
#[derive(Clone, Default)]
pub struct ListQuery {
    /// Keys below this, which ends with a slash or is empty; otherwise this one key.
    pub prefix: String,
    /// Start strictly behind this key (a continue token's position).
    pub after: Option<String>,
    /// The state at exactly this revision; `None`: the current one.
    pub at: Option<u64>,
    /// At most so many entries; 0: all.
    pub limit: usize,
    pub filter: Option<Filter>,
}

/// What a list returns, in key order.
#[derive(Clone, Debug)]
pub struct Listing {
    pub entries: Vec<Arc<Entry>>,
    /// The revision of the snapshot, not of the newest entry in it.
    pub revision: u64,
    /// More keys follow behind the last entry.
    pub more: bool,
    /// How many follow; `None` if not known (a filter is in use).
    pub remaining: Option<u64>,
}

/// Some events of one watch, in revision order.
#[derive(Clone, Debug)]
pub struct Batch {
    /// May be empty: then only `revision` has moved.
    pub events: Vec<Arc<Event>>,
    /// Everything up to here has been delivered: what a bookmark may say.
    pub revision: u64,
}

/// A position in the history of one prefix. Never drops an event silently: a reader that falls behind the
/// history gets `Compacted`.
pub trait Watch: Send {
    /// Waits until something under the prefix happened, and returns all of it, up to a bound per batch.
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, StorageError>>;
    /// The revision up to which the store has moved on without an event for this prefix; does not wait.
    fn progress(&mut self) -> Result<Batch, StorageError>;
}

/// A storage engine.
pub trait Store: Send + Sync + 'static {
    /// The entry at `key`, if any.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Arc<Entry>>, StorageError>>;
    /// The entry at `key`, if any, as this process saw it last: others may have written since.
    fn seen(&self, key: &str) -> Option<Arc<Entry>>;
    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Listing, StorageError>>;
    /// Writes a key that must not exist.
    fn create(&self, key: String, payload: Payload) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>>;
    /// Replaces a key that must stand at revision `expected`.
    fn update_if(
        &self,
        key: String,
        expected: u64,
        payload: Payload,
    ) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>>;
    /// Removes a key that must stand at revision `expected`; returns the last state, stamped with the revision of the delete.
    fn delete_if(&self, key: String, expected: u64) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>>;
    /// Events under `prefix` (as in [`ListQuery`]) with a revision greater than `from`.
    fn watch(&self, prefix: String, from: u64) -> Result<Box<dyn Watch>, StorageError>;
    /// The next turn of the writes that count under `name`, to be asked for before that which is counted is read. `None` where nobody
    /// else writes to the store: then who counts must see to the order itself.
    fn turn<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Turn>, StorageError>>;
    /// Forgets history up to and including `revision`.
    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<(), StorageError>>;
    /// The newest durable revision; where others write to the store, the newest that this process has seen.
    fn revision(&self) -> u64;
    /// Whether nobody else writes to the store. Otherwise any read lets this process see what others wrote before.
    fn alone(&self) -> bool;
    /// `Unavailable` once the engine can take no more writes: what a readiness check asks.
    fn healthy(&self) -> Result<(), StorageError>;
    /// Resolves, with the reason, once the engine can take no more writes; only opening it again can help.
    fn failed(&self) -> BoxFuture<'_, Arc<str>>;
}

/// Time to live of an entry, counted from its last write; kept across restarts.
pub type Ttl = Option<Duration>;
