//! A real etcd under the suite.

use std::fs::File;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use minik::storage::{
    self, Batch, Config, Engine, Entry, Etcd, Event, ListQuery, Listing, Payload, StorageError, Store, Turn,
    Watch,
};
use tempfile::TempDir;

use super::{Bench, PATIENCE};

/// An etcd of one member on a free port, with its data in a folder; ends when dropped.
pub struct Member {
    folder: TempDir,
    process: Mutex<Option<Child>>,
    ports: [u16; 2],
}

impl Member {
    /// Starts one; says so and returns None where etcd is not installed.
    pub fn start() -> Option<Self> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        if !std::env::split_paths(&path).any(|folder| folder.join("etcd").is_file()) {
            eprintln!("not run: etcd is not installed (Debian: etcd-server)");
            return None;
        }
        // A port that was free may have been taken by somebody else until etcd asks for it.
        for _ in 0..5 {
            let ports = [free_port(), free_port()];
            let member =
                Self { folder: tempfile::tempdir().expect("a folder"), process: Mutex::new(None), ports };
            if member.run() {
                return Some(member);
            }
        }
        panic!("etcd does not start");
    }

    /// Starts the process over the data there is; false if it ended before it took connections.
    #[allow(clippy::disallowed_types)] // a test may start its peer
    pub fn run(&self) -> bool {
        let [client, peer] = self.ports.map(|port| format!("http://127.0.0.1:{port}"));
        let log = File::create(self.folder.path().join("log")).expect("a file");
        let mut child = std::process::Command::new("etcd")
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--name", "one", "--initial-cluster", &format!("one={peer}")])
            .args(["--log-level", "error"])
            .arg("--data-dir")
            .arg(self.folder.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("etcd starts");
        let at = SocketAddr::from(([127, 0, 0, 1], self.ports[0]));
        let begun = Instant::now();
        while TcpStream::connect(at).is_err() {
            if child.try_wait().expect("a child").is_some() || begun.elapsed() > PATIENCE {
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
            // Nothing tells when a foreign program listens.
            #[allow(clippy::disallowed_methods)]
            std::thread::sleep(Duration::from_millis(10));
        }
        *self.process.lock().expect("not poisoned") = Some(child);
        true
    }

    /// Ends the process as a power cut would.
    pub fn kill(&self) {
        if let Some(mut child) = self.process.lock().expect("not poisoned").take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn config(&self) -> Etcd {
        Self::at(&format!("http://127.0.0.1:{}", self.ports[0]))
    }

    /// How the suite asks an etcd at this address.
    pub fn at(endpoint: &str) -> Etcd {
        Etcd {
            endpoints: vec![endpoint.to_owned()],
            authority_pem: None,
            identity: None,
            prefix: "/registry".to_owned(),
            spelling: str::to_owned,
            holds: |_, _| Vec::new(),
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(Path::new(self.folder.path()).join("log")).unwrap_or_default()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// A member that is paused takes connections and says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_member_is_passed_over() {
    let Some(member) = Member::start() else { return };
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut etcd = member.config();
    etcd.endpoints.insert(0, format!("http://{}", silent.local_addr().expect("an address")));
    let opened = storage::open(Config { engine: Engine::Etcd(etcd), ..Config::default() });
    let store = tokio::time::timeout(PATIENCE, opened).await.expect("in time").expect("one answers");
    let made = store.create("/core/pods/default/a".to_owned(), Payload::default());
    let made = tokio::time::timeout(PATIENCE, made).await.expect("in time").expect("made");
    let read = tokio::time::timeout(PATIENCE, store.get("/core/pods/default/a")).await.expect("in time");
    assert_eq!(read.expect("read").map(|entry| entry.revision), Some(made.revision));
}

/// Turns of one name go one after the other, whoever takes them; those of others do not concern it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_is_taken_once() {
    let Some(member) = Member::start() else { return };
    let open = || storage::open(Config { engine: Engine::Etcd(member.config()), ..Config::default() });
    let (one, two) = (open().await.expect("a store"), open().await.expect("a store"));
    let create = async |store: &Arc<dyn Store>, key: &str, turn| {
        let payload = Payload { turn, ..Payload::default() };
        store.create(format!("/core/pods/default/{key}"), payload).await
    };
    for round in 0..2 {
        let at_one = one.turn("t").await.expect("a turn");
        let at_two = two.turn("t").await.expect("a turn");
        let other = two.turn("other").await.expect("a turn");
        assert!(at_one.is_some() && at_one == at_two && at_one != other);
        create(&two, &format!("other-{round}"), other).await.expect("nobody else's");
        create(&two, &format!("free-{round}"), None).await.expect("in no turn");
        create(&one, &format!("one-{round}"), at_one).await.expect("the first in its turn");
        let late = create(&two, &format!("two-{round}"), at_two).await;
        assert!(matches!(&late, Err(StorageError::Taken(name)) if name == "t"), "{late:?}");
    }
    let listed =
        two.list(ListQuery { prefix: "/".to_owned(), ..ListQuery::default() }).await.expect("a list");
    assert_eq!(listed.entries.len(), 6, "turns are no entries");
}

impl Bench for Member {
    fn open(&self, config: Config) -> BoxFuture<'_, Arc<dyn Store>> {
        let config = Config { engine: Engine::Etcd(self.config()), ..config };
        async move {
            let store = storage::open(config).await.unwrap_or_else(|error| panic!("{error}: {}", self.log()));
            Arc::new(FromZero(store)) as Arc<dyn Store>
        }
        .boxed()
    }

    fn keeps(&self) -> bool {
        true
    }
}

/// An empty etcd is at revision 1, an empty store of our own at 0. The suite counts from 0.
struct FromZero(Arc<dyn Store>);

fn entry(entry: &Arc<Entry>) -> Arc<Entry> {
    let revision = entry.revision - 1;
    let span = entry.revision_span.as_ref().map(|span| span.start..span.start + revision.to_string().len());
    let (data, created) = (entry.data_at(revision), entry.created - 1);
    Arc::new(Entry { data, revision_span: span, revision, created, ..Entry::clone(entry) })
}

fn error(error: StorageError) -> StorageError {
    match error {
        StorageError::Conflict(standing) => StorageError::Conflict(standing.as_ref().map(entry)),
        StorageError::Compacted { asked, oldest } => {
            StorageError::Compacted { asked: asked - 1, oldest: oldest - 1 }
        }
        StorageError::Future { asked, current } => {
            StorageError::Future { asked: asked - 1, current: current - 1 }
        }
        other => other,
    }
}

fn batch(batch: Batch) -> Batch {
    let event = |event: &Arc<Event>| {
        Arc::new(Event::new(event.kind, entry(&event.entry), event.prev.as_ref().map(entry)))
    };
    Batch { events: batch.events.iter().map(event).collect(), revision: batch.revision - 1 }
}

impl Store for FromZero {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Arc<Entry>>, StorageError>> {
        async move { Ok(self.0.get(key).await.map_err(error)?.as_ref().map(entry)) }.boxed()
    }

    fn seen(&self, key: &str) -> Option<Arc<Entry>> {
        self.0.seen(key).as_ref().map(entry)
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Listing, StorageError>> {
        async move {
            let query = ListQuery { at: query.at.map(|at| at + 1), ..query };
            let listing = self.0.list(query).await.map_err(error)?;
            let entries = listing.entries.iter().map(entry).collect();
            Ok(Listing { entries, revision: listing.revision - 1, ..listing })
        }
        .boxed()
    }

    fn create(&self, key: String, payload: Payload) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>> {
        async move { self.0.create(key, payload).await.map(|made| entry(&made)).map_err(error) }.boxed()
    }

    fn update_if(
        &self,
        key: String,
        expected: u64,
        payload: Payload,
    ) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>> {
        async move {
            self.0.update_if(key, expected + 1, payload).await.map(|made| entry(&made)).map_err(error)
        }
        .boxed()
    }

    fn delete_if(&self, key: String, expected: u64) -> BoxFuture<'_, Result<Arc<Entry>, StorageError>> {
        async move { self.0.delete_if(key, expected + 1).await.map(|made| entry(&made)).map_err(error) }
            .boxed()
    }

    fn watch(&self, prefix: String, from: u64) -> Result<Box<dyn Watch>, StorageError> {
        Ok(Box::new(WatchFromZero(self.0.watch(prefix, from + 1).map_err(error)?)))
    }

    fn turn<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Turn>, StorageError>> {
        self.0.turn(name)
    }

    fn alone(&self) -> bool {
        self.0.alone()
    }

    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<(), StorageError>> {
        async move { self.0.compact(revision + 1).await.map_err(error) }.boxed()
    }

    fn revision(&self) -> u64 {
        self.0.revision() - 1
    }

    fn healthy(&self) -> Result<(), StorageError> {
        self.0.healthy()
    }

    fn failed(&self) -> BoxFuture<'_, Arc<str>> {
        self.0.failed()
    }
}

struct WatchFromZero(Box<dyn Watch>);

impl Watch for WatchFromZero {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, StorageError>> {
        async move { self.0.next().await.map(batch).map_err(error) }.boxed()
    }

    fn progress(&mut self) -> Result<Batch, StorageError> {
        self.0.progress().map(batch).map_err(error)
    }
}
