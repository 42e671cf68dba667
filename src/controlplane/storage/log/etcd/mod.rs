//! The log on etcd: writes are decided there, one transaction each, and what comes of them, or of other servers' writes,
//! comes back by one watch over all of etcd and feeds the cache.
//!
//! ```text
//! propose --transaction--> etcd --watch--> follower --> cache --> the proposer is told
//!                            `--watch--> the follower of every other server
//! ```
//!
//! A write has a transaction of its own because it has a revision of its own; etcd makes many durable with one fsync all
//! the same. An entry's revision is etcd's. The watch covers all keys, not only ours: then every revision that etcd names is
//! seen to pass, and a read knows when the cache has caught up.

mod client;
mod expiry;
mod follow;
mod members;
mod names;

#[allow(clippy::all, clippy::pedantic)]
mod rpc {
    tonic::include_proto!("etcdserverpb");
}

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::Timestamp;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot, watch};

use self::client::{AGAIN, ATTEMPT, CallError, Client, UNDECIDED};
use self::expiry::Expiries;
pub use self::members::{Member, Members};
use super::plan::Write;
use super::{Log, QueueLimits, StorageError, Written, codec};
use crate::cache::{Snapshot, WatchCache};
use crate::{Config, Entry, Payload, Turn};
use pki::Identity;
use rt::{Clock, Tasks};

/// Keys read at once when the log is opened.
const PAGE: i64 = 2_000;
/// What is read must be answered within this.
const READ: Duration = Duration::from_secs(10);
/// What is as old as this is compacted, as upstream's API server does.
const COMPACT: Duration = Duration::from_secs(300);

/// Which etcd, and how it is reached.
#[derive(Clone)]
pub struct Etcd {
    /// Its members' URLs, `http://` or `https://`.
    pub endpoints: Vec<String>,
    /// Who signs the members' certificates, PEM.
    pub authority_pem: Option<String>,
    /// Who this server is to them.
    pub identity: Option<Identity>,
    /// All keys begin with this.
    pub prefix: String,
    /// How a key is spelled behind the prefix.
    pub spelling: fn(&str) -> String,
    /// Names that an entry holds, by its key and data. No two entries can hold one name, whichever servers write them: who
    /// tries is told [`StorageError::Taken`].
    pub holds: fn(&str, &[u8]) -> Vec<String>,
}

/// A log that several servers share.
pub(crate) struct EtcdLog {
    shared: Arc<Shared>,
    questions: mpsc::UnboundedSender<oneshot::Sender<Result<u64, StorageError>>>,
    tasks: Tasks,
}

struct Shared {
    client: Client,
    cache: Arc<WatchCache>,
    clock: Arc<dyn Clock>,
    prefix: String,
    spelling: fn(&str) -> String,
    holds: fn(&str, &[u8]) -> Vec<String>,
    limits: QueueLimits,
    /// How many writes, and how many KiB of them, may be on their way.
    writes: Semaphore,
    kib: Semaphore,
    /// The revision that the cache shows.
    shown: watch::Sender<u64>,
    expiries: Expiries,
    /// What tells one write from another that puts the same.
    marks: AtomicU64,
}

impl EtcdLog {
    /// Reads all there is and follows what changes. `Unavailable` if no member answers, or a record cannot be read.
    pub(crate) async fn open(etcd: &Etcd, config: &Config) -> Result<(Arc<WatchCache>, Self), StorageError> {
        let client = Client::new(etcd)?;
        // Finds a member that answers: all that follows asks that one.
        client.newest().await.map_err(|error| unreadable(&error))?;
        let snapshot = read_all(&client, &etcd.prefix).await?;
        let revision = snapshot.revision;
        let expiries = Expiries::of(snapshot.entries.values());
        let cache = Arc::new(WatchCache::new(snapshot, config.history));
        let shared = Arc::new(Shared {
            client,
            cache: cache.clone(),
            clock: config.clock.clone(),
            prefix: etcd.prefix.clone(),
            spelling: etcd.spelling,
            holds: etcd.holds,
            limits: config.queue,
            writes: Semaphore::new(config.queue.writes),
            kib: Semaphore::new(config.queue.bytes.div_ceil(1024)),
            shown: watch::Sender::new(revision),
            expiries,
            marks: AtomicU64::new(RandomState::new().build_hasher().finish()),
        });
        let tasks = Tasks::new();
        let (questions, asked) = mpsc::unbounded_channel();
        tasks.spawn_until_stop(follow::run(shared.clone()));
        tasks.spawn_until_stop(expiry::run(shared.clone()));
        tasks.spawn_until_stop(answer(shared.clone(), asked));
        tasks.spawn_until_stop(compact(shared.clone()));
        Ok((cache, Self { shared, questions, tasks }))
    }
}

