//! Clients that write, read and watch ConfigMaps through servers, and note down what they were told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions, WatchParams};
use kube::core::WatchEvent;
use kube::{Api, Client, Error, ResourceExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{Did, Op, Outcome, Told, Version, Watched};

/// Where the ConfigMaps are.
pub const NAMESPACE: &str = "default";
/// All of ours have this label.
const OURS: &str = "history=kept";
/// So few that clients meet.
const KEYS: usize = 8;
/// A question without an answer is given up then.
const PATIENCE: Duration = Duration::from_secs(8);
/// A watch on which nothing comes for so long is opened again.
const SILENT: Duration = Duration::from_secs(15);
/// Between a client's rounds, and attempts of a watch.
const PACE: Duration = Duration::from_millis(50);
/// The key that is written last.
const LAST: &str = "last";

/// What all clients have noted down, and whether they are to go on.
#[derive(Clone)]
pub struct Record {
    start: Instant,
    ops: Arc<Mutex<Vec<Op>>>,
    stop: watch::Sender<bool>,
    /// The revision of the last write of all.
    last: watch::Sender<Option<u64>>,
}

impl Record {
    pub fn begin() -> Self {
        let (stop, last) = (watch::Sender::new(false), watch::Sender::new(None));
        Self { start: Instant::now(), ops: Arc::default(), stop, last }
    }

    /// No client begins another round from now on.
    pub fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Waits until every watcher knows where it begins: what is written before that nobody would be told of.
    pub async fn watched_by(&self, watchers: usize) {
        let all = async {
            while self.ops().len() < watchers {
                tokio::time::sleep(PACE).await;
            }
        };
        timeout(PATIENCE * 4, all).await.expect("watchers begin");
    }

    pub fn ops(&self) -> Vec<Op> {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, key: &str, begun: Instant, did: Did) {
        let [begun, ended] = [begun, Instant::now()].map(|at| at - self.start);
        let op = Op { key: key.to_owned(), begun, ended, did };
        self.ops.lock().unwrap_or_else(PoisonError::into_inner).push(op);
    }
}

fn maps(client: &Client) -> Api<ConfigMap> {
    Api::namespaced(client.clone(), NAMESPACE)
}

fn revision(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).expect("a revision")
}

fn version(map: &ConfigMap) -> Version {
    let value = map.data.as_ref().and_then(|data| data.get("v")).cloned();
    (revision(map.metadata.resource_version.as_deref()), value.unwrap_or_default())
}

fn map(key: &str, value: &str, over: Option<u64>) -> ConfigMap {
    let mut map = ConfigMap::default();
    map.metadata.name = Some(key.to_owned());
    map.metadata.labels = Some([("history".to_owned(), "kept".to_owned())].into());
    map.metadata.resource_version = over.map(|over| over.to_string());
    map.data = Some([("v".to_owned(), value.to_owned())].into());
    map
}

/// What a refusal means: only some are sure.
fn failed(error: &Error) -> Outcome {
    match error {
        Error::Api(status) if (400..500).contains(&status.code) => Outcome::Refused,
        _ => Outcome::Unknown,
    }
}

/// Reads keys and writes over what it has read, until told to stop. Values begin with `name`, which no other client has.
pub async fn client(name: String, client: Client, record: Record, seed: u64) {
    let (api, mut random, stop) = (maps(&client), StdRng::seed_from_u64(seed), record.stop.subscribe());
    let mut rounds = tokio::time::interval(PACE);
    for round in 0.. {
        rounds.tick().await;
        if *stop.borrow() {
            return;
        }
        let key = format!("k{}", random.random_range(0..KEYS));
        if random.random_range(0..10) == 0 {
            list(&api, &record).await;
        }
        let Some(found) = read(&api, &record, &key).await else { continue };
        let over = found.map(|version| version.0);
        let value =
            Some(format!("{name}-{round}")).filter(|_| over.is_none() || random.random_range(0..6) > 0);
        write(&api, &record, &key, over, value).await;
    }
}

/// How a key stands; `None` if nobody says it.
async fn read(api: &Api<ConfigMap>, record: &Record, key: &str) -> Option<Option<Version>> {
    let begun = Instant::now();
    let found = timeout(PATIENCE, api.get_opt(key)).await.ok()?.ok()?.as_ref().map(version);
    record.note(key, begun, Did::Read(found.clone()));
    Some(found)
}

