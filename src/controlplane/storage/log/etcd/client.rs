//! Calls to the members of an etcd: one connection to each, and the next member when one does not serve.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use super::rpc;
use crate::{Etcd, StorageError};
use client::{stream, tls};

/// Connecting takes no longer, or the member counts as gone.
const CONNECT: Duration = Duration::from_secs(3);
/// A connection on which nothing comes is asked this often whether it lives, and given up after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Why a call came to nothing.
#[derive(Debug)]
pub(super) enum CallError {
    /// No member took the call: nothing was done.
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
    /// Whom calls go to.
    current: AtomicUsize,
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
        Ok(Self { members, current: AtomicUsize::new(0) })
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
            let at = self.current.load(Ordering::Relaxed) % self.members.len();
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

    /// The next member's turn, unless somebody has turned away from this one already.
    fn turn_from(&self, at: usize) {
        let next = (at + 1) % self.members.len();
        let _ = self.current.compare_exchange(at, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    pub(super) async fn range(&self, request: rpc::RangeRequest) -> Result<rpc::RangeResponse, CallError> {
        self.call(request, true, async |channel, request| kv(channel).range(request).await).await
    }

    pub(super) async fn txn(&self, request: rpc::TxnRequest) -> Result<rpc::TxnResponse, CallError> {
        self.call(request, false, async |channel, request| kv(channel).txn(request).await).await
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
        let at = self.current.load(Ordering::Relaxed) % self.members.len();
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