impl Log for EtcdLog {
    fn propose(&self, key: String, write: Write) -> BoxFuture<'_, Written> {
        async move {
            // What has expired is gone, though its time has not come to be deleted. While etcd takes nothing, this is told that.
            let _ = tokio::time::timeout(ATTEMPT, self.shared.expire_due()).await;
            self.shared.write(key, write).await
        }
        .boxed()
    }

    fn catch_up(&self) -> Option<BoxFuture<'_, Result<(), StorageError>>> {
        let catching_up = async move {
            self.shared.cache.working()?;
            let (answer, newest) = oneshot::channel();
            self.questions.send(answer).map_err(|_| StorageError::stopped())?;
            let newest = newest.await.map_err(|_| StorageError::stopped())??;
            let shown = tokio::time::timeout(READ, self.shared.show(newest)).await;
            shown.map_err(|_| StorageError::unavailable("etcd's changes do not arrive"))?
        };
        Some(catching_up.boxed())
    }

    fn turn<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Turn>, StorageError>> {
        async move { self.shared.turn(name).await.map(Some) }.boxed()
    }
}

impl Drop for EtcdLog {
    fn drop(&mut self) {
        self.tasks.stop().cancel();
    }
}

impl Shared {
    fn path(&self, key: &str) -> Vec<u8> {
        let mut path = self.prefix.clone();
        path.push_str(&(self.spelling)(key));
        path.into_bytes()
    }

    /// Waits until the cache shows `revision`.
    async fn show(&self, revision: u64) -> Result<(), StorageError> {
        let mut shown = self.shown.subscribe();
        tokio::select! {
            reached = shown.wait_for(|shown| *shown >= revision) => {
                reached.map(drop).map_err(|_| StorageError::stopped())
            }
            reason = self.cache.failed() => Err(StorageError::Unavailable(reason)),
        }
    }

    /// Room for one more write on its way; `Overloaded` if there is none.
    fn room(&self, write: &Write) -> Result<(SemaphorePermit<'_>, SemaphorePermit<'_>), StorageError> {
        let kib = u32::try_from(write.size().div_ceil(1024)).unwrap_or(u32::MAX);
        let writes = self.writes.try_acquire().map_err(|_| StorageError::Overloaded)?;
        let kib = self.kib.try_acquire_many(kib).map_err(|_| StorageError::Overloaded)?;
        Ok((writes, kib))
    }

    async fn write(&self, key: String, write: Write) -> Written {
        self.cache.working()?;
        let _room = self.room(&write)?;
        let patience = self.limits.patience;
        let undecided = || StorageError::Undecided { waited: patience };
        let made = tokio::time::timeout(patience, self.decide(key, write)).await.map_err(|_| undecided())?;
        let (seen, written) = made?;
        // Whoever was refused must see why as soon as they look.
        match tokio::time::timeout(patience, self.show(seen)).await {
            Ok(shown) => shown?,
            Err(_) => return Err(undecided()),
        }
        written
    }

    /// What etcd makes of a write, and the revision at which that can be seen.
    async fn decide(&self, key: String, write: Write) -> Result<(u64, Written), StorageError> {
        let now = self.clock.now();
        let path: bytes::Bytes = self.path(&key).into();
        let names = self.names(&key, &write);
        let mut request = self.transaction(&key, path.clone(), &write, now).await?;
        let value = put_value(&request);
        self.add_names(&mut request, &names, &path);
        let turn = write.turn().cloned();
        if let Some(turn) = &turn {
            self.add_turn(&mut request, turn, &path).await?;
        }
        let standing = self.cache.read().get(&key).cloned();
        let begun = tokio::time::Instant::now();
        let (answer, repeated) = self.send(request).await?;
        let revision = answer.header.as_ref().map_or(0, |header| header.revision as u64);
        let mut responses = answer.responses.into_iter();
        let found = responses.next().and_then(|response| response.response);
        if !answer.succeeded && repeated && is_own(found.as_ref(), value.as_ref()) {
            return Ok((revision, own(&write, before(found)?, standing, revision)));
        }
        if !answer.succeeded && repeated {
            // It may have been made, and what it made been written over since.
            return Ok((revision, Err(StorageError::Undecided { waited: begun.elapsed() })));
        }
        let before = before(found)?;
        if !answer.succeeded {
            let stands = before.as_ref().map(|entry| entry.revision);
            let refused = match write {
                Write::Create(_) if stands.is_some() => StorageError::Exists(key),
                Write::UpdateIf(expected, _) | Write::DeleteIf(expected) if stands != Some(expected) => {
                    StorageError::Conflict(before)
                }
                _ => {
                    let taken = self.taken(names, responses).await;
                    let whose = taken.or_else(|| Some(turn?.name.to_string()));
                    StorageError::Taken(whose.unwrap_or_default())
                }
            };
            return Ok((revision, Err(refused)));
        }
        let entry = match (write, before) {
            (Write::Create(payload), _) => Entry::written(key.into(), payload, revision, revision, now),
            (Write::UpdateIf(_, payload), Some(before)) => {
                Entry::written(before.key.clone(), payload, revision, before.created, now)
            }
            (Write::DeleteIf(_), Some(before)) => before.stamped(revision),
            (_, None) => return Err(StorageError::unavailable("etcd did not say what stood before")),
        };
        Ok((revision, Ok(Arc::new(entry))))
    }

