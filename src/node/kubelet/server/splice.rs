//! Joins a client's stream with the runtime's streaming server.

use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::routes::{Body, Refusal};
use crate::cri::Runtime;
use crate::cri::api::ContainerState;
use rt::Tasks;

/// Hands an upgrade request on to the runtime's streaming server at `url` and joins the two connections byte by byte:
/// whatever is spoken inside (SPDY, WebSocket) passes untouched.
///
/// With a `life` the stream ends when that container does: the runtime may never close a stream that was opened while
/// the container ended. Fails when the runtime cannot be reached, or the container has ended meanwhile.
pub async fn forward(
    request: Request<Incoming>,
    url: &str,
    tasks: &Tasks,
    mut life: Option<Life>,
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
    // A container that ends soon has said what it had to say before anybody listened: then its log is the answer, and the
    // client asks for that when it is refused here.
    if let Some(life) = &mut life
        && life.ends_soon().await
    {
        return Err(Refusal(StatusCode::NOT_FOUND, "the container has ended".to_owned()));
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
        let copied = tokio::io::copy_bidirectional(&mut near, &mut far);
        tokio::pin!(copied);
        let ended = async {
            match &mut life {
                Some(life) => life.ended().await,
                None => std::future::pending().await,
            }
            // What the container wrote last is on its way.
            tokio::time::sleep(LINGER).await;
        };
        tokio::select! {
            result = &mut copied => if let Err(error) = result {
                tracing::debug!(%error, "a stream ended early");
            },
            () = ended => tracing::debug!("a stream ended with its container"),
        }
    });
    Ok(response)
}

/// So long a container must last after somebody attached to it.
const SETTLE: Duration = Duration::from_millis(100);
/// So long one must last that has just begun and said something already: who attached has missed that.
const SPOKEN: Duration = Duration::from_millis(1500);
/// Whoever began less than this ago has just begun.
const JUST_BEGUN: SignedDuration = SignedDuration::from_secs(10);
/// A stream outlives its container by this much.
const LINGER: Duration = Duration::from_secs(1);

/// A container's life, as a stream that belongs to it follows it.
pub struct Life {
    pub runtime: Runtime,
    pub id: String,
    /// Moves whenever the runtime reports something about any container.
    pub events: watch::Receiver<u64>,
}

impl Life {
    async fn lasts(&self) -> bool {
        match self.runtime.container_status(&self.id).await {
            Ok(status) => {
                matches!(status.state(), ContainerState::ContainerRunning | ContainerState::ContainerCreated)
            }
            Err(error) => !error.is_not_found(),
        }
    }

    /// Whether the container ends before it is known to last.
    async fn ends_soon(&mut self) -> bool {
        if tokio::time::timeout(SETTLE, self.ended()).await.is_ok() {
            return true;
        }
        let Ok(status) = self.runtime.container_status(&self.id).await else { return false };
        // A prompt is no line, and so not in the log yet.
        let spoken = tokio::fs::metadata(&status.log_path).await.map_or(0, |log| log.len());
        let begun =
            Timestamp::from_nanosecond(i128::from(status.started_at)).unwrap_or(Timestamp::UNIX_EPOCH);
        let age = Timestamp::now().duration_since(begun);
        let more = patience(age, spoken);
        !more.is_zero() && tokio::time::timeout(more, self.ended()).await.is_ok()
    }

    /// Returns once the container has ended.
    async fn ended(&mut self) {
        loop {
            self.events.borrow_and_update();
            if !self.lasts().await {
                return;
            }
            if self.events.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// How long one waits for the end of a container of this age that has written so many bytes of log.
fn patience(age: SignedDuration, spoken: u64) -> Duration {
    if spoken > 0 && age < JUST_BEGUN { SPOKEN } else { Duration::ZERO }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_just_begun_and_spoken_may_end_soon() {
        let check = |seconds: i64, spoken: u64, expect: Duration| {
            assert_eq!(patience(SignedDuration::from_secs(seconds), spoken), expect, "{seconds} {spoken}");
        };
        check(0, 0, Duration::ZERO);
        check(0, 40, SPOKEN);
        check(11, 40, Duration::ZERO);
    }
}
