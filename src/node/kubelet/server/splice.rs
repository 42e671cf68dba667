use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::routes::{Body, Refusal};
use crate::rt::Tasks;

/// Hands an upgrade request on to the runtime's streaming server at `url` and joins the two connections byte by byte:
/// whatever is spoken inside (SPDY, WebSocket) passes untouched.
pub async fn forward(
    request: Request<Incoming>,
    url: &str,
    tasks: &Tasks,
) -> Result<Response<Body>, Refusal> {
    let uri: Uri = url.parse().map_err(|error| Refusal::internal(format!("{url}: {error}")))?;
    let host = uri.host().unwrap_or("127.0.0.1").to_owned();
    let port = uri.port_u16().unwrap_or(80);
    let tcp = tokio::time::timeout(Duration::from_secs(10), TcpStream::connect((host.as_str(), port)))
        .await
        .map_err(Refusal::internal)?
        .map_err(Refusal::internal)?;
    let _ = tcp.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.map_err(Refusal::internal)?;
    tasks.spawn_until_stop(async move {
        let _ = connection.with_upgrades().await;
    });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut onward = Request::builder().method(request.method()).uri(path);
    if let Some(headers) = onward.headers_mut() {
        copy_headers(request.headers(), headers);
        if let Ok(value) = format!("{host}:{port}").parse() {
            headers.insert(header::HOST, value);
        }
    }
    let onward = onward.body(Empty::<Bytes>::new()).map_err(Refusal::internal)?;
    let answer = sender.send_request(onward).await.map_err(Refusal::internal)?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (parts, body) = answer.into_parts();
        return Ok(Response::from_parts(parts, body.map_err(std::io::Error::other).boxed()));
    }
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    copy_headers(answer.headers(), response.headers_mut());
    tasks.spawn_until_stop(async move {
        let (near, far) = match tokio::try_join!(hyper::upgrade::on(request), hyper::upgrade::on(answer)) {
            Ok(both) => both,
            Err(error) => return tracing::debug!(%error, "a stream was not upgraded"),
        };
        let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
        if let Err(error) = tokio::io::copy_bidirectional(&mut near, &mut far).await {
            tracing::debug!(%error, "a stream ended early");
        }
    });
    Ok(response)
}

/// What the upgrade needs, and nothing that says who asked.
fn copy_headers(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from {
        let text = name.as_str();
        let keep = matches!(*name, header::CONNECTION | header::UPGRADE)
            || text.starts_with("x-stream-protocol")
            || text.starts_with("x-accepted-stream")
            || text.starts_with("sec-websocket");
        if keep {
            to.append(name, value.clone());
        }
    }
}
