//! The embedded engine alone against etcd: what durability, lists and watches cost below the API.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use bytes::Bytes;
use minik::storage::{self, Config, ListQuery, Payload, Store};

use crate::etcd::{Client, Etcd};
use crate::figures::{AsyncOperation, WORKERS, measure, median, print, ratio};

const PREFIX: &str = "/core/configmaps/default/";
const WATCHERS: usize = 50;

pub fn key(run: usize, n: usize) -> String {
    // Scattered over the key space, as names of real objects are.
    format!("{PREFIX}{:016x}-{run}", (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

pub fn kibibyte() -> Bytes {
    Bytes::from(vec![b'x'; 1024])
}

#[derive(Clone)]
pub struct Create(pub usize);

impl AsyncOperation<Arc<dyn Store>> for Create {
    async fn run(&self, store: &mut Arc<dyn Store>, n: usize) -> Result<()> {
        let payload = Payload { data: kibibyte(), ..Default::default() };
        store.create(key(self.0, n), payload).await?;
        Ok(())
    }
}

impl AsyncOperation<Client> for Create {
    async fn run(&self, etcd: &mut Client, n: usize) -> Result<()> {
        etcd.put(&key(self.0, n), kibibyte()).await
    }
}

pub async fn all(folder: &Path, etcd: Option<&Etcd>, creates: usize, rounds: usize) -> Result<()> {
    let path = folder.join("store.redb");
    let store = storage::open(Config::embedded(&path)).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        ours.push(measure(vec![store.clone(); WORKERS], creates, Create(round)).await?);
        if let Some(etcd) = etcd {
            theirs.push(measure(etcd.connections(WORKERS).await?, creates, Create(round)).await?);
        }
    }
    let ours = median(ours);
    print("store: create, 1 KiB, 16 writers", &ours);
    if !theirs.is_empty() {
        let theirs = median(theirs);
        print("etcd: put, 1 KiB, 16 connections", &theirs);
        ratio("store create / etcd put", ours.per_second, theirs.per_second, "0.8 or more");
    }
    lists(&store).await?;
    watchers(store.clone(), creates).await?;
    drop(store);
    let begun = Instant::now();
    let store = storage::open(Config::embedded(&path)).await?;
    let listing = store.list(ListQuery::default()).await?;
    println!("{:<44} {:>9.1} ms", format!("store: open, {} entries", listing.entries.len()), ms(begun));
    Ok(())
}

fn ms(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64() * 1e3
}

async fn lists(store: &Arc<dyn Store>) -> Result<()> {
    let query = ListQuery { prefix: PREFIX.to_owned(), limit: 2000, ..Default::default() };
    let mut times = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        ensure!(!store.list(query.clone()).await?.entries.is_empty(), "an empty list");
        times.push(ms(begun));
    }
    times.sort_by(f64::total_cmp);
    println!("{:<44} {:>9.3} ms", "store: list of up to 2,000", times[times.len() / 2]);
    Ok(())
}

/// 50 watchers of one prefix, and 16 writers at full speed.
async fn watchers(store: Arc<dyn Store>, writes: usize) -> Result<()> {
    let mut following = Vec::new();
    let writes = writes / WORKERS * WORKERS;
    for _ in 0..WATCHERS {
        let mut watch = store.watch(PREFIX.to_owned(), store.revision())?;
        following.push(tokio::task::spawn(async move {
            let mut seen = 0;
            while seen < writes {
                seen += watch.next().await?.events.len();
            }
            anyhow::Ok(seen)
        }));
    }
    let begun = Instant::now();
    measure(vec![store; WORKERS], writes, Create(usize::MAX)).await?;
    let mut told = 0;
    for watcher in futures::future::try_join_all(following).await? {
        told += watcher?;
    }
    let per_second = told as f64 / begun.elapsed().as_secs_f64();
    println!("{:<44} {per_second:>9.0} /s", "store: events to 50 watchers");
    Ok(())
}
