use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use minik::rt::{ManualClock, Tasks};
use minik::storage::{self, Config, Engine, EventKind, ListQuery, StorageError};

use super::etcd::Member;
use super::expiry::lasting;
use super::{Bench, create, data, delete, events, keys, list, text, under, update};

pub async fn a_clean_close_keeps_everything(bench: &dyn Bench) {
    if !bench.keeps() {
        return;
    }
    let dump = |listing: &storage::Listing| format!("{:?}", listing.entries);
    let store = bench.open(Default::default()).await;
    let a = create(&*store, "/core/pods/default/a", "1").await;
    let b = create(&*store, "/core/pods/default/b", "1").await;
    let a = update(&*store, &a, &"2".repeat(200_000)).await;
    create(&*store, "/core/pods/default/c", "").await;
    delete(&*store, &b).await;
    let before = list(&*store, under("")).await;
    drop(store);

    let store = bench.open(Default::default()).await;
    assert_eq!(store.revision(), 5, "a delete at the end counts");
    assert_eq!(dump(&list(&*store, under("")).await), dump(&before));
    delete(&*store, &a).await;
    drop(store);

    let store = bench.open(Default::default()).await;
    assert_eq!(keys(&list(&*store, under("")).await), ["/core/pods/default/c"]);
    assert_eq!(create(&*store, "/core/pods/default/a", "3").await.revision, 7);
}

pub async fn expiry_is_kept(bench: &dyn Bench) {
    if !bench.keeps() {
        return;
    }
    let clock = ManualClock::at(Timestamp::UNIX_EPOCH);
    let config = || Config { clock: Arc::new(clock.clone()), ..Default::default() };
    let store = bench.open(config()).await;
    for (key, seconds) in [("a", 60), ("b", 600)] {
        let payload = lasting(key, Duration::from_secs(seconds));
        store.create(format!("/core/events/default/{key}"), payload).await.expect("a create");
    }
    drop(store);
    clock.advance(SignedDuration::from_secs(100));
    let store = bench.open(config()).await;
    let mut watch = store.watch("/core/events/".to_owned(), 2).expect("a watch");
    let seen = events(&mut *watch, 1).await;
    assert_eq!(seen, [(EventKind::Delete, 3, "/core/events/default/a".to_owned(), "a".to_owned())]);
    assert!(store.get("/core/events/default/b").await.expect("a read").is_some());
}

pub async fn history_begins_anew(bench: &dyn Bench) {
    if !bench.keeps() {
        return;
    }
    let store = bench.open(Default::default()).await;
    for n in 0..3 {
        create(&*store, &format!("/core/pods/default/{n}"), "x").await;
    }
    drop(store);
    let store = bench.open(Default::default()).await;
    let before = store.watch("/core/pods/".to_owned(), 2).err();
    assert!(matches!(before, Some(StorageError::Compacted { asked: 2, oldest: 3 })), "{before:?}");
    let older = ListQuery { at: Some(2), ..under("/core/pods/") };
    assert!(matches!(store.list(older).await, Err(StorageError::Compacted { .. })));
    let mut watch = store.watch("/core/pods/".to_owned(), 3).expect("from exactly here");
    create(&*store, "/core/pods/default/3", "x").await;
    assert_eq!(events(&mut *watch, 1).await[0].1, 4);
}

/// Where the child of the tests below keeps its store: in a file, or in the etcd at an address.
const CHILD_STORE: &str = "MINIK_TEST_KILLED_STORE";
const CHILD_ETCD: &str = "MINIK_TEST_KILLED_ETCD";

