//! A log that others write, too: what a cache over a shared server must do, tried with a server that is a list.

use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use super::*;
use crate::log::Written;
use crate::{Event, EventKind};
use rt::Tasks;

/// The server: every event that any client has written, in order, and a signal that there are more.
#[derive(Default)]
struct Server {
    events: Mutex<Vec<Arc<Event>>>,
    grown: watch::Sender<u64>,
}

impl Server {
    fn events(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Event>>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides as a transaction of the server would.
    fn write(&self, key: String, write: Write) -> Written {
        let mut events = self.events();
        let last = events.iter().rev().find(|event| *event.entry.key == *key);
        let prev = last.filter(|event| event.kind == EventKind::Put).map(|event| event.entry.clone());
        let revision = events.len() as u64 + 1;
        let (kind, entry) = match (write, &prev) {
            (Write::Create(_), Some(_)) => return Err(StorageError::Exists(key)),
            (Write::Create(payload), None) => {
                let key = key.into();
                (EventKind::Put, Entry::written(key, payload, revision, revision, Timestamp::UNIX_EPOCH))
            }
            (Write::UpdateIf(expected, payload), Some(prev)) if prev.revision == expected => {
                let created = prev.created;
                (
                    EventKind::Put,
                    Entry::written(key.into(), payload, revision, created, Timestamp::UNIX_EPOCH),
                )
            }
            (Write::DeleteIf(expected), Some(prev)) if prev.revision == expected => {
                (EventKind::Delete, prev.stamped(revision))
            }
            _ => return Err(StorageError::Conflict(prev)),
        };
        let entry = Arc::new(entry);
        events.push(Arc::new(Event::new(kind, entry.clone(), prev)));
        drop(events);
        self.grown.send_replace(revision);
        Ok(entry)
    }
}

/// One process' log: it decides at the server, and its cache is fed by the server's watch.
struct Remote {
    server: Arc<Server>,
    cache: Arc<WatchCache>,
}

impl Remote {
    async fn shown(&self, revision: u64) -> Result<(), StorageError> {
        let mut watch = Cursor::open(self.cache.clone(), String::new(), 0)?;
        while self.cache.read().revision < revision {
            watch.next().await?;
        }
        Ok(())
    }
}

impl Log for Remote {
    fn propose(&self, key: String, write: Write) -> BoxFuture<'_, Written> {
        async move {
            let written = self.server.write(key, write)?;
            self.shown(written.revision).await?;
            Ok(written)
        }
        .boxed()
    }

    fn catch_up(&self) -> Option<BoxFuture<'_, Result<(), StorageError>>> {
        let durable = self.server.events().len() as u64;
        Some(self.shown(durable).boxed())
    }
}

fn client(server: &Arc<Server>, tasks: &Tasks) -> CachedStore<Remote> {
    let cache = Arc::new(WatchCache::new(Snapshot::default(), Limits::default()));
    let (feed, from) = (cache.clone(), server.clone());
    tasks.spawn_until_stop(async move {
        let mut grown = from.grown.subscribe();
        loop {
            let seen = feed.read().revision as usize;
            let new: Vec<_> = from.events()[seen..].to_vec();
            feed.publish(&new, Timestamp::UNIX_EPOCH);
            feed.announce(&new);
            if grown.changed().await.is_err() {
                return;
            }
        }
    });
    CachedStore::new(cache.clone(), Remote { server: server.clone(), cache })
}

/// Counts one up, over exactly what was read; again when somebody else was first.
async fn increment(store: &dyn Store) -> Arc<Entry> {
    const KEY: &str = "/core/pods/default/a";
    loop {
        let current = store.get(KEY).await.expect("a read");
        let count: u64 = current
            .as_ref()
            .map_or(0, |entry| String::from_utf8_lossy(&entry.data).parse().expect("a number"));
        let next = Payload { data: (count + 1).to_string().into(), ..Default::default() };
        let written = match current {
            None => store.create(KEY.to_owned(), next).await,
            Some(seen) => store.update_if(KEY.to_owned(), seen.revision, next).await,
        };
        match written {
            Ok(entry) => return entry,
            Err(StorageError::Conflict(_) | StorageError::Exists(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stores_over_one_server_read_each_others_writes_and_lose_none() {
    let (server, tasks) = (Arc::new(Server::default()), Tasks::new());
    let stores: Vec<Arc<dyn Store>> = (0..3).map(|_| Arc::new(client(&server, &tasks)) as _).collect();
    let writers = stores.iter().map(|store| {
        let store = store.clone();
        tasks.spawn(async move {
            for _ in 0..20 {
                increment(&*store).await;
            }
        })
    });
    futures::future::try_join_all(writers.collect::<Vec<_>>()).await.expect("writers end");
    let written = increment(&*stores[0]).await;
    assert_eq!((&written.data[..], written.revision), (&b"61"[..], 61));
    for store in &stores {
        let read = store.get("/core/pods/default/a").await.expect("a read").expect("an entry");
        assert_eq!(read.revision, 61, "a read sees what another process wrote before");
        let mut watch = store.watch("/core/pods/".into(), 0).expect("a watch");
        assert_eq!(watch.next().await.expect("a batch").events.len(), 61);
    }
    tasks.drain(std::time::Duration::from_secs(10)).await.expect("tasks end");
}
