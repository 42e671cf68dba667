//! Updates that try again.

use std::sync::Arc;

use super::{Change, Entry, StorageError, Store};

/// How a `guaranteed_update` ended.
#[derive(Clone, Debug)]
pub enum Updated {
    /// Created or replaced; the new state.
    Written(Arc<Entry>),
    /// Removed; the last state, stamped with the revision of the delete.
    Deleted(Arc<Entry>),
    /// Left as it was.
    Kept(Option<Arc<Entry>>),
}

impl Updated {
    /// The entry of the answer, if there is one.
    pub fn entry(&self) -> Option<&Arc<Entry>> {
        match self {
            Self::Written(entry) | Self::Deleted(entry) => Some(entry),
            Self::Kept(entry) => entry.as_ref(),
        }
    }
}

/// Applies `step` to the current state of `key` until its result is written over exactly the state it saw.
///
/// `step` is called again whenever somebody else wrote in between, so it must decide from its argument alone.
/// There is no bound on the retries and none is needed: each of them means that another writer has succeeded.
pub async fn guaranteed_update<E, F>(store: &dyn Store, key: &str, step: F) -> Result<Updated, E>
where
    E: From<StorageError>,
    F: FnMut(Option<&Entry>) -> Result<Change, E>,
{
    let current = store.get(key).await?;
    guaranteed_update_from(store, key, current, step).await
}

/// The same for a caller that has just read `current`: it saves the first read.
pub async fn guaranteed_update_from<E, F>(
    store: &dyn Store,
    key: &str,
    mut current: Option<Arc<Entry>>,
    mut step: F,
) -> Result<Updated, E>
where
    E: From<StorageError>,
    F: FnMut(Option<&Entry>) -> Result<Change, E>,
{
    loop {
        let change = step(current.as_deref())?;
        let done = match (change, &current) {
            (Change::Keep, _) | (Change::Delete, None) => return Ok(Updated::Kept(current)),
            (Change::Put(payload), None) => store.create(key.to_owned(), payload).await.map(Updated::Written),
            (Change::Put(payload), Some(seen)) => {
                store.update_if(key.to_owned(), seen.revision, payload).await.map(Updated::Written)
            }
            (Change::Delete, Some(seen)) => {
                store.delete_if(key.to_owned(), seen.revision).await.map(Updated::Deleted)
            }
        };
        current = match done {
            Ok(updated) => return Ok(updated),
            Err(StorageError::Conflict(standing)) => standing,
            Err(StorageError::Exists(_)) => store.get(key).await?,
            Err(error) => return Err(error.into()),
        };
    }
}
