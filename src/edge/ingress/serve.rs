//! Listening, TLS, and connections that outlive every change of what is served.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::certificates::Certificates;
use super::forward::{Forwarder, Peer};
use super::routes::Table;
use crate::rt::{Backoff, Tasks};

const RETRY: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(10) };
/// How long a client may take to say who it is, or what it wants.
const GREETING: Duration = Duration::from_secs(10);
const BACKLOG: u32 = 1024;

/// What is served now. Table and certificates are replaced whole.
pub struct Shared {
    table: RwLock<Arc<Table>>,
    pub certificates: Arc<Certificates>,
    forwarder: Forwarder,
}

impl Shared {
    /// Nothing is served yet.
    pub fn new(forwarder: Forwarder, certificates: Certificates) -> Self {
        Self { table: RwLock::default(), certificates: Arc::new(certificates), forwarder }
    }

    /// Serves this from now on.
    pub fn replace(&self, table: Table) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    /// What is served.
    pub fn table(&self) -> Arc<Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Listens at `address` and serves until dropped; connections go on until `tasks` stops. The address may still be on its
/// way to this node's interface.
pub(super) async fn listen(address: SocketAddr, tls: bool, shared: Arc<Shared>, tasks: &Tasks) {
    let mut failures = 0;
    loop {
        match bind(address) {
            Ok(listener) => return serve(listener, tls, shared, tasks).await,
            Err(error) => {
                failures += 1;
                tracing::warn!(%address, %error, "Ingresses cannot be served there; trying again");
                tokio::time::sleep(RETRY.delay(failures)).await;
            }
        }
    }
}

fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Takes connections until dropped.
pub async fn serve(listener: TcpListener, tls: bool, shared: Arc<Shared>, tasks: &Tasks) {
    let acceptor = tls.then(|| acceptor(&shared.certificates));
    let mut failures = 0;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                failures = 0;
                let _ = stream.set_nodelay(true);
                let peer = Peer { address, tls };
                tasks.spawn_until_stop(connection(stream, acceptor.clone(), peer, shared.clone()));
            }
            Err(error) => {
                failures += 1;
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(RETRY.delay(failures)).await;
            }
        }
    }
}

fn acceptor(certificates: &Arc<Certificates>) -> TlsAcceptor {
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_no_client_auth()
            .with_cert_resolver(certificates.clone());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn connection(stream: TcpStream, acceptor: Option<TlsAcceptor>, peer: Peer, shared: Arc<Shared>) {
    let Some(acceptor) = acceptor else { return requests(stream, peer, shared).await };
    match tokio::time::timeout(GREETING, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => requests(stream, peer, shared).await,
        Ok(Err(error)) => tracing::debug!(%error, client = %peer.address, "no TLS with a client"),
        Err(_elapsed) => tracing::debug!(client = %peer.address, "a client took too long to speak TLS"),
    }
}

async fn requests<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    stream: S,
    peer: Peer,
    shared: Arc<Shared>,
) {
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move {
            Ok::<_, std::convert::Infallible>(shared.forwarder.handle(&shared.table(), request, peer).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(GREETING);
    builder.http2().timer(TokioTimer::new());
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%error, client = %peer.address, "a connection ended");
    }
}
