//! Listening, TLS, and connections that outlive every change of what is served.
//!
//! ```text
//! wanted ports --replace()--> listeners: started, stopped, or told of their new Port
//! connection --TLS?--> name asked for --> a stream, spliced unread
//!                                     \-> requests, each by the Port of its moment
//! ```

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use nix::sys::socket::{setsockopt, sockopt};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::forward::{Forwarder, Peer};
use super::rules::Port;
use super::stream;
use rt::{Backoff, Stop, Tasks};

const RETRY: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(10) };
/// How long a client may take to say who it is, or what it wants.
const GREETING: Duration = Duration::from_secs(10);
const BACKLOG: u32 = 1024;

/// Ports by address, each told of its changes.
pub struct Server {
    forwarder: Arc<Forwarder>,
    ports: Mutex<BTreeMap<SocketAddr, Listening>>,
    tasks: Tasks,
}

struct Listening {
    tls: bool,
    port: watch::Sender<Arc<Port>>,
    stop: Stop,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Server {
    /// Nothing is served yet.
    pub fn new(forwarder: Forwarder, tasks: &Tasks) -> Self {
        Self { forwarder: Arc::new(forwarder), ports: Mutex::default(), tasks: tasks.clone() }
    }

    /// Serves exactly these from now on. Connections of ports that go are left to end by themselves.
    pub fn replace(&self, wanted: BTreeMap<SocketAddr, Arc<Port>>) {
        let mut ports = self.ports.lock().unwrap_or_else(PoisonError::into_inner);
        ports.retain(|address, known| wanted.get(address).is_some_and(|port| port.tls == known.tls));
        for (address, port) in wanted {
            match ports.get(&address) {
                Some(known) => drop(known.port.send_replace(port)),
                None => drop(ports.insert(address, self.start(address, port))),
            }
        }
    }

    fn start(&self, address: SocketAddr, port: Arc<Port>) -> Listening {
        let (stop, tls) = (self.tasks.stop().child_token(), port.tls);
        let (sender, now) = watch::channel(port);
        let (forwarder, tasks, until) = (self.forwarder.clone(), self.tasks.clone(), stop.clone());
        self.tasks.spawn(async move {
            until.run_until_cancelled(listen(address, now, forwarder, &tasks)).await;
            tracing::info!(%address, "no longer serving");
        });
        Listening { tls, port: sender, stop }
    }
}

/// Listens at `address` and serves until dropped. The address may still be on its way to this node's interface.
async fn listen(
    address: SocketAddr,
    port: watch::Receiver<Arc<Port>>,
    forwarder: Arc<Forwarder>,
    tasks: &Tasks,
) {
    let mut failures = 0;
    loop {
        match bind(address) {
            Ok(listener) => {
                tracing::info!(%address, "serving");
                return serve(listener, port, forwarder, tasks).await;
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(%address, %error, "nothing can be served there; trying again");
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

/// What connections of one port share.
#[derive(Clone)]
struct Shared {
    port: watch::Receiver<Arc<Port>>,
    acceptor: TlsAcceptor,
    forwarder: Arc<Forwarder>,
}

impl Shared {
    fn port(&self) -> Arc<Port> {
        self.port.borrow().clone()
    }
}

/// Takes connections until dropped.
pub async fn serve(
    listener: TcpListener,
    port: watch::Receiver<Arc<Port>>,
    forwarder: Arc<Forwarder>,
    tasks: &Tasks,
) {
    let number = listener.local_addr().map(|address| address.port()).unwrap_or_default();
    let shared = Shared { acceptor: acceptor(port.clone()), port, forwarder };
    let mut failures = 0;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                failures = 0;
                let _ = stream.set_nodelay(true);
                let peer = Peer { address, port: number, name: None };
                tasks.spawn_until_stop(connection(stream, peer, shared.clone()));
            }
            Err(error) => {
                failures += 1;
                tracing::debug!(%error, "a connection was not accepted");
                tokio::time::sleep(RETRY.delay(failures)).await;
            }
        }
    }
}

/// Shows the certificates of the moment.
#[derive(Debug)]
struct Live(watch::Receiver<Arc<Port>>);

impl ResolvesServerCert for Live {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.borrow().certificates.of(hello.server_name().unwrap_or_default())
    }
}

fn acceptor(port: watch::Receiver<Arc<Port>>) -> TlsAcceptor {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Live(port)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

async fn connection(stream: TcpStream, peer: Peer, shared: Shared) {
    let port = shared.port();
    if !port.tls {
        return requests(stream, peer, shared).await;
    }
    if port.streams.is_empty() {
        return encrypted(stream, peer, shared).await;
    }
    // The name must be known before anything is said.
    let client = peer.address;
    match tokio::time::timeout(GREETING, stream::hello(stream)).await {
        Ok(Ok((name, stream))) => match stream::of(&port, &name) {
            None => encrypted(stream, peer, shared).await,
            Some(found) if found.terminate => {
                let Some(stream) = accept(stream, &peer, &shared).await else { return };
                stream::splice(stream, &found.act, &shared.forwarder).await;
            }
            Some(found) => stream::splice(stream, &found.act, &shared.forwarder).await,
        },
        Ok(Err(error)) => tracing::debug!(%error, %client, "no TLS with a client"),
        Err(_elapsed) => tracing::debug!(%client, "a client took too long to speak TLS"),
    }
}

/// Either kind of client stream.
trait Io: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Io for T {}

async fn accept<S: Io>(
    stream: S,
    peer: &Peer,
    shared: &Shared,
) -> Option<tokio_rustls::server::TlsStream<S>> {
    let client = peer.address;
    match tokio::time::timeout(GREETING, shared.acceptor.accept(stream)).await {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => tracing::debug!(%error, %client, "no TLS with a client"),
        Err(_elapsed) => tracing::debug!(%client, "a client took too long to speak TLS"),
    }
    None
}

async fn encrypted<S: Io>(stream: S, mut peer: Peer, shared: Shared) {
    let Some(stream) = accept(stream, &peer, &shared).await else { return };
    peer.name = Some(stream.get_ref().1.server_name().unwrap_or_default().into());
    requests(stream, peer, shared).await;
}

async fn requests<S: Io>(stream: S, peer: Peer, shared: Shared) {
    let client = peer.address;
    let service = service_fn(move |request| {
        let (shared, peer) = (shared.clone(), peer.clone());
        async move {
            Ok::<_, std::convert::Infallible>(shared.forwarder.handle(&shared.port(), request, &peer).await)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(GREETING);
    builder.http2().timer(TokioTimer::new());
    if let Err(error) = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await {
        tracing::debug!(%error, %client, "a connection ended");
    }
}
