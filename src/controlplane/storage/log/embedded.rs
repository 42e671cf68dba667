//! The embedded log on redb.

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

use super::local::Journal;
use super::{StorageError, codec};
use crate::cache::Snapshot;
use crate::{Entry, Event, EventKind};

/// Live entries by revision. New records always go to the right end of the tree, so a batch of writes dirties
/// a few neighbouring pages, where a table by key would dirty one page for each.
const RECORDS: TableDefinition<u64, &[u8]> = TableDefinition::new("records");
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// In `META`: the revision of the newest delete that no newer record stands above.
const REVISION: &str = "revision";
/// In `META`: the layout of the tables.
const FORMAT: &str = "format";
const CURRENT_FORMAT: u64 = 1;

/// So many records are read by more than one thread, and by how many at most.
const MANY: u64 = 4_096;
const LOADERS: usize = 4;

/// Memory for pages. Reads are answered from the engine's own state, so it only serves the writer.
const CACHE_BYTES: usize = 8 << 20;

/// A redb file. One commit is one transaction and one fsync: redb's single-phase commit, whose checksums tell
/// a torn commit from a whole one.
#[derive(Debug)]
pub(crate) struct Embedded {
    database: Database,
    buffer: Vec<u8>,
}

impl Embedded {
    /// Opens the file at `path`, or makes it. `Unavailable`, with the path, if it cannot be used.
    pub(crate) fn open(path: &Path) -> Result<(Self, Snapshot), StorageError> {
        let at =
            |error: &dyn std::fmt::Display| StorageError::unavailable(format!("{}: {error}", path.display()));
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).map_err(|e| at(&e))?;
        let fresh = !path.exists();
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|e| at(&e))?;
        if fresh {
            // A new file is durable only once its name is.
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| at(&e))?;
        }
        Self::load(database)
    }

    /// Makes a new file at `path` that holds `entries`; its revisions go on after `revision`. `Unavailable`, with the path, if it
    /// cannot be written.
    pub(crate) fn fill(path: &Path, entries: &[Arc<Entry>], revision: u64) -> Result<(), StorageError> {
        let (mut new, _) = Self::open(path)?;
        let put = |entry: &Arc<Entry>| Arc::new(Event::new(EventKind::Put, entry.clone(), None));
        new.commit(&entries.iter().map(put).collect::<Vec<_>>())?;
        new.go_on_after(revision)
    }

    /// Lets revisions go on after `revision`, if they are not there yet.
    pub(crate) fn go_on_after(&mut self, revision: u64) -> Result<(), StorageError> {
        let write = || {
            let transaction = self.database.begin_write()?;
            {
                let mut meta = transaction.open_table(META)?;
                let reached = meta.get(REVISION)?.map_or(0, |reached| reached.value());
                meta.insert(REVISION, revision.max(reached))?;
            }
            transaction.commit()?;
            Ok::<_, redb::Error>(())
        };
        write().map_err(StorageError::unavailable)
    }

    /// Drops the entries of these revisions, as if they had never been.
    pub(crate) fn discard(&mut self, revisions: impl Iterator<Item = u64>) -> Result<(), StorageError> {
        let write = || {
            let transaction = self.database.begin_write()?;
            {
                let mut records = transaction.open_table(RECORDS)?;
                for revision in revisions {
                    records.remove(revision)?;
                }
            }
            transaction.commit()?;
            Ok::<_, redb::Error>(())
        };
        write().map_err(StorageError::unavailable)
    }

    /// The same over any backend.
    #[cfg(test)]
    fn over(backend: impl redb::StorageBackend) -> Result<(Self, Snapshot), StorageError> {
        Self::load(Database::builder().create_with_backend(backend).map_err(StorageError::unavailable)?)
    }

    fn load(database: Database) -> Result<(Self, Snapshot), StorageError> {
        let format = prepare(&database).map_err(StorageError::unavailable)?;
        if format != CURRENT_FORMAT {
            return Err(StorageError::unavailable(format!(
                "the store has format {format}, this program writes {CURRENT_FORMAT}"
            )));
        }
        let loaded = read_all(&database)?;
        Ok((Self { database, buffer: Vec::new() }, loaded))
    }

    fn write(&mut self, events: &[Arc<Event>]) -> Result<(), redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            for event in events {
                if let Some(prev) = &event.prev {
                    records.remove(prev.revision)?;
                }
                if event.kind == EventKind::Put {
                    codec::encode(&event.entry, &mut self.buffer);
                    records.insert(event.revision, self.buffer.as_slice())?;
                }
            }
        }
        // A put at the end carries the revision itself; a delete leaves nothing that would.
        if let Some(last) = events.last().filter(|last| last.kind == EventKind::Delete) {
            transaction.open_table(META)?.insert(REVISION, last.revision)?;
        }
        transaction.commit()?;
        Ok(())
    }
}

