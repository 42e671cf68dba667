//! API clients whose certificate can be replaced while in use, and that go to another server when theirs does not answer.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Uri, header};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kube::Client;
use rustls::client::ResolvesClientCert;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower::{Service, ServiceExt};

use super::IdentityError;
use client::tls;
use config::{NodeConfig, Servers};
use pki::{CertificateInfo, PkiError};

/// A certificate that can be replaced while it is in use: TLS asks for it at each handshake.
#[derive(Debug, Default)]
pub struct Held(RwLock<Option<(Arc<CertifiedKey>, i64)>>);

impl Held {
    pub(super) fn set(&self, key: Arc<CertifiedKey>, not_after: i64) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some((key, not_after));
    }

    fn get(&self) -> Option<(Arc<CertifiedKey>, i64)> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// When it expires, seconds since 1970; 0 while there is none.
    pub(super) fn not_after(&self) -> i64 {
        self.get().map_or(0, |(_, not_after)| not_after)
    }

    /// The names and addresses it is for.
    pub(super) fn hosts(&self) -> Vec<String> {
        let Some((key, _)) = self.get() else { return Vec::new() };
        let info = key.cert.first().and_then(|der| CertificateInfo::from_der(der).ok()).unwrap_or_default();
        info.dns_names.into_iter().chain(info.ip_addresses.iter().map(ToString::to_string)).collect()
    }
}

impl ResolvesClientCert for Held {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.get().map(|(key, _)| key)
    }

    fn has_certs(&self) -> bool {
        self.get().is_some()
    }
}

impl ResolvesServerCert for Held {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.get().map(|(key, _)| key)
    }
}

/// How a client says who it is.
pub(super) enum Credentials {
    Certificate(Arc<Held>),
    Token(String),
}

/// Opening a connection takes no longer, or the server counts as gone: the bound is short where there is another one to go to.
const CONNECT_ONLY: Duration = Duration::from_secs(10);
const CONNECT_NEXT: Duration = Duration::from_secs(3);
/// The other side is asked this often whether it lives, and given up when it has been silent for so long then: a node that has several
/// servers must have found another one long before it counts as silent itself. How many there are may change at any time.
const ALIVE: Duration = Duration::from_secs(5);
const SILENT: Duration = Duration::from_secs(10);

/// The servers that a node speaks to. They are looked up when a connection is opened: some may have come or gone.
#[derive(Clone)]
pub(super) struct ServerList {
    node: String,
    /// Where there is one server for good.
    only: Ipv4Addr,
    port: u16,
    /// The one that last took a connection.
    current: Arc<Mutex<Option<Ipv4Addr>>>,
}

impl ServerList {
    pub(super) fn of(config: &NodeConfig) -> Self {
        let current = Arc::default();
        Self { node: config.node.clone(), only: config.server_ip, port: config.server_port, current }
    }

    /// What requests are addressed to, whichever server takes them.
    fn authority(&self) -> Authority {
        let text = format!("{}:{}", self.only, self.port);
        Authority::try_from(text).expect("an IPv4 address and a port are an authority")
    }

    /// All of them, the one to ask first first.
    fn in_turn(&self) -> Vec<Ipv4Addr> {
        let mut all = Servers::read().unwrap_or_default().for_node(&self.node);
        if all.is_empty() {
            all.push(self.only);
        }
        let current = *self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = all.iter().position(|ip| Some(*ip) == current) {
            all.rotate_left(at);
        }
        all
    }

