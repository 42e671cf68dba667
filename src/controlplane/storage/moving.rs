//! Carries the present state of a store to another one, by way of a file that is an embedded store itself.
//!
//! ```text
//! any store --save--> file --put_in_place--> an embedded store
//!                      `---load--> any store, as an etcd
//! ```

use std::io;
use std::path::{Path, PathBuf};

use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};

use super::log::Embedded;
use super::{Entry, ListQuery, Payload, StorageError, Store};
use rt::{Clock, SystemClock};

/// How many writes are on their way at once.
const WRITES: usize = 64;

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// The revision whose state it is.
    pub revision: u64,
    pub entries: usize,
}

/// Writes the present state of a store into a new file at `path`.
///
/// # Errors
///
/// `Unavailable` if the store cannot be read or the file not be written.
pub async fn save(store: &dyn Store, path: PathBuf) -> Result<Saved, StorageError> {
    let listing = store.list(ListQuery::default()).await?;
    let saved = Saved { revision: listing.revision, entries: listing.entries.len() };
    blocking(move || Embedded::fill(&path, &listing.entries, saved.revision)).await?;
    Ok(saved)
}

/// Puts the file at `from` in the place of the embedded store at `to`, which nobody has open. Its revisions go on after
/// `after`, which readers of the former store may have seen; keys that `forget` names are left out.
///
/// # Errors
///
/// `Unavailable` if the file is no store; then what is at `to` stays.
pub fn put_in_place(
    from: &Path,
    to: &Path,
    after: u64,
    forget: impl Fn(&str) -> bool,
) -> Result<(), StorageError> {
    let (mut file, snapshot) = Embedded::open(from)?;
    file.go_on_after(snapshot.revision.max(after))?;
    file.discard(snapshot.entries.values().filter(|entry| forget(&entry.key)).map(|entry| entry.revision))?;
    drop(file);
    let moved = || {
        std::fs::rename(from, to)?;
        // The new name is durable once its folder is.
        to.parent().map_or(Ok(()), |folder| std::fs::File::open(folder)?.sync_all())
    };
    moved().map_err(|error: io::Error| StorageError::unavailable(format!("{}: {error}", to.display())))
}

/// Writes what the file at `path` holds into a store, whose revisions then go on after the file's: whoever has seen those
/// never sees one twice. What the store has already stays, so it can be called again after it was interrupted.
///
/// # Errors
///
/// `Unavailable` if the file is no store, or as the store's writes.
pub async fn load(path: PathBuf, store: &dyn Store) -> Result<Saved, StorageError> {
    let (_, snapshot) = blocking(move || Embedded::open(&path)).await?;
    let now = SystemClock.now();
    let payload = |entry: &Entry| Some((entry.key.to_string(), entry.payload(now)?));
    let writes: Vec<_> = snapshot.entries.values().filter_map(|entry| payload(entry)).collect();
    let entries = writes.len();
    let written = stream::iter(writes).map(|(key, payload)| async move {
        match store.create(key, payload).await {
            Ok(_) | Err(StorageError::Exists(_)) => Ok(()),
            Err(error) => Err(error),
        }
    });
    written.buffer_unordered(WRITES).try_collect::<()>().await?;
    go_on_after(snapshot.revision, store).await?;
    Ok(Saved { revision: snapshot.revision, entries })
}

