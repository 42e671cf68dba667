//! Calls to the members of an etcd: one connection to each, and the next member when one does not serve.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::rpc;
use crate::{Etcd, StorageError};
use client::{stream, tls};
use rt::Backoff;

/// Connecting takes no longer, or the member counts as gone.
const CONNECT: Duration = Duration::from_secs(3);
/// A connection on which nothing comes is asked this often whether it lives, and given up after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// A question that is not answered within this is put to the next member as well.
const NEXT: Duration = Duration::from_millis(300);
/// Calls go to the first member again when another one has stood in for it so long: it is the nearest.
const STAND_IN: Duration = Duration::from_secs(10);
/// A write that is not answered within this may have been lost with its leader.
pub(super) const ATTEMPT: Duration = Duration::from_secs(1);
/// How long it is tried to learn what became of a write that may have been made.
pub(super) const UNDECIDED: Duration = Duration::from_secs(10);
/// How long nobody may lead before reads and writes are refused: an election takes less.
const LEADERLESS: Duration = Duration::from_secs(5);
/// Between questions to a member that cannot answer yet.
pub(super) const AGAIN: Backoff =
    Backoff { first: Duration::from_millis(20), max: Duration::from_millis(200) };

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum CallError {
    /// No member took the call, or one that follows nobody: nothing was done.
    Unreached(Status),
    /// A member refused it: nothing was done.
    Refused(Status),
    /// The call may have been carried out.
    Unknown(Status),
}

impl CallError {
    fn of(status: Status) -> Self {
        match status.code() {
            _ if never_sent(&status) => Self::Unreached(status),
            // Told by a member that has no leader: it does not even try.
            Code::Unavailable if status.message().contains("no leader") => Self::Unreached(status),
            Code::Unavailable | Code::Unknown | Code::Internal | Code::DeadlineExceeded | Code::Cancelled => {
                Self::Unknown(status)
            }
            _ => Self::Refused(status),
        }
    }

    pub(super) fn status(&self) -> &Status {
        match self {
            Self::Unreached(status) | Self::Refused(status) | Self::Unknown(status) => status,
        }
    }
}

/// The connection was not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to {at}: {why}")]
struct NotConnected {
    at: String,
    why: String,
}

/// Whether the call failed because there was no connection to send it on.
fn never_sent(status: &Status) -> bool {
    let first = std::error::Error::source(status);
    std::iter::successors(first, |error| error.source()).any(|error| error.is::<NotConnected>())
}

/// The members of an etcd.
#[derive(Debug)]
pub(super) struct Client {
    members: Vec<Channel>,
    /// Whom calls go to, and since when that is not the first.
    current: Mutex<(usize, Instant)>,
    /// All keys begin with it.
    prefix: Bytes,
    /// The newest term that a member has told: another leader, another term.
    term: AtomicU64,
}

impl Client {
    /// Connects when first used. `Unavailable` if an address or the certificates cannot be used.
    pub(super) fn new(config: &Etcd) -> Result<Self, StorageError> {
        if config.endpoints.is_empty() {
            return Err(StorageError::unavailable("no endpoint of etcd is given"));
        }
        let security =
            config.authority_pem.as_ref().map(|authority| tls::config(authority, config.identity.as_ref()));
        let secured = |mut security: rustls::ClientConfig| {
            // etcd speaks HTTP/1 to whom does not ask for more.
            security.alpn_protocols = vec![b"h2".to_vec()];
            Arc::new(security)
        };
        let security = security.transpose().map_err(StorageError::unavailable)?.map(secured);
        let member = |endpoint: &String| member(endpoint, security.clone());
        let members = config.endpoints.iter().map(member).collect::<Result<_, _>>()?;
        let (current, prefix) = (Mutex::new((0, Instant::now())), config.prefix.clone().into_bytes().into());
        Ok(Self { members, current, prefix, term: AtomicU64::new(0) })
    }

    /// Tries members, each once, until one takes the call: what was perhaps carried out is not sent again unless `repeat`.
    async fn call<Q: Clone, A>(
        &self,
        request: Q,
        repeat: bool,
        send: impl AsyncFn(Channel, Request<Q>) -> Result<tonic::Response<A>, Status>,
    ) -> Result<A, CallError> {
        let mut failure = None;
        for _ in 0..self.members.len() {
            let at = self.current();
            match send(self.members[at].clone(), with_leader(request.clone())).await {
                Ok(answer) => return Ok(answer.into_inner()),
                Err(status) => {
                    let error = CallError::of(status);
                    if matches!(error, CallError::Refused(_)) {
                        return Err(error);
                    }
                    self.turn_from(at);
                    if matches!(error, CallError::Unknown(_)) && !repeat {
                        return Err(error);
                    }
                    failure = Some(error);
                }
            }
        }
        Err(failure.expect("there is a member"))
    }

