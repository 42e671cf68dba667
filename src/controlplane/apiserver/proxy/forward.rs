//! Passes a request on to a node, a Pod or a Service, upgrades included.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use serde_json::Value;

use super::target;
use super::{Dial, Location, Streams};
use crate::api::status::{ApiError, Reason};
use crate::controlplane::apiserver::request::RequestInfo;

/// A node that does not answer the connection by then counts as gone.
const CONNECT: Duration = Duration::from_secs(10);
/// How much of a kubelet's refusal is repeated to the client.
const REFUSAL: usize = 2000;
/// The longest answer that is taken from a kubelet: some KiB a Pod.
const SUMMARY: usize = 16 << 20;
const BUFFER: usize = 32 * 1024;
/// WebSocket protocols that a container runtime speaks.
const RUNTIME_PROTOCOLS: &[&str] =
    &["v4.channel.k8s.io", "v4.base64.channel.k8s.io", "channel.k8s.io", "base64.channel.k8s.io"];
/// WebSocket port-forwarding as old clients do it, without a tunnel.
const PORT_PROTOCOLS: &[&str] = &["v4.base64.channel.k8s.io", "v4.channel.k8s.io", "portforward.k8s.io"];

/// Leaves of the WebSocket protocols that are offered those that the runtime speaks; refuses when there is none, which
/// makes kubectl try SPDY.
pub(super) fn settle_protocols(headers: &mut HeaderMap) -> Result<(), ApiError> {
    let websocket =
        headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if !websocket {
        return Ok(());
    }
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let offered: Vec<String> = offered
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|protocol| protocol.trim().to_owned())
        .collect();
    if offered.is_empty() {
        return Ok(());
    }
    let known = |protocol: &&String| {
        RUNTIME_PROTOCOLS.contains(&protocol.as_str()) || PORT_PROTOCOLS.contains(&protocol.as_str())
    };
    let spoken: Vec<&str> = offered.iter().filter(known).map(String::as_str).collect();
    let value = HeaderValue::from_str(&spoken.join(", ")).ok().filter(|_| !spoken.is_empty());
    match value {
        Some(value) => {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
            Ok(())
        }
        None => {
            let why = format!("unable to upgrade: no supported WebSocket protocol among {offered:?}");
            Err(ApiError::bad_request(why))
        }
    }
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