/// A revision goes by with each write: keys of no meaning come and go until there were enough.
async fn go_on_after(revision: u64, store: &dyn Store) -> Result<(), StorageError> {
    let pass = |index: usize| async move {
        let key = format!("/minik.dev/passing/{index}");
        while store.revision() < revision {
            let there = match store.create(key.clone(), Payload::default()).await {
                Ok(entry) => Some(entry),
                // Of an earlier call that was interrupted.
                Err(StorageError::Exists(_)) => store.get(&key).await?,
                Err(error) => return Err(error),
            };
            if let Some(entry) = there {
                store.delete_if(key.clone(), entry.revision).await?;
            }
        }
        Ok(())
    };
    try_join_all((0..WRITES).map(pass)).await.map(drop)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StorageError> + Send + 'static,
) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work).await.map_err(StorageError::unavailable)?
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::{Config, memory, open};

    fn payload(text: &str, ttl: Option<Duration>) -> Payload {
        let data = format!("{{\"v\":\"\",\"text\":\"{text}\"}}");
        let attrs = Arc::from([("l:app".into(), text.into())]);
        Payload { data: data.into(), revision_at: Some(6), attrs, ttl, turn: None }
    }

    /// Keys, what they hold but for its revision, and how long yet.
    async fn state(store: &dyn Store) -> Vec<(String, Vec<u8>, Option<String>, bool)> {
        let listing = store.list(ListQuery::default()).await.expect("a list");
        let of = |entry: &Arc<Entry>| {
            assert!(entry.data.starts_with(format!("{{\"v\":\"{}\"", entry.revision).as_bytes()));
            let payload = entry.payload(SystemClock.now()).expect("alive");
            let app = entry.attr("l:app").map(str::to_owned);
            (entry.key.to_string(), payload.data.to_vec(), app, payload.ttl.is_some())
        };
        listing.entries.iter().map(of).collect()
    }

    async fn filled() -> Arc<dyn Store> {
        let store = memory();
        for n in 0..200 {
            let ttl = (n % 3 == 0).then_some(Duration::from_secs(3600));
            store.create(format!("/core/pods/default/p{n}"), payload("a", ttl)).await.expect("a create");
        }
        for n in 0..150 {
            let key = format!("/core/pods/default/p{n}");
            let entry = store.get(&key).await.expect("a read").expect("there");
            store.delete_if(key, entry.revision).await.expect("a delete");
        }
        store
    }

    #[tokio::test]
    async fn what_is_saved_is_loaded_and_revisions_go_on() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("saved");
        let before = filled().await;
        let saved = save(before.as_ref(), path.clone()).await.expect("saved");
        assert_eq!(saved, Saved { revision: 350, entries: 50 });

        let after = memory();
        // An earlier try came to this point.
        after.create("/core/pods/default/p199".into(), payload("a", None)).await.expect("a create");
        after.create("/minik.dev/passing/3".into(), Payload::default()).await.expect("a create");
        assert_eq!(load(path.clone(), after.as_ref()).await.expect("loaded"), saved);
        let state_of = state(after.as_ref()).await;
        assert_eq!(state_of, state(before.as_ref()).await);
        assert!(after.revision() >= 350, "{}", after.revision());
        let next = after.create("/core/pods/default/new".into(), payload("b", None)).await.expect("a create");
        assert!(next.revision > 350);
    }

    #[tokio::test]
    async fn a_file_takes_the_place_of_a_store_and_goes_on_after_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("saved"), folder.path().join("store.redb"));
        let before = filled().await;
        save(before.as_ref(), from.clone()).await.expect("saved");
        let other = open(Config::embedded(&to)).await.expect("a store");
        other.create("/core/pods/default/other".into(), payload("b", None)).await.expect("a create");
        drop(other);
        put_in_place(&from, &to, 5000, |key| key.ends_with("p199")).expect("in place");
        assert!(!from.exists());
        let store = open(Config::embedded(&to)).await.expect("a store");
        let expect: Vec<_> =
            state(before.as_ref()).await.into_iter().filter(|(key, ..)| !key.ends_with("p199")).collect();
        assert_eq!(state(store.as_ref()).await, expect);
        let next = store.create("/core/pods/default/new".into(), payload("b", None)).await.expect("a create");
        assert_eq!(next.revision, 5001);
    }

    #[tokio::test]
    async fn what_is_no_store_takes_nobody_s_place() {
        let folder = tempfile::tempdir().expect("a folder");
        let (from, to) = (folder.path().join("bad"), folder.path().join("store.redb"));
        std::fs::write(&from, "not a store").expect("a file");
        std::fs::write(&to, "whatever").expect("a file");
        assert!(put_in_place(&from, &to, 0, |_| false).is_err());
        assert_eq!(std::fs::read(&to).expect("a file"), b"whatever");
        assert!(load(from, memory().as_ref()).await.is_err());
    }
}