    fn current(&self) -> usize {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != 0 && current.1.elapsed() > STAND_IN {
            current.0 = 0;
        }
        current.0
    }

    /// The next member's turn, unless somebody has turned away from this one already.
    fn turn_from(&self, at: usize) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 == at {
            *current = ((at + 1) % self.members.len(), Instant::now());
        }
    }

    pub(super) async fn range(&self, request: rpc::RangeRequest) -> Result<rpc::RangeResponse, CallError> {
        self.call(request, true, async |channel, request| kv(channel).range(request).await).await
    }

    /// Sends a transaction to one member, and waits for it as long as the same leader leads: another one may never have heard of it, and
    /// whether it was carried out is not known then.
    pub(super) async fn txn(&self, request: rpc::TxnRequest) -> Result<rpc::TxnResponse, CallError> {
        let (begun, at, term) = (Instant::now(), self.current(), self.term.load(Ordering::Relaxed));
        let mut member = kv(self.members[at].clone());
        let mut sent = pin!(member.txn(with_leader(request)));
        while begun.elapsed() < UNDECIDED {
            if let Ok(answer) = timeout(ATTEMPT, &mut sent).await {
                let answer = answer.map_err(CallError::of)?.into_inner();
                self.heard(answer.header.as_ref());
                return Ok(answer);
            }
            let led = self.newest().await.is_ok();
            if !led || self.current() != at || self.term.load(Ordering::Relaxed) != term {
                break;
            }
        }
        Err(CallError::Unknown(Status::deadline_exceeded("etcd did not answer in time")))
    }

    fn heard(&self, header: Option<&rpc::ResponseHeader>) {
        self.term.fetch_max(header.map_or(0, |header| header.raft_term), Ordering::Relaxed);
    }

    /// The newest revision, as most members know it. Fails as [`Client::ask`] does.
    pub(super) async fn newest(&self) -> Result<u64, CallError> {
        // Any key will do: the answer's header says it, and is as new as every write before.
        let key = self.prefix.clone();
        let answer = self.ask(rpc::RangeRequest { key, count_only: true, ..Default::default() }).await?;
        Ok(answer.header.map_or(0, |header| header.revision as u64))
    }

    /// What most members know now. Asks until one says it, and one more each time that nobody has for a while: whose leader is lost is
    /// silent, and so is who is cut off. Who has said it is who is called next. Fails as the last one did when nobody leads for longer
    /// than an election takes.
    pub(super) async fn ask(&self, request: rpc::RangeRequest) -> Result<rpc::RangeResponse, CallError> {
        let (begun, first, failure) = (Instant::now(), self.current(), Mutex::new(None));
        let mut asking = FuturesUnordered::new();
        let mut left = (0..self.members.len()).map(|step| (first + step) % self.members.len());
        while begun.elapsed() < LEADERLESS {
            asking.extend(left.next().map(|at| self.insist(at, &request, &failure)));
            if let Ok(Some((at, answer))) = timeout(NEXT, asking.next()).await {
                self.heard(answer.header.as_ref());
                if at != first {
                    *self.current.lock().unwrap_or_else(PoisonError::into_inner) = (at, Instant::now());
                }
                return Ok(answer);
            }
        }
        drop(asking);
        let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        Err(failure.unwrap_or_else(|| CallError::Unreached(Status::unavailable("no member answers"))))
    }

    /// Asks one member until it answers; notes down why it does not.
    async fn insist(
        &self,
        at: usize,
        request: &rpc::RangeRequest,
        failure: &Mutex<Option<CallError>>,
    ) -> (usize, rpc::RangeResponse) {
        let mut failures = 0;
        loop {
            match kv(self.members[at].clone()).range(with_leader(request.clone())).await {
                Ok(answer) => return (at, answer.into_inner()),
                Err(status) => {
                    let why = CallError::of(status);
                    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                }
            }
            failures += 1;
            tokio::time::sleep(AGAIN.delay(failures)).await;
        }
    }

    pub(super) async fn compact(&self, revision: u64) -> Result<(), CallError> {
        let request = rpc::CompactionRequest { revision: revision as i64 };
        self.call(request, true, async |channel, request| kv(channel).compact(request).await).await?;
        Ok(())
    }

    /// Grants a lease of so many seconds; returns its id.
    pub(super) async fn lease(&self, seconds: i64) -> Result<i64, CallError> {
        let grant = async |channel: Channel, request| {
            rpc::lease_client::LeaseClient::new(channel).lease_grant(request).await
        };
        Ok(self.call(rpc::LeaseGrantRequest { ttl: seconds }, true, grant).await?.id)
    }

    /// All members, as most of them know them.
    pub(super) async fn members(&self) -> Result<Vec<rpc::Member>, CallError> {
        let list = async |channel, request| cluster(channel).member_list(request).await;
        Ok(self.call(rpc::MemberListRequest { linearizable: true }, true, list).await?.members)
    }

    /// Lets one in as a learner, which follows and has no vote; returns all members.
    pub(super) async fn add_learner(&self, peer_url: &str) -> Result<Vec<rpc::Member>, CallError> {
        let add = async |channel, request| cluster(channel).member_add(request).await;
        let request = rpc::MemberAddRequest { peer_ur_ls: vec![peer_url.to_owned()], is_learner: true };
        Ok(self.call(request, false, add).await?.members)
    }

    pub(super) async fn promote(&self, id: u64) -> Result<(), CallError> {
        let promote = async |channel, request| cluster(channel).member_promote(request).await;
        self.call(rpc::MemberPromoteRequest { id }, false, promote).await?;
        Ok(())
    }

    pub(super) async fn remove_member(&self, id: u64) -> Result<(), CallError> {
        let remove = async |channel, request| cluster(channel).member_remove(request).await;
        self.call(rpc::MemberRemoveRequest { id }, true, remove).await?;
        Ok(())
    }

    /// Every change of every key behind `revision`.
    pub(super) async fn watch(&self, revision: u64) -> Result<Changes, CallError> {
        let create = rpc::WatchCreateRequest {
            key: vec![0].into(),
            range_end: vec![0].into(),
            start_revision: revision as i64 + 1,
            prev_kv: true,
            fragment: true,
        };
        let create = rpc::WatchRequest {
            request_union: Some(rpc::watch_request::RequestUnion::CreateRequest(create)),
        };
        let at = self.current();
        let (open, requests) = mpsc::channel(1);
        open.try_send(create).expect("the channel has room");
        let mut client = rpc::watch_client::WatchClient::new(self.members[at].clone())
            .max_decoding_message_size(usize::MAX);
        let answer = client.watch(with_leader(ReceiverStream::new(requests))).await.map_err(|status| {
            self.turn_from(at);
            CallError::of(status)
        })?;
        Ok(Changes { at, stream: answer.into_inner(), _open: open })
    }

    /// A watch has broken off: the next one is asked of another member.
    pub(super) fn broken(&self, changes: &Changes) {
        self.turn_from(changes.at);
    }
}

