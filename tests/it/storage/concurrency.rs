use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use minik::rt::Tasks;
use minik::storage::{Entry, EventKind, ListQuery, StorageError, Store};

use super::{Bench, PATIENCE, create, data, events, list, text, under};

const WRITERS: usize = 16;

/// Runs one task per writer, and answers what they answer.
async fn writers<T, F>(store: &Arc<dyn Store>, work: impl Fn(usize, Arc<dyn Store>) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let tasks = Tasks::new();
    let running: Vec<_> = (0..WRITERS).map(|n| tasks.spawn(work(n, store.clone()))).collect();
    let ended = tokio::time::timeout(PATIENCE, futures::future::try_join_all(running)).await;
    ended.expect("writers end in time").expect("no writer fails")
}

/// Counts one up, over exactly what was read; again when somebody else was first.
async fn increment(store: &dyn Store, key: &str) {
    let mut current = store.get(key).await.expect("a read");
    loop {
        let count: u64 = current.as_ref().map_or(0, |entry| data(entry).parse().expect("a number"));
        let next = text(&(count + 1).to_string());
        let written = match &current {
            None => store.create(key.to_owned(), next).await,
            Some(seen) => store.update_if(key.to_owned(), seen.revision, next).await,
        };
        current = match written {
            Ok(_) => return,
            Err(StorageError::Conflict(standing)) => standing,
            Err(StorageError::Exists(_)) => store.get(key).await.expect("a read"),
            Err(error) => panic!("{error}"),
        };
    }
}

pub async fn no_update_is_lost(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    writers(&store, |_, store| async move {
        for _ in 0..25 {
            increment(&*store, "/core/pods/default/a").await;
        }
    })
    .await;
    let last = store.get("/core/pods/default/a").await.expect("a read").expect("an entry");
    assert_eq!(data(&last), (WRITERS * 25).to_string());
    assert_eq!(last.revision, (WRITERS * 25) as u64, "one revision for each");
}

pub async fn one_creator_wins(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    let won = writers(&store, |n, store| async move {
        let mut won = 0;
        for key in 0..30 {
            match store.create(format!("/core/pods/default/{key}"), text(&n.to_string())).await {
                Ok(_) => won += 1,
                Err(StorageError::Exists(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
        won
    })
    .await;
    assert_eq!(won.iter().sum::<usize>(), 30);
    assert_eq!(store.revision(), 30);
}

pub async fn revisions_are_unique_and_rise(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    let mine = writers(&store, |n, store| async move {
        let mut revisions = Vec::new();
        for key in 0..50 {
            let entry = create(&*store, &format!("/core/pods/{n}/{key}"), "x").await;
            assert!(store.revision() >= entry.revision, "what is acknowledged is visible");
            revisions.push(entry.revision);
        }
        revisions
    })
    .await;
    assert!(mine.iter().all(|revisions| revisions.is_sorted_by(|a, b| a < b)));
    let unique: HashSet<u64> = mine.into_iter().flatten().collect();
    assert_eq!(unique, (1..=(WRITERS * 50) as u64).collect());
}

/// Writers work on a few keys each while watchers of several widths follow, some of them slowly; each must be
/// told exactly the history, and replaying it must give the final state.
pub async fn every_watcher_sees_every_event_once_and_in_order(bench: &dyn Bench) {
    const ROUNDS: usize = 60;
    let store = bench.open(Default::default()).await;
    let tasks = Tasks::new();
    let mut watchers = Vec::new();
    for n in 0..24 {
        let (prefix, share) = [("/core/pods/", 1), ("/core/pods/3/", WRITERS), ("/", 1)][n % 3];
        let mut watch = store.watch(prefix.to_owned(), 0).expect("a watch");
        let expect = WRITERS * ROUNDS / share;
        watchers.push(tasks.spawn(async move {
            let mut seen = Vec::new();
            while seen.len() < expect {
                seen.extend(events(&mut *watch, 1).await);
                if n % 2 == 0 {
                    // A slow reader: the writers get ahead of it.
                    for _ in 0..200 {
                        tokio::task::yield_now().await;
                    }
                }
            }
            (prefix, seen)
        }));
    }
    writers(&store, |n, store| async move {
        let mut standing: [Option<Arc<Entry>>; 3] = Default::default();
        for round in 0..ROUNDS {
            let slot = &mut standing[round % 3];
            let key = format!("/core/pods/{n}/{}", round % 3);
            *slot = match slot.take() {
                None => Some(create(&*store, &key, "new").await),
                Some(old) if round % 7 == 0 => {
                    super::delete(&*store, &old).await;
                    None
                }
                Some(old) => Some(super::update(&*store, &old, &round.to_string()).await),
            };
        }
    })
    .await;
    let total = store.revision();
    assert_eq!(total as usize, WRITERS * ROUNDS);
    for watcher in watchers {
        let (prefix, seen) = tokio::time::timeout(PATIENCE, watcher).await.expect("in time").expect("an end");
        let revisions: Vec<u64> = seen.iter().map(|event| event.1).collect();
        assert!(revisions.is_sorted_by(|a, b| a < b), "{prefix}: in order, none twice");
        if prefix != "/core/pods/3/" {
            assert_eq!(revisions, (1..=total).collect::<Vec<_>>(), "{prefix}: every one");
        }
        let mut replayed = BTreeMap::new();
        for (kind, _, key, data) in seen {
            match kind {
                EventKind::Put => replayed.insert(key, data),
                EventKind::Delete => replayed.remove(&key),
            };
        }
        let listing = list(&*store, under(prefix)).await;
        let standing: BTreeMap<String, String> =
            listing.entries.iter().map(|e| (e.key.to_string(), data(e).to_owned())).collect();
        assert_eq!(replayed, standing, "{prefix}");
    }
}

/// A list's revision says exactly what is in it: a watch from there continues without gap or overlap.
pub async fn snapshots_agree_with_their_revision(bench: &dyn Bench) {
    let store = bench.open(Default::default()).await;
    writers(&store, |n, store| async move {
        for key in 0..40 {
            create(&*store, &format!("/core/pods/{n}/{key}"), "x").await;
            let listing = list(&*store, under("/core/pods/")).await;
            assert_eq!(listing.entries.len() as u64, listing.revision, "only creates: one entry each");
            let half = listing.revision / 2;
            let then = list(&*store, ListQuery { at: Some(half), ..under("/core/pods/") }).await;
            assert_eq!(then.entries.len() as u64, half);
        }
    })
    .await;
}