    /// Sends a transaction until etcd has decided; says whether it was sent more than once. That is safe: each says at what revision
    /// its key must stand, so at most one of them is carried out. A leader that is lost takes with it what it was just told, and the
    /// next one answers soon after.
    async fn send(&self, request: rpc::TxnRequest) -> Result<(rpc::TxnResponse, bool), StorageError> {
        let begun = tokio::time::Instant::now();
        let (mut repeated, mut failures) = (false, 0);
        loop {
            failures += 1;
            let undecided = || StorageError::Undecided { waited: begun.elapsed() };
            match self.client.txn(request.clone()).await {
                Ok(answer) => return Ok((answer, repeated)),
                Err(CallError::Refused(_)) if repeated => return Err(undecided()),
                Err(error @ CallError::Refused(_)) => return Err(self.trouble(error)),
                Err(CallError::Unreached(_)) => {}
                Err(CallError::Unknown(_)) => repeated = true,
            }
            // Who knows what is newest has a leader, and is asked next.
            match self.client.newest().await {
                Err(_) if repeated => return Err(undecided()),
                Err(error) => return Err(unreadable(&error)),
                Ok(_) if begun.elapsed() < UNDECIDED => {}
                Ok(_) => return Err(undecided()),
            }
            // The first time at once: the leader is another one by now.
            tokio::time::sleep(AGAIN.delay(failures - 1)).await;
        }
    }

    async fn transaction(
        &self,
        key: &str,
        path: bytes::Bytes,
        write: &Write,
        now: Timestamp,
    ) -> Result<rpc::TxnRequest, StorageError> {
        use rpc::compare::TargetUnion;
        use rpc::request_op::Request;
        let expected = match write {
            Write::Create(_) => TargetUnion::CreateRevision(0),
            Write::UpdateIf(expected, _) | Write::DeleteIf(expected) => {
                TargetUnion::ModRevision(*expected as i64)
            }
        };
        let change = match write {
            Write::Create(payload) | Write::UpdateIf(_, payload) => {
                let (value, lease) = self.record(key, payload, now).await?;
                Request::RequestPut(rpc::PutRequest { key: path.clone(), value, lease, prev_kv: true })
            }
            Write::DeleteIf(_) => {
                Request::RequestDeleteRange(rpc::DeleteRangeRequest { key: path.clone(), prev_kv: true })
            }
        };
        let look = Request::RequestRange(rpc::RangeRequest { key: path.clone(), ..Default::default() });
        Ok(rpc::TxnRequest {
            compare: vec![names::equal(path, expected)],
            success: vec![names::step(change)],
            failure: vec![names::step(look)],
        })
    }

    /// What is put, and the lease it is put under.
    async fn record(
        &self,
        key: &str,
        payload: &Payload,
        now: Timestamp,
    ) -> Result<(bytes::Bytes, i64), StorageError> {
        let expires = payload.ttl.map(|ttl| now.checked_add(ttl).unwrap_or(Timestamp::MAX));
        let mut record = Vec::with_capacity(payload.data.len() + 256);
        let mark = self.marks.fetch_add(1, Ordering::Relaxed);
        codec::encode_unstamped(mark, key, payload, expires, &mut record);
        let lease = match payload.ttl {
            Some(ttl) => self.expiries.lease(&self.client, ttl).await.map_err(|error| unreadable(&error))?,
            None => 0,
        };
        Ok((record.into(), lease))
    }

    fn trouble(&self, error: CallError) -> StorageError {
        tracing::debug!(?error, "a write to etcd");
        match &error {
            CallError::Refused(status) if status.message().contains("too many requests") => {
                StorageError::Overloaded
            }
            CallError::Unknown(_) => StorageError::Undecided { waited: self.limits.patience },
            CallError::Refused(_) | CallError::Unreached(_) => unreadable(&error),
        }
    }
}

fn unreadable(error: &CallError) -> StorageError {
    StorageError::unavailable(format!("etcd: {}", error.status().message()))
}

