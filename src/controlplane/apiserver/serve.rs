//! The API behind TLS: accepts connections, learns who is on the other side, hands requests to the router.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tower::Service;

use super::auth::PeerCertificate;
use pki::{Identity, PkiError};
use rt::{Stop, Tasks};

/// A connection that has not finished its handshake by then is dropped.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// After the stop, open requests get this long to end.
const DRAIN: Duration = Duration::from_secs(3);
/// A connection whose peer does not answer HTTP/2 pings for this long is gone: watches must not outlive their reader.
const PING: Duration = Duration::from_secs(30);

/// TLS 1.2 and 1.3 with the serving identity; client certificates are optional, and verified against the authority.
pub fn tls(serving: &Identity, authority_pem: &str) -> Result<Arc<ServerConfig>, PkiError> {
    let certificate = |error: &dyn std::fmt::Display| PkiError::Certificate(error.to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(authority_pem.as_bytes()) {
        let authority = authority.map_err(|error| certificate(&error))?;
        roots.add(authority).map_err(|error| certificate(&error))?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| certificate(&error))?;
    let chain: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(serving.certificate_pem.as_bytes()).collect();
    let chain = chain.map_err(|error| certificate(&error))?;
    let key = PrivateKeyDer::from_pem_slice(serving.key_pem.as_bytes())
        .map_err(|error| PkiError::Key(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| certificate(&error))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| certificate(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Clients keep connections; resumption would only keep memory.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Serves the router on the listener until the tasks stop; returns at once. Open requests may end within a bound.
pub fn serve(listener: TcpListener, router: Router, tls: Arc<ServerConfig>, tasks: &Tasks) {
    let acceptor = TlsAcceptor::from(tls);
    let owned = tasks.clone();
    tasks.spawn_until_stop(async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let work = connection(stream, peer, acceptor.clone(), router.clone(), owned.stop());
                    owned.spawn(work);
                }
                // Out of descriptors, mostly: other tasks must get the chance to close some.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
}

async fn connection(stream: TcpStream, peer: SocketAddr, acceptor: TlsAcceptor, router: Router, stop: Stop) {
    // Small answers must not wait for acknowledgements.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "TCP_NODELAY");
    }
    let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream));
    let stream = match stop.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => stream,
        Some(Ok(Err(error))) => return tracing::debug!(%peer, %error, "TLS handshake"),
        _ => return,
    };
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let certificate = match certificate.map(|der| PeerCertificate::from_der(der)) {
        Some(Ok(certificate)) => Some(Arc::new(certificate)),
        Some(Err(error)) => return tracing::warn!(%peer, %error, "client certificate"),
        None => None,
    };
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(Arc::clone(certificate));
        }
        router.clone().call(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(1000);
    let served = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(served);
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection");
    }
}
