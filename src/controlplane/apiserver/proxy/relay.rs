//! One request on one connection to another server, upgrades included.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use api::status::ApiError;
use rt::Tasks;

/// A server that does not answer the connection by then counts as gone.
const CONNECT: Duration = Duration::from_secs(10);
const BUFFER: usize = 32 * 1024;

/// A server that requests are passed on to.
#[derive(Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// What the request says whom it is for.
    pub host: String,
    /// Whom to believe, and under which name; `None`: without TLS.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

/// Headers that are about the client's connection to this server, or its credentials.
fn stays_here(name: &HeaderName) -> bool {
    const OWN: &[&str] = &[
        "authorization",
        "host",
        "keep-alive",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "content-length",
    ];
    OWN.contains(&name.as_str()) || name.as_str().starts_with("impersonate-")
}

/// The headers that go on with a request.
pub fn onward_headers(headers: &HeaderMap, upgrade: bool) -> HeaderMap {
    let mut onward = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| !stays_here(name)) {
        if upgrade || (name != header::CONNECTION && name != header::UPGRADE) {
            onward.append(name.clone(), value.clone());
        }
    }
    if let Some(length) = headers.get(header::CONTENT_LENGTH).filter(|_| !upgrade) {
        onward.insert(header::CONTENT_LENGTH, length.clone());
    }
    onward
}

/// Takes the client's side of an upgrade out of its request, if it asks for one.
pub fn upgrade_of(request: &mut Request<Body>) -> (bool, Option<OnUpgrade>) {
    let upgrade = request.headers().contains_key(header::UPGRADE);
    (upgrade, upgrade.then(|| request.extensions_mut().remove::<OnUpgrade>()).flatten())
}

/// Sends a request and returns what came back; after a 101 both ends talk to each other until one of them ends.
///
/// Fails with an error of the connection, which the caller puts in its own words.
pub async fn relay(
    tasks: &Tasks,
    peer: &Peer,
    onward: Request<Body>,
    client_side: Option<OnUpgrade>,
) -> Result<Result<Response<Body>, ApiError>, Error> {
    let mut response = send(tasks, peer, onward).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Ok(downstream(response)));
    }
    let Some(client_side) = client_side else {
        return Ok(Err(ApiError::bad_request("Upgrade request required")));
    };
    let server_side = hyper::upgrade::on(&mut response);
    tasks.spawn_until_stop(async move {
        if let Err(error) = splice(client_side, server_side).await {
            tracing::debug!(%error, "stream");
        }
    });
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    *answer.headers_mut() = response.headers().clone();
    Ok(Ok(answer))
}

/// Sends one request on a connection of its own.
pub async fn send(
    tasks: &Tasks,
    peer: &Peer,
    mut request: Request<Body>,
) -> Result<Response<Incoming>, Error> {
    let host = HeaderValue::from_str(&peer.host).map_err(Error::other)?;
    request.headers_mut().insert(header::HOST, host);
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(peer.address))
        .await
        .map_err(|_| Error::new(ErrorKind::TimedOut, "i/o timeout"))??;
    stream.set_nodelay(true)?;
    let Some((tls, name)) = &peer.tls else { return exchange(tasks, stream, request).await };
    let connector = TlsConnector::from(tls.clone());
    let handshake = tokio::time::timeout(CONNECT, connector.connect(name.clone(), stream)).await;
    let stream = handshake.map_err(|_| Error::new(ErrorKind::TimedOut, "TLS handshake timeout"))??;
    exchange(tasks, stream, request).await
}

/// One request on one connection, which the response's body (or the upgraded stream) keeps open.
async fn exchange<S>(tasks: &Tasks, stream: S, request: Request<Body>) -> Result<Response<Incoming>, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(Error::other)?;
    tasks.spawn_until_stop(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "connection to another server");
        }
    });
    sender.send_request(request).await.map_err(Error::other)
}

async fn splice(
    client: OnUpgrade,
    server: OnUpgrade,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let (client, server): (Upgraded, Upgraded) = futures::try_join!(client, server)?;
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    tokio::io::copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await?;
    Ok(())
}

/// The response for the client, without what belonged to the inner connection.
pub fn downstream(response: Response<Incoming>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        parts.headers.remove(name);
    }
    parts.extensions = http::Extensions::new();
    parts.version = http::Version::default();
    Response::from_parts(parts, Body::new(body.map_frame(|frame| frame.map_data(Bytes::from))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_here() {
        let mut sent = HeaderMap::new();
        for name in
            ["authorization", "impersonate-user", "upgrade", "x-stream-protocol-version", "content-length"]
        {
            sent.insert(name, HeaderValue::from_static("1"));
        }
        let names = |upgrade: bool| {
            let mut names: Vec<String> =
                onward_headers(&sent, upgrade).keys().map(|name| name.as_str().to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names(true), ["upgrade", "x-stream-protocol-version"]);
        assert_eq!(names(false), ["content-length", "x-stream-protocol-version"]);
    }
}
