//! The kubelet's HTTPS listener.

use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::routes::{self, Routes};
use crate::kubelet::identity::Identity;
use pki::CertificateInfo;
use rt::Tasks;

/// The server cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    #[error("the cluster's authority cannot be read: {0}")]
    Authority(String),
}

/// A connection must say who it is in this time.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves on `listener` until the tasks stop. Clients show a certificate of the cluster's authority, or a token with each
/// request.
pub fn serve(
    listener: TcpListener,
    identity: &Identity,
    routes: Routes,
    tasks: &Tasks,
) -> Result<(), ServerError> {
    let acceptor = TlsAcceptor::from(Arc::new(config(identity)?));
    let routes = Arc::new(routes);
    let inner = tasks.clone();
    tasks.spawn_until_stop(async move {
        loop {
            match listener.accept().await {
                Ok((tcp, _)) => {
                    let (acceptor, routes) = (acceptor.clone(), routes.clone());
                    inner.spawn_until_stop(async move { connection(tcp, acceptor, routes).await });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    });
    Ok(())
}

fn config(identity: &Identity) -> Result<ServerConfig, ServerError> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    for der in CertificateDer::pem_slice_iter(identity.authority().as_bytes()) {
        roots.add(der.map_err(|error| ServerError::Authority(error.to_string()))?)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| ServerError::Authority(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(identity.serving());
    // Upgraded streams need HTTP/1.1, and nothing here needs more.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

async fn connection(tcp: TcpStream, acceptor: TlsAcceptor, routes: Arc<Routes>) {
    let _ = tcp.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(tcp)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a client was turned away"),
        Err(_) => return tracing::debug!("a client did not finish its handshake"),
    };
    let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let who = match peer.map(|der| CertificateInfo::from_der(der)) {
        Some(Ok(who)) => Some(Arc::new(who)),
        Some(Err(error)) => return tracing::debug!(%error, "a client's certificate cannot be read"),
        None => None,
    };
    let service = service_fn(move |request| {
        let (routes, who) = (routes.clone(), who.clone());
        async move { Ok::<_, std::convert::Infallible>(routes::answer(&routes, who.as_deref(), request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}