async fn list(api: &Api<ConfigMap>, record: &Record) -> Option<u64> {
    let begun = Instant::now();
    let list = timeout(PATIENCE, api.list(&ListParams::default().labels(OURS))).await.ok()?.ok()?;
    let revision = revision(list.metadata.resource_version.as_deref());
    let found: BTreeMap<String, Version> =
        list.items.iter().map(|map| (map.name_any(), version(map))).collect();
    record.note("", begun, Did::Listed { revision, found });
    Some(revision)
}

async fn write(
    api: &Api<ConfigMap>,
    record: &Record,
    key: &str,
    over: Option<u64>,
    value: Option<String>,
) -> Outcome {
    let begun = Instant::now();
    let writing = async {
        match (&value, over) {
            (Some(value), None) => api.create(&PostParams::default(), &map(key, value, None)).await.map(Some),
            (Some(value), Some(_)) => {
                api.replace(key, &PostParams::default(), &map(key, value, over)).await.map(Some)
            }
            (None, over) => {
                let resource_version = over.map(|over| over.to_string());
                let only = Preconditions { resource_version, uid: None };
                let how = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
                api.delete(key, &how).await.map(|_| None)
            }
        }
    };
    let outcome = match timeout(PATIENCE, writing).await {
        Ok(Ok(written)) => Outcome::Done(written.as_ref().map(|map| version(map).0)),
        Ok(Err(error)) => failed(&error),
        Err(_) => Outcome::Unknown,
    };
    record.note(key, begun, Did::Wrote { over, value, outcome: outcome.clone() });
    outcome
}

/// Writes the last key, after which nobody writes. Again until it is acknowledged: the cluster has healed, and has a while for it.
pub async fn close(client: &Client, record: &Record) {
    let api = maps(client);
    for attempt in 0..60 {
        if let Some(found) = read(&api, record, LAST).await {
            let over = found.map(|version| version.0);
            let value = Some(format!("{LAST}-{attempt}"));
            if let Outcome::Done(at) = write(&api, record, LAST, over, value).await {
                record.last.send_replace(at);
                return;
            }
        }
        tokio::time::sleep(PACE * 20).await;
    }
    panic!("the last write is not taken");
}

/// Follows all keys until the last one has been written; goes on where it was when a watch breaks off, and from
/// a list when there is no going on.
pub async fn watcher(client: Client, record: Record) -> Vec<Watched> {
    let api = maps(&client);
    let (mut all, mut now): (Vec<Watched>, Option<Watched>) = (Vec::new(), None);
    loop {
        let Some(mut watched) = now.take() else {
            match list(&api, &record).await {
                Some(from) => now = Some(Watched { from, until: from, told: Vec::new() }),
                None => tokio::time::sleep(PACE).await,
            }
            continue;
        };
        match follow(&api, &mut watched, &record).await {
            Ended::Broken => {
                tokio::time::sleep(PACE).await;
                now = Some(watched);
            }
            Ended::Behind => all.push(watched),
            Ended::Last => {
                all.push(watched);
                return all;
            }
        }
    }
}

/// Why one watch has ended.
enum Ended {
    /// Another one goes on where it was.
    Broken,
    /// What comes next is no longer there.
    Behind,
    /// There is no more to come.
    Last,
}

async fn follow(api: &Api<ConfigMap>, watched: &mut Watched, record: &Record) -> Ended {
    let how = WatchParams::default().labels(OURS).timeout(120);
    let opened = timeout(PATIENCE, api.watch(&how, &watched.until.to_string())).await;
    let Ok(Ok(stream)) = opened else { return Ended::Broken };
    let (mut stream, mut last) = (std::pin::pin!(stream), record.last.subscribe());
    loop {
        let until = watched.until;
        let event = tokio::select! {
            event = timeout(SILENT, stream.next()) => event,
            _ = last.wait_for(|last| last.is_some_and(|last| last <= until)) => return Ended::Last,
        };
        let Ok(Some(Ok(event))) = event else { return Ended::Broken };
        let (map, there) = match event {
            WatchEvent::Added(map) | WatchEvent::Modified(map) => (map, true),
            WatchEvent::Deleted(map) => (map, false),
            WatchEvent::Bookmark(mark) => {
                watched.until = watched.until.max(revision(Some(&mark.metadata.resource_version)));
                continue;
            }
            WatchEvent::Error(status) if status.code == 410 => return Ended::Behind,
            WatchEvent::Error(_) => return Ended::Broken,
        };
        let (revision, value) = version(&map);
        watched.told.push(Told { revision, key: map.name_any(), value: Some(value).filter(|_| there) });
        watched.until = watched.until.max(revision);
    }
}