    /// A connection, secured, to the first server that takes one within a bound. Fails as the last one does.
    async fn open(&self, tls: &TlsConnector) -> Result<TlsStream<TcpStream>, (String, std::io::Error)> {
        let servers = self.in_turn();
        let bound = if servers.len() > 1 { CONNECT_NEXT } else { CONNECT_ONLY };
        let mut failure = None;
        for ip in servers {
            let open = async {
                let tcp = TcpStream::connect((ip, self.port)).await?;
                // Small requests must not wait for each other's answers.
                tcp.set_nodelay(true)?;
                tls.connect(ServerName::from(IpAddr::V4(ip)), tcp).await
            };
            match tokio::time::timeout(bound, open).await.unwrap_or_else(|late| Err(late.into())) {
                Ok(stream) => {
                    *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(ip);
                    return Ok(stream);
                }
                Err(error) => failure = Some((format!("{ip}:{}", self.port), error)),
            }
            // Whoever comes next begins with another one.
            *self.current.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        Err(failure.expect("there is a server"))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A client of the servers that trusts only `authority` (PEM). All requests and watches share one HTTP/2 connection,
/// which is given up when the other side stays silent.
pub(super) fn client(
    servers: &ServerList,
    authority: &str,
    credentials: Credentials,
) -> Result<Client, IdentityError> {
    let mut roots = RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(der.map_err(|error| PkiError::Certificate(error.to_string()))?)?;
    }
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let (mut tls, token) = match credentials {
        Credentials::Certificate(held) => (builder.with_client_cert_resolver(held), None),
        Credentials::Token(token) => (builder.with_no_client_auth(), Some(bearer(&token)?)),
    };
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_adaptive_window(true)
        .http2_keep_alive_interval(ALIVE)
        .http2_keep_alive_timeout(SILENT)
        .http2_keep_alive_while_idle(true)
        .build::<_, kube::client::Body>(Connector { tls: Arc::new(tls).into(), servers: servers.clone() });
    let server = servers.authority();
    let service = http.map_request(move |mut request: Request<kube::client::Body>| {
        *request.uri_mut() = absolute(&server, request.uri());
        if let Some(token) = &token {
            request.headers_mut().insert(header::AUTHORIZATION, token.clone());
        }
        request
    });
    Ok(Client::new(service, "default"))
}

fn bearer(token: &str) -> Result<HeaderValue, IdentityError> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| {
        IdentityError::Refused("the bootstrap token has characters no header may have".into())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn absolute(server: &Authority, relative: &Uri) -> Uri {
    let path = relative.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::builder()
        .scheme(Scheme::HTTPS)
        .authority(server.clone())
        .path_and_query(path)
        .build()
        .expect("scheme, authority and path are there")
}

/// Opens TLS connections.
#[derive(Clone)]
struct Connector {
    tls: TlsConnector,
    servers: ServerList,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, std::io::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { tls, servers } = self.clone();
        Box::pin(async move {
            let stream = servers.open(&tls).await.map_err(|(_, error)| error)?;
            Ok(Stream(TokioIo::new(stream)))
        })
    }
}

struct Stream(TokioIo<TlsStream<TcpStream>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new();
        match self.0.inner().get_ref().1.alpn_protocol() {
            Some(b"h2") => connected.negotiated_h2(),
            _ => connected,
        }
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// Asks a server for its certificates and returns the authority among them whose public key has the pinned hash.
/// Nothing else is believed: the connection is closed and every later one verifies against that authority.
pub(super) async fn discover_authority(config: &NodeConfig) -> Result<String, IdentityError> {
    let tls = TlsConnector::from(Arc::new(tls::unverified()?));
    let opened = ServerList::of(config).open(&tls).await;
    let stream = opened.map_err(|(server, source)| IdentityError::Connect { server, source })?;
    let shown = stream.get_ref().1.peer_certificates().unwrap_or_default();
    for der in shown {
        if pki::spki_hash(der)? == config.ca_hash {
            return Ok(pem(der));
        }
    }
    let server = stream.get_ref().0.peer_addr().map(|address| address.to_string()).unwrap_or_default();
    Err(IdentityError::Authority { server, expected: config.ca_hash.clone() })
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for at in (0..text.len()).step_by(64) {
        pem.push_str(&text[at..text.len().min(at + 64)]);
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}
