//! Connections to endpoints: by HTTP/1.1 one per request, by HTTP/2 one per endpoint.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls_pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::body::{BoxError, Lent};
use super::rules::Protocol;
use client::stream::{self, Stream};
use client::tls;
use rt::Tasks;

/// Why no answer came.
#[derive(Debug)]
pub(super) enum SendError {
    /// The request was not sent: whoever else can may answer it.
    Unsent(BoxError),
    /// It was sent, or part of it.
    Sent(hyper::Error),
}

/// Where to, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Via<'a> {
    pub endpoint: SocketAddr,
    pub protocol: Protocol,
    /// The name that TLS asks for.
    pub name: &'a str,
    pub connect_timeout: Duration,
}

type Shared = http2::SendRequest<Lent>;

/// Connects and sends.
pub(super) struct Upstream {
    /// HTTP/2 connections that are open, with TLS or without.
    shared: Mutex<HashMap<(SocketAddr, bool), Shared>>,
    tls: TlsConnector,
    tls_http2: TlsConnector,
    tasks: Tasks,
}

impl Upstream {
    pub(super) fn new(tasks: Tasks) -> Self {
        let connector = |protocols: &[&[u8]]| {
            let mut config = tls::unverified().expect("the provider has the default versions");
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        Self {
            shared: Mutex::default(),
            tls: connector(&[b"http/1.1"]),
            tls_http2: connector(&[b"h2"]),
            tasks,
        }
    }

    /// Sends a request whose address is a path only; `authority` is the host that HTTP/2 asks for.
    pub(super) async fn send(
        &self,
        via: Via<'_>,
        authority: &str,
        request: Request<Lent>,
    ) -> Result<Response<Incoming>, SendError> {
        match via.protocol {
            Protocol::Http | Protocol::Https => self.by_http1(via, request).await,
            Protocol::Http2 | Protocol::Http2Tls => self.by_http2(via, authority, request).await,
        }
    }

    async fn by_http1(
        &self,
        via: Via<'_>,
        mut request: Request<Lent>,
    ) -> Result<Response<Incoming>, SendError> {
        *request.version_mut() = Version::HTTP_11;
        let stream = self.connect(via).await.map_err(SendError::Unsent)?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| SendError::Unsent(error.into()))?;
        self.tasks.spawn_until_stop(connection.with_upgrades());
        sender.try_send_request(request).await.map_err(unsent)
    }

    async fn by_http2(
        &self,
        via: Via<'_>,
        authority: &str,
        mut request: Request<Lent>,
    ) -> Result<Response<Incoming>, SendError> {
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove(http::header::HOST);
        let tls = via.protocol == Protocol::Http2Tls;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = Uri::builder().scheme(if tls { "https" } else { "http" }).authority(authority);
        let uri = uri.path_and_query(path).build().map_err(|error| SendError::Unsent(error.into()))?;
        *request.uri_mut() = uri;
        let known = self.lock().get(&(via.endpoint, tls)).filter(|sender| !sender.is_closed()).cloned();
        if let Some(mut sender) = known {
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                // The connection had ended, unseen: a new one takes it.
                Err(mut error) => match error.take_message() {
                    Some(back) => request = back,
                    None => return Err(SendError::Sent(error.into_error())),
                },
            }
        }
        let mut sender = self.open(via, tls).await.map_err(SendError::Unsent)?;
        sender.try_send_request(request).await.map_err(unsent)
    }

    async fn open(&self, via: Via<'_>, tls: bool) -> Result<Shared, BoxError> {
        let stream = self.connect(via).await?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        self.tasks.spawn_until_stop(connection);
        let mut shared = self.lock();
        shared.retain(|_, other| !other.is_closed());
        shared.insert((via.endpoint, tls), sender.clone());
        Ok(sender)
    }

    /// A connection, with TLS where the protocol has it. Whose certificate the endpoint shows does not matter: it is one
    /// of this cluster's network.
    async fn connect(&self, via: Via<'_>) -> Result<Box<dyn Stream>, BoxError> {
        let tls = match via.protocol {
            Protocol::Http | Protocol::Http2 => None,
            Protocol::Https => Some(&self.tls),
            Protocol::Http2Tls => Some(&self.tls_http2),
        };
        let name = || {
            ServerName::try_from(via.name.to_owned())
                .unwrap_or_else(|_| ServerName::IpAddress(via.endpoint.ip().into()))
        };
        let connecting = stream::open(via.endpoint, tls.map(|tls| (tls, name())));
        Ok(tokio::time::timeout(via.connect_timeout, connecting).await??)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(SocketAddr, bool), Shared>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unsent(mut error: TrySendError<Request<Lent>>) -> SendError {
    match error.take_message() {
        Some(_) => SendError::Unsent(error.into_error().into()),
        None => SendError::Sent(error.into_error()),
    }
}