/// What is killed, and where the writes are.
enum Place<'a> {
    /// The process that writes to this file.
    File(&'a Path),
    /// The process that writes to this etcd.
    Client(&'a Member),
    /// The etcd itself, under the process that writes to it.
    Etcd(&'a Member),
}

impl Place<'_> {
    fn config(&self) -> Config {
        match self {
            Self::File(path) => Config::embedded(*path),
            Self::Client(member) | Self::Etcd(member) => {
                Config { engine: Engine::Etcd(member.config()), ..Config::default() }
            }
        }
    }

    /// How the child is told.
    fn told(&self) -> (&'static str, OsString) {
        match self {
            Self::File(path) => (CHILD_STORE, path.into()),
            Self::Client(member) | Self::Etcd(member) => {
                (CHILD_ETCD, member.config().endpoints.concat().into())
            }
        }
    }
}

/// Not a test by itself: the process that is killed. It says each write on standard output once it is acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "the child process of another test"]
async fn killed_child() {
    let config = match (std::env::var_os(CHILD_STORE), std::env::var(CHILD_ETCD)) {
        (Some(path), _) => Config::embedded(path),
        (None, Ok(endpoint)) => Config { engine: Engine::Etcd(Member::at(&endpoint)), ..Config::default() },
        (None, Err(_)) => return,
    };
    let store = storage::open(config).await.expect("an openable store");
    let round = store.revision();
    let tasks = Tasks::new();
    for writer in 0..8u64 {
        let store = store.clone();
        tasks.spawn(async move {
            for step in 0u64.. {
                let key = format!("/core/pods/{writer}/{}", step % 20);
                let value = format!("{round}-{step}-").repeat(60);
                let standing = store.get(&key).await.expect("a read");
                let written = match standing {
                    None => store.create(key, text(&value)).await.expect("a create"),
                    Some(old) if step % 11 == 0 => {
                        let gone = store.delete_if(key, old.revision).await.expect("a delete");
                        say(&format!("gone {} {} -", gone.key, gone.revision));
                        continue;
                    }
                    Some(old) => store.update_if(key, old.revision, text(&value)).await.expect("an update"),
                };
                say(&format!("put {} {} {}", written.key, written.revision, data(&written)));
            }
        });
    }
    std::future::pending::<()>().await;
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ack {line}").and_then(|()| out.flush()).expect("the parent listens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    survive(&Place::File(&folder.path().join("many.redb")), 3, |_| 1_500).await;
    survive(&Place::File(&folder.path().join("few.redb")), 8, |round| 1 + 37 * round).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_a_kill_of_etcd_or_its_client() {
    let Some(member) = Member::start() else { return };
    survive(&Place::Client(&member), 3, |round| 1 + 150 * round).await;
    let Some(member) = Member::start() else { return };
    survive(&Place::Etcd(&member), 3, |round| 1 + 150 * round).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes; the short one stands above"]
async fn three_hundred_kills_lose_and_invent_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let enough = |round: usize| 1 + (round * 7919) % 400;
    survive(&Place::File(&folder.path().join("state.redb")), 300, enough).await;
    let Some(member) = Member::start() else { return };
    survive(&Place::Client(&member), 100, enough).await;
    let Some(member) = Member::start() else { return };
    survive(&Place::Etcd(&member), 100, enough).await;
}

/// Kills eight concurrent writers again and again, each time after so many acknowledgements, and looks at what
/// stands: every acknowledged write, and beside it at most the one write that each writer was waiting for.
async fn survive(place: &Place<'_>, rounds: usize, enough: impl Fn(usize) -> usize) {
    let mut expected = Acknowledged::new();
    for round in 0..rounds {
        let acknowledged = run_and_kill(place, enough(round));
        expected.extend(acknowledged);
        let store = storage::open(place.config()).await.expect("a store that opens again");
        let newest = expected.values().map(|(revision, _)| *revision).max().expect("acknowledged writes");
        assert!(store.revision() >= newest, "round {round}");
        let standing = list(&*store, under("/core/pods/")).await.entries;
        let standing: Acknowledged = standing
            .iter()
            .map(|entry| (entry.key.to_string(), (entry.revision, Some(data(entry).to_owned()))))
            .collect();
        let keys: BTreeSet<&String> = expected.keys().chain(standing.keys()).collect();
        let mut ahead: BTreeMap<&str, usize> = BTreeMap::new();
        for key in keys {
            let known = expected.get(key).cloned().unwrap_or((0, None));
            let now = standing.get(key).cloned();
            if now.as_ref().and_then(|(_, value)| value.as_ref()) == known.1.as_ref() {
                continue;
            }
            let writer = key.rsplit_once('/').expect("a path").0;
            *ahead.entry(writer).or_default() += 1;
            if let Some((revision, Some(value))) = now {
                assert!(revision > known.0, "{key} went back");
                let step = value.split_inclusive('-').take(2).collect::<String>();
                assert_eq!(value, step.repeat(60), "round {round}: {key} is nothing that was written");
            }
        }
        assert!(
            ahead.values().all(|count| *count == 1),
            "round {round}: writes are lost or invented: {ahead:?}"
        );
        let revisions: BTreeSet<u64> = standing.values().map(|(revision, _)| *revision).collect();
        assert_eq!(revisions.len(), standing.len(), "round {round}: a revision twice");
        create(&*store, &format!("/core/nodes/{round}"), "writable").await;
        // What the next round begins with; what has gone is known as gone.
        let gone = expected.keys().filter(|key| !standing.contains_key(*key));
        let gone: Vec<_> = gone.map(|key| (key.clone(), (store.revision(), None))).collect();
        expected = standing;
        expected.extend(gone);
    }
}

/// The last acknowledged write of each key: revision and value, `None` for a delete.
type Acknowledged = BTreeMap<String, (u64, Option<String>)>;

/// Starts the child, kills after `enough` acknowledgements, and returns all that came out of it.
#[allow(clippy::disallowed_types)] // a test may start itself
fn run_and_kill(place: &Place<'_>, enough: usize) -> Acknowledged {
    let (variable, value) = place.told();
    let mut child = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "storage::durability::killed_child", "--ignored", "--nocapture"])
        .env(variable, value)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child");
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut acknowledged = Acknowledged::new();
    let mut count = 0;
    let mut line = String::new();
    while out.read_line(&mut line).expect("readable output") > 0 {
        if let Some(said) = line.strip_suffix('\n').and_then(|line| line.split_once("ack ")) {
            let words: Vec<&str> = said.1.split(' ').collect();
            let revision: u64 = words[2].parse().expect("a revision");
            let value = (words[0] == "put").then(|| words[3].to_owned());
            let last = acknowledged.entry(words[1].to_owned()).or_insert((0, None));
            if revision > last.0 {
                *last = (revision, value);
            }
            count += 1;
            if count == enough {
                if let Place::Etcd(member) = place {
                    member.kill();
                }
                child.kill().expect("a killed child");
            }
        }
        line.clear();
    }
    child.wait().expect("an ended child");
    if let Place::Etcd(member) = place {
        assert!(member.run(), "etcd starts again: {}", member.log());
    }
    assert!(count >= enough, "the child ended by itself after {count} writes");
    acknowledged
}