/// What a transaction puts at its entry's key.
fn put_value(request: &rpc::TxnRequest) -> Option<bytes::Bytes> {
    match request.success.first()?.request.as_ref()? {
        rpc::request_op::Request::RequestPut(put) => Some(put.value.clone()),
        _ => None,
    }
}

/// Whether what stands at a key is what a write that was sent before has left there: its very bytes, mark and all, or nothing.
fn is_own(found: Option<&rpc::response_op::Response>, value: Option<&bytes::Bytes>) -> bool {
    let Some(rpc::response_op::Response::ResponseRange(range)) = found else { return false };
    range.kvs.first().map(|kv| &kv.value) == value
}

/// What came of a write that an earlier call has carried out.
fn own(write: &Write, now: Option<Arc<Entry>>, standing: Option<Arc<Entry>>, revision: u64) -> Written {
    match (write, now, standing) {
        (Write::Create(_) | Write::UpdateIf(..), Some(entry), _) => Ok(entry),
        (Write::DeleteIf(expected), None, Some(last)) if last.revision == *expected => {
            Ok(Arc::new(last.stamped(revision)))
        }
        (_, now, _) => Err(StorageError::Conflict(now)),
    }
}

/// What stood at the key before, as the answer of a put, a delete or a look says.
fn before(found: Option<rpc::response_op::Response>) -> Result<Option<Arc<Entry>>, StorageError> {
    use rpc::response_op::Response;
    let kv = match found {
        Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
        Some(Response::ResponsePut(put)) => put.prev_kv,
        Some(Response::ResponseDeleteRange(deleted)) => deleted.prev_kvs.into_iter().next(),
        None => None,
    };
    kv.map(|kv| entry(&kv).map(Arc::new)).transpose()
}

/// The entry that a pair of etcd is.
fn entry(kv: &rpc::KeyValue) -> Result<Entry, StorageError> {
    let entry = codec::decode_unstamped(kv.mod_revision as u64, kv.create_revision as u64, &kv.value);
    entry.ok_or_else(|| {
        let key = String::from_utf8_lossy(&kv.key);
        StorageError::unavailable(format!("etcd's record at {key} is malformed"))
    })
}

/// The end of the range of all keys that begin with `prefix`.
fn range_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    match end.last_mut() {
        // A prefix is text, so its last byte is never the greatest.
        Some(last) => *last += 1,
        None => end.push(0),
    }
    end
}

/// Everything below `prefix`, page by page at one revision.
async fn read_all(client: &Client, prefix: &str) -> Result<Snapshot, StorageError> {
    let (mut entries, mut at) = (BTreeMap::new(), 0);
    let mut from = prefix.as_bytes().to_vec();
    loop {
        let request = rpc::RangeRequest {
            key: from.into(),
            range_end: range_end(prefix).into(),
            limit: PAGE,
            revision: at,
            ..Default::default()
        };
        let page = tokio::time::timeout(READ, client.range(request)).await;
        let page = page.map_err(|_| StorageError::unavailable("etcd did not answer in time"))?;
        let page = page.map_err(|error| unreadable(&error))?;
        if at == 0 {
            at = page.header.map_or(0, |header| header.revision);
        }
        let folder = format!("{prefix}{}", names::FOLDER);
        for kv in page.kvs.iter().filter(|kv| !kv.key.starts_with(folder.as_bytes())) {
            let entry = entry(kv)?;
            entries.insert(entry.key.clone(), Arc::new(entry));
        }
        let Some(last) = page.kvs.last().filter(|_| page.more) else { break };
        from = last.key.to_vec();
        from.push(0);
    }
    Ok(Snapshot { entries, revision: at as u64 })
}

/// Asks for the newest revision, once for all who have asked meanwhile.
async fn answer(
    shared: Arc<Shared>,
    mut questions: mpsc::UnboundedReceiver<oneshot::Sender<Result<u64, StorageError>>>,
) {
    let mut waiting = Vec::new();
    while questions.recv_many(&mut waiting, usize::MAX).await > 0 {
        let newest = shared.client.newest().await;
        let newest = newest.map_err(|error| unreadable(&error));
        for to in waiting.drain(..) {
            // Who has gone needs no answer.
            let _ = to.send(newest.clone());
        }
    }
}

/// Lets etcd forget what is older than [`COMPACT`]. Each server does; only the first one's call finds anything to forget.
async fn compact(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(COMPACT);
    let mut old = None;
    loop {
        ticks.tick().await;
        let now = *shared.shown.borrow();
        if let Some(revision) = old.replace(now).filter(|revision| *revision > 0)
            && let Err(error) = shared.client.compact(revision).await
        {
            tracing::debug!(?error, revision, "compacting etcd");
        }
    }
}