impl Streams {
    /// Passes a request on; after a 101 both ends talk to each other until one of them ends.
    pub(super) async fn forward(
        &self,
        location: Location,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        let upgrade = request.headers().contains_key(header::UPGRADE);
        let client_side = upgrade.then(|| request.extensions_mut().remove::<OnUpgrade>()).flatten();
        let (parts, body) = request.into_parts();
        let mut onward = Request::builder().method(parts.method).uri(&location.path);
        let length = parts.headers.get(header::CONTENT_LENGTH).cloned();
        if let Some(headers) = onward.headers_mut() {
            for (name, value) in parts.headers.iter().filter(|(name, _)| !stays_here(name)) {
                if upgrade || (name != header::CONNECTION && name != header::UPGRADE) {
                    headers.append(name.clone(), value.clone());
                }
            }
            if let Some(length) = length {
                headers.insert(header::CONTENT_LENGTH, length);
            }
        }
        let body = if upgrade { Body::empty() } else { body };
        let onward = onward.body(body).map_err(ApiError::internal)?;
        let mut response = self.send(&location, onward).await.map_err(|error| dialing(&error))?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(downstream(response));
        }
        let Some(client_side) = client_side else {
            return Err(ApiError::bad_request("Upgrade request required"));
        };
        let server_side = hyper::upgrade::on(&mut response);
        self.tasks.spawn_until_stop(async move {
            if let Err(error) = splice(client_side, server_side).await {
                tracing::debug!(%error, "stream");
            }
        });
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *answer.headers_mut() = response.headers().clone();
        Ok(answer)
    }

    /// A container's log: what the kubelet sends, as it comes; its refusals as Status.
    pub(super) async fn log(
        &self,
        info: &RequestInfo,
        location: Location,
    ) -> Result<Response<Body>, ApiError> {
        let request = Request::get(&location.path).body(Body::empty()).map_err(ApiError::internal)?;
        let response = self.send(&location, request).await.map_err(|error| {
            let Location { host, port, path, .. } = &location;
            ApiError::internal(format!("Get \"https://{host}:{port}{path}\": {error}"))
        })?;
        if response.status().is_success() {
            let mut answer = downstream(response);
            answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            return Ok(answer);
        }
        let status = response.status();
        let body = Limited::new(response.into_body(), REFUSAL).collect().await;
        let text = body.map(|body| body.to_bytes()).unwrap_or_default();
        Err(refusal(info, status, String::from_utf8_lossy(&text).trim_end()))
    }

    /// What a node's kubelet answers at `path`, as JSON. Fails when it does not answer with success.
    pub async fn kubelet_json(&self, node: &Value, path: &str) -> Result<Value, ApiError> {
        let (host, port) = target::kubelet_address(node)?;
        let location = Location { host, port, dial: Dial::Kubelet, path: path.to_owned() };
        let request = Request::get(path).body(Body::empty()).map_err(ApiError::internal)?;
        let response = self.send(&location, request).await.map_err(ApiError::internal)?;
        if !response.status().is_success() {
            return Err(ApiError::internal(format!("the kubelet answered {}", response.status())));
        }
        let body = Limited::new(response.into_body(), SUMMARY).collect().await;
        let body = body.map_err(|error| ApiError::internal(error.to_string()))?.to_bytes();
        serde_json::from_slice(&body).map_err(ApiError::internal)
    }

    async fn send(
        &self,
        location: &Location,
        mut request: Request<Body>,
    ) -> Result<Response<hyper::body::Incoming>, std::io::Error> {
        let host = format!("{}:{}", location.host, location.port);
        let host = HeaderValue::from_str(&host).map_err(std::io::Error::other)?;
        request.headers_mut().insert(header::HOST, host);
        let connect = TcpStream::connect((location.host, location.port));
        let stream = tokio::time::timeout(CONNECT, connect)
            .await
            .map_err(|_| std::io::Error::new(std::io::ErrorKind::TimedOut, "i/o timeout"))??;
        stream.set_nodelay(true)?;
        let tls = match location.dial {
            Dial::Plain => return self.exchange(stream, request).await,
            Dial::Anonymous => &self.anybody,
            Dial::Kubelet => &self.kubelets,
        };
        let name = ServerName::IpAddress(location.host.into());
        let connector = TlsConnector::from(tls.clone());
        let stream = tokio::time::timeout(CONNECT, connector.connect(name, stream)).await??;
        self.exchange(stream, request).await
    }

    /// One request on one connection, which the response's body (or the upgraded stream) keeps open.
    async fn exchange<S>(
        &self,
        stream: S,
        request: Request<Body>,
    ) -> Result<Response<hyper::body::Incoming>, std::io::Error>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(std::io::Error::other)?;
        self.tasks.spawn_until_stop(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "connection to a node");
            }
        });
        sender.send_request(request).await.map_err(std::io::Error::other)
    }
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
fn downstream(response: Response<hyper::body::Incoming>) -> Response<Body> {
    let (mut parts, body) = response.into_parts();
    for name in [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE] {
        parts.headers.remove(name);
    }
    parts.extensions = http::Extensions::new();
    parts.version = http::Version::default();
    Response::from_parts(parts, Body::new(body.map_frame(|frame| frame.map_data(Bytes::from))))
}

fn dialing(error: &std::io::Error) -> ApiError {
    ApiError::internal(format!("error dialing backend: {error}"))
}

/// A kubelet's refusal in upstream's clothes.
fn refusal(info: &RequestInfo, status: StatusCode, text: &str) -> ApiError {
    match status.as_u16() {
        400 => ApiError::bad_request(text),
        404 => {
            let why = format!(
                "the server could not find the requested resource ( {} {})",
                info.resource, info.name
            );
            let why = if text.is_empty() { why } else { text.to_owned() };
            ApiError::new(404, Reason::NotFound, why)
        }
        code if code >= 500 => ApiError::internal(text),
        code => ApiError::new(code, Reason::Unknown, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(offered: &str, expect: Option<&str>) {
        let mut headers = HeaderMap::new();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, offered.parse().unwrap());
        let settled = settle_protocols(&mut headers);
        let left = settled.ok().map(|()| headers[header::SEC_WEBSOCKET_PROTOCOL].to_str().unwrap());
        assert_eq!(left, expect, "{offered}");
    }

    #[test]
    fn only_protocols_that_runtimes_speak_go_on() {
        check("v5.channel.k8s.io", None);
        check("v5.channel.k8s.io, v4.channel.k8s.io", Some("v4.channel.k8s.io"));
        check("v4.channel.k8s.io", Some("v4.channel.k8s.io"));
        check("SPDY/3.1+portforward.k8s.io", None);
        let mut spdy = HeaderMap::new();
        spdy.insert(header::UPGRADE, HeaderValue::from_static("SPDY/3.1"));
        assert!(settle_protocols(&mut spdy).is_ok());
    }

    #[test]
    fn credentials_stay_here() {
        assert!(stays_here(&header::AUTHORIZATION));
        assert!(stays_here(&HeaderName::from_static("impersonate-user")));
        assert!(!stays_here(&header::UPGRADE));
        assert!(!stays_here(&HeaderName::from_static("x-stream-protocol-version")));
    }
}