impl Journal for Embedded {
    fn commit(&mut self, events: &[Arc<Event>]) -> Result<(), StorageError> {
        self.write(events).map_err(StorageError::unavailable)
    }
}

/// Makes the tables of a new file; returns the format of the one that is there.
fn prepare(database: &Database) -> Result<u64, redb::Error> {
    match database.begin_read()?.open_table(META) {
        Ok(meta) => return Ok(meta.get(FORMAT)?.map_or(0, |format| format.value())),
        Err(redb::TableError::TableDoesNotExist(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let transaction = database.begin_write()?;
    transaction.open_table(RECORDS)?;
    transaction.open_table(META)?.insert(FORMAT, CURRENT_FORMAT)?;
    transaction.commit()?;
    Ok(CURRENT_FORMAT)
}

fn read_all(database: &Database) -> Result<Snapshot, StorageError> {
    let transaction = database.begin_read().map_err(StorageError::unavailable)?;
    let meta = transaction.open_table(META).map_err(StorageError::unavailable)?;
    let deleted =
        meta.get(REVISION).map_err(StorageError::unavailable)?.map_or(0, |revision| revision.value());
    let records = transaction.open_table(RECORDS).map_err(StorageError::unavailable)?;
    let newest = records.last().map_err(StorageError::unavailable)?.map_or(0, |(at, _)| at.value());
    let many = records.len().map_err(StorageError::unavailable)? >= MANY;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(LOADERS);
    let parts = parts(newest, if many { threads as u64 } else { 1 });
    let loaded: Result<Vec<Vec<Keyed>>, StorageError> = std::thread::scope(|scope| {
        let loaders: Vec<_> =
            parts.into_iter().map(|part| scope.spawn(|| read_part(database, part))).collect();
        let join = |loader: std::thread::ScopedJoinHandle<'_, _>| match loader.join() {
            Ok(part) => part,
            Err(_) => Err(StorageError::unavailable("a part of the store could not be read")),
        };
        loaders.into_iter().map(join).collect()
    });
    // Made of all at once: runs that are in order are merged, and no key is looked up.
    let entries = loaded?.into_iter().flatten().collect();
    Ok(Snapshot { entries, revision: newest.max(deleted) })
}

/// Revisions up to `newest` in so many ranges of one length.
fn parts(newest: u64, count: u64) -> Vec<Range<u64>> {
    let length = newest / count + 1;
    (0..count).map(|part| part * length..(part + 1) * length).collect()
}

/// An entry beside its key.
type Keyed = (Arc<str>, Arc<Entry>);

/// The entries of some revisions, in the order of their keys.
fn read_part(database: &Database, part: Range<u64>) -> Result<Vec<Keyed>, StorageError> {
    let transaction = database.begin_read().map_err(StorageError::unavailable)?;
    let records = transaction.open_table(RECORDS).map_err(StorageError::unavailable)?;
    let mut entries = Vec::new();
    for record in records.range(part).map_err(StorageError::unavailable)? {
        let (at, bytes) = record.map_err(StorageError::unavailable)?;
        let at = at.value();
        let entry = codec::decode(at, bytes.value())
            .ok_or_else(|| StorageError::unavailable(format!("the record of revision {at} is malformed")))?;
        entries.push((entry.key.clone(), Arc::new(entry)));
    }
    entries.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::ops::Bound;
    use std::sync::{Mutex, PoisonError};

    use rand::rngs::SmallRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::cache::{Limits, WatchCache};
    use crate::log::{LocalLog, QueueLimits};
    use crate::store::CachedStore;
    use crate::{ListQuery, Payload, Store};
    use rt::SystemClock;

    /// A disk whose power can be cut: what was written since the last sync may or may not be there afterwards.
    #[derive(Clone, Debug, Default)]
    struct Medium(Arc<Mutex<Sectors>>);

    #[derive(Debug, Default)]
    struct Sectors {
        synced: Vec<u8>,
        seen: Vec<u8>,
        unsynced: Vec<(u64, Vec<u8>)>,
        broken: bool,
        /// How many bytes there is room for; `None`: enough.
        room: Option<u64>,
    }

    impl Medium {
        fn with<T>(&self, work: impl FnOnce(&mut Sectors) -> T) -> T {
            work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
        }

        /// A copy of what the disk may hold if the power fails now.
        fn cut_power(&self, random: &mut SmallRng) -> Self {
            self.with(|sectors| {
                let mut left = sectors.synced.clone();
                left.resize(sectors.seen.len(), 0);
                for (offset, data) in &sectors.unsynced {
                    // Torn in pieces of a sector: each made it, or not.
                    for (index, piece) in data.chunks(512).enumerate() {
                        if random.random_bool(0.5) {
                            let start = *offset as usize + index * 512;
                            left[start..start + piece.len()].copy_from_slice(piece);
                        }
                    }
                }
                let sectors = Sectors { synced: left.clone(), seen: left, ..Default::default() };
                Self(Arc::new(Mutex::new(sectors)))
            })
        }
    }

    impl Sectors {
        fn work(&self) -> io::Result<()> {
            if self.broken { Err(io::Error::other("the medium is broken")) } else { Ok(()) }
        }
    }

    impl redb::StorageBackend for Medium {
        fn len(&self) -> io::Result<u64> {
            self.with(|sectors| Ok(sectors.seen.len() as u64))
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.with(|sectors| {
                let start = offset as usize;
                let from = sectors.seen.get(start..start + out.len());
                out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            })
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.with(|sectors| {
                sectors.work()?;
                if sectors.room.is_some_and(|room| len > room) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                sectors.seen.resize(len as usize, 0);
                Ok(())
            })
        }

        fn sync_data(&self) -> io::Result<()> {
            self.with(|sectors| {
                sectors.work()?;
                sectors.synced = sectors.seen.clone();
                sectors.unsynced.clear();
                Ok(())
            })
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.with(|sectors| {
                sectors.work()?;
                let start = offset as usize;
                sectors.seen[start..start + data.len()].copy_from_slice(data);
                sectors.unsynced.push((offset, data.to_vec()));
                Ok(())
            })
        }

        fn try_lock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<bool, redb::BackendError> {
            Ok(true)
        }

        fn unlock_range(&self, _: Bound<u64>, _: Bound<u64>) -> Result<(), redb::BackendError> {
            Ok(())
        }
    }

    fn engine(medium: &Medium) -> CachedStore<LocalLog> {
        let (journal, snapshot) = Embedded::over(medium.clone()).expect("a usable medium");
        let cache = Arc::new(WatchCache::new(snapshot, Limits::default()));
        let clock = Arc::new(SystemClock);
        let log = LocalLog::start(journal, cache.clone(), clock, QueueLimits::default()).expect("a thread");
        CachedStore::new(cache, log)
    }

    fn payload(text: String) -> Payload {
        Payload { data: text.into(), ..Default::default() }
    }

    async fn state(store: &dyn Store) -> Vec<(String, u64, Vec<u8>)> {
        let listing = store.list(ListQuery::default()).await.expect("a list");
        listing.entries.iter().map(|e| (e.key.to_string(), e.revision, e.data.to_vec())).collect()
    }

    #[tokio::test]
    async fn what_was_acknowledged_survives_a_power_cut_at_any_write() {
        let mut random = SmallRng::seed_from_u64(7);
        let medium = Medium::default();
        let store = engine(&medium);
        for round in 0..60u64 {
            let key = format!("/core/configmaps/default/{}", random.random_range(0..12));
            let standing = store.get(&key).await.expect("a read");
            let payload = payload(format!("{round}").repeat(random.random_range(1..900)));
            match standing {
                None => store.create(key, payload).await.expect("a create"),
                Some(old) if random.random_bool(0.3) => {
                    store.delete_if(key, old.revision).await.expect("a delete")
                }
                Some(old) => store.update_if(key, old.revision, payload).await.expect("an update"),
            };
            let after = engine(&medium.cut_power(&mut random));
            assert_eq!(state(&after).await, state(&store).await, "round {round}");
            assert_eq!(after.revision(), round + 1);
        }
    }

    #[tokio::test]
    async fn a_broken_disk_acknowledges_nothing_and_stays_readable() {
        let medium = Medium::default();
        let store = engine(&medium);
        let first = store.create("/core/pods/a".into(), payload("1".into())).await.expect("a create");
        let mut watch = store.watch("/core/pods/".into(), first.revision).expect("a watch");
        medium.with(|sectors| sectors.broken = true);
        for _ in 0..2 {
            let refused = store.create("/core/pods/b".into(), payload("2".into())).await;
            assert!(matches!(refused, Err(StorageError::Unavailable(_))), "{refused:?}");
        }
        assert_eq!(state(&store).await.len(), 1);
        assert_eq!(store.revision(), first.revision);
        assert!(store.healthy().is_err());
        assert!(matches!(watch.next().await, Err(StorageError::Unavailable(_))));

        medium.with(|sectors| sectors.broken = false);
        let refused = store.update_if("/core/pods/a".into(), first.revision, payload("3".into())).await;
        assert!(matches!(refused, Err(StorageError::Unavailable(_))), "a failed engine does not come back");
        drop(store);
        let again = engine(&medium.cut_power(&mut SmallRng::seed_from_u64(1)));
        assert_eq!(state(&again).await[0], ("/core/pods/a".to_owned(), 1, b"1".to_vec()));
        again.create("/core/pods/c".into(), payload("4".into())).await.expect("a create after reopening");
    }

    #[tokio::test]
    async fn a_full_disk_fails_closed_says_why_and_carries_on_once_there_is_room() {
        let medium = Medium::default();
        let store = engine(&medium);
        medium.with(|sectors| sectors.room = Some(sectors.seen.len() as u64 + (1 << 20)));
        let mut written = Vec::new();
        let refused = loop {
            let key = format!("/core/pods/a/{}", written.len());
            match store.create(key.clone(), payload("x".repeat(100_000))).await {
                Ok(_) => written.push(key),
                Err(refused) => break refused,
            }
            assert!(written.len() < 1000, "the disk is never full");
        };
        assert!(matches!(refused, StorageError::Unavailable(_)), "{refused:?}");
        let why = store.failed().await;
        assert!(refused.to_string().contains(&*why), "{why}");
        assert!(store.create("/core/pods/a/later".into(), payload("1".into())).await.is_err());
        assert!(!written.is_empty() && state(&store).await.len() == written.len(), "it stays readable");
        drop(store);
        medium.with(|sectors| sectors.room = None);
        let again = engine(&medium.cut_power(&mut SmallRng::seed_from_u64(3)));
        let keys: Vec<_> = state(&again).await.into_iter().map(|(key, ..)| key).collect();
        written.sort();
        assert_eq!(keys, written, "nothing acknowledged is lost, nothing refused is there");
        again.create("/core/pods/a/later".into(), payload("1".into())).await.expect("room again");
    }

    #[test]
    fn a_store_of_many_records_is_read_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("many.redb");
        let (mut embedded, _) = Embedded::open(&path).expect("a store");
        let put = |n: u64| {
            let key = format!("/core/configmaps/default/m{}", n * 7919 % 10_007);
            let entry = Entry::written(key.into(), Payload::default(), n, n, jiff::Timestamp::UNIX_EPOCH);
            Arc::new(Event::new(EventKind::Put, Arc::new(entry), None))
        };
        let mut events: Vec<_> = (1..=MANY + 1000).map(put).collect();
        embedded.write(&events).expect("written");
        let last = events.pop().expect("an event").entry.clone();
        let gone = Event::new(EventKind::Delete, Arc::new(last.stamped(MANY + 1001)), Some(last));
        embedded.write(&[Arc::new(gone)]).expect("written");
        drop(embedded);
        let (_, snapshot) = Embedded::open(&path).expect("a store");
        assert_eq!((snapshot.revision, snapshot.entries.len()), (MANY + 1001, events.len()));
        for event in &events {
            assert_eq!(snapshot.entries[&event.entry.key].revision, event.revision);
        }
    }

    #[test]
    fn a_file_that_is_no_store_is_refused_with_its_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.redb");
        std::fs::write(&path, "not a database").expect("a file");
        let error = Embedded::open(&path).expect_err("no store").to_string();
        assert!(error.contains("state.redb"), "{error}");
    }

    #[test]
    fn a_store_opens_once_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deep/er/state.redb");
        let first = Embedded::open(&path).expect("the first");
        assert!(Embedded::open(&path).is_err());
        drop(first);
        Embedded::open(&path).expect("after the first has closed");
    }
}