/// A watch that goes on until it is dropped.
pub(super) struct Changes {
    at: usize,
    stream: Streaming<rpc::WatchResponse>,
    /// The stream of requests, whose end would end the watch.
    _open: mpsc::Sender<rpc::WatchRequest>,
}

impl Changes {
    pub(super) async fn next(&mut self) -> Result<rpc::WatchResponse, Status> {
        self.stream.message().await?.ok_or_else(|| Status::unavailable("etcd has ended the watch"))
    }
}

/// A member that has lost its leader must say so rather than be silent.
fn with_leader<Q>(request: Q) -> Request<Q> {
    let mut request = Request::new(request);
    request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    request
}

fn cluster(channel: Channel) -> rpc::cluster_client::ClusterClient<Channel> {
    rpc::cluster_client::ClusterClient::new(channel)
}

fn kv(channel: Channel) -> rpc::kv_client::KvClient<Channel> {
    rpc::kv_client::KvClient::new(channel).max_decoding_message_size(usize::MAX)
}

/// A connection to one member, made when it is first needed and again when it has broken.
fn member(endpoint: &str, security: Option<Arc<rustls::ClientConfig>>) -> Result<Channel, StorageError> {
    let unusable = |why: &str| StorageError::unavailable(format!("{endpoint}: {why}"));
    let uri: http::Uri = endpoint.parse().map_err(|_| unusable("is no URL of an etcd member"))?;
    let secure = match uri.scheme_str() {
        Some("https") => {
            let security = security.ok_or_else(|| unusable("needs the certificate of etcd's authority"))?;
            Some(TlsConnector::from(security))
        }
        Some("http") => None,
        _ => return Err(unusable("must begin with http:// or https://")),
    };
    let host = uri.host().ok_or_else(|| unusable("names no host"))?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(2379);
    let name = ServerName::try_from(host.clone()).map_err(|_| unusable("names no host"))?;
    let connector = tower::service_fn(move |_: http::Uri| {
        let (host, name, secure) = (host.clone(), name.clone(), secure.clone());
        async move {
            let connecting =
                stream::open((host.as_str(), port), secure.as_ref().map(|secure| (secure, name)));
            let failed = |why: String| NotConnected { at: format!("{host}:{port}"), why };
            match tokio::time::timeout(CONNECT, connecting).await {
                Ok(connected) => connected.map(TokioIo::new).map_err(|error| failed(error.to_string())),
                Err(_) => Err(failed("no answer in time".to_owned())),
            }
        }
    });
    // What tonic is told of the address serves as the authority of its requests only.
    let authority = Endpoint::from_shared(format!("http://{}", uri.authority().expect("it has a host")));
    Ok(authority
        .map_err(|error| unusable(&error.to_string()))?
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .connect_with_connector_lazy(connector))
}
