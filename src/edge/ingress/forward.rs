//! One request on its way to an endpoint, and the answer on its way back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::body::{BoxError, Lent, Streamed, text};
use super::routes::{Route, Table};
use super::{HTTPS, Resolve};
use crate::rt::Tasks;

/// How long a connection to an endpoint may take.
const CONNECT: std::time::Duration = std::time::Duration::from_secs(5);

/// Headers that are between two neighbours and go no further (RFC 9110, 7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// What is known of a client beside its request.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    pub tls: bool,
}

/// Sends requests on.
pub struct Forwarder {
    resolve: Resolve,
    http1: Client<HttpConnector, Lent>,
    http2: Client<HttpConnector, Lent>,
    next: AtomicUsize,
    tasks: Tasks,
}

impl Forwarder {
    /// A forwarder without connections.
    pub fn new(resolve: Resolve, tasks: Tasks) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let builder = || {
            let mut builder = Client::builder(TokioExecutor::new());
            builder.pool_timer(TokioTimer::new());
            builder
        };
        let http2 = builder().http2_only(true).build(connector.clone());
        // A connection per request, as nginx has it by default: one that is kept blocks a server that takes one at a time,
        // and may lead to an endpoint that has just ended.
        let http1 = builder().pool_max_idle_per_host(0).build(connector);
        Self { resolve, http1, http2, next: AtomicUsize::new(0), tasks }
    }

    /// Answers one request by the table.
    pub async fn handle(&self, table: &Table, request: Request<Incoming>, peer: Peer) -> Response<Streamed> {
        let Some(host) = host_of(&request) else {
            return say(StatusCode::BAD_REQUEST, "no host was asked for\n");
        };
        let path = request.uri().path().to_owned();
        let Some(route) = table.route(&host, &path) else {
            return say(StatusCode::NOT_FOUND, "no Ingress has this host and path\n");
        };
        if let Some(redirect) = redirect(route, &request, &host, peer) {
            return redirect;
        }
        let limit = route.settings.body_limit.filter(|_| !request.body().is_end_stream());
        let announced = request.body().size_hint().lower();
        if limit.is_some_and(|limit| announced > limit) {
            return say(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than this Ingress takes\n");
        }
        self.send(route, request, peer, &host, limit).await
    }

    async fn send(
        &self,
        route: &Route,
        mut request: Request<Incoming>,
        peer: Peer,
        host: &str,
        limit: Option<u64>,
    ) -> Response<Streamed> {
        let endpoints = (self.resolve)(&route.backend);
        if endpoints.is_empty() {
            let service = format!("{}/{}", route.backend.namespace, route.backend.service);
            return say(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("Service {service} has no ready endpoints\n"),
            );
        }
        let upgrade = is_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
        let (mut parts, body) = request.into_parts();
        let protocol = parts.headers.get(header::UPGRADE).cloned().filter(|_| upgrade.is_some());
        forwarded(&mut parts.headers, peer, host);
        if let Some(protocol) = protocol {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(header::UPGRADE, protocol);
        }
        let grpc = parts
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let http2 = grpc || route.settings.http2;
        let client = if http2 { &self.http2 } else { &self.http1 };
        parts.version = if http2 { Version::HTTP_2 } else { Version::HTTP_11 };
        let target = route.target(parts.uri.path());
        let query = parts.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let body = Lent::new(match limit.and_then(|limit| usize::try_from(limit).ok()) {
            Some(limit) => Limited::new(body, limit).boxed_unsync(),
            None => body.map_err(BoxError::from).boxed_unsync(),
        });
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut failure = String::new();
        for at in 0..endpoints.len().min(3) {
            let endpoint = endpoints[(first + at) % endpoints.len()];
            let Ok(uri) = format!("http://{endpoint}{target}{query}").parse::<Uri>() else {
                return say(StatusCode::BAD_REQUEST, "the path cannot be sent on\n");
            };
            let mut attempt = Request::from_parts(parts.clone(), body.again());
            *attempt.uri_mut() = uri;
            let answer = tokio::time::timeout(route.settings.read_timeout, client.request(attempt)).await;
            match answer {
                Ok(Ok(response)) => return self.answer(response, upgrade),
                // Nothing of the body was sent: another endpoint may take it.
                Ok(Err(error)) if error.is_connect() => failure = format!("{endpoint} takes no connection\n"),
                Ok(Err(error)) if body_too_large(&error) => {
                    return say(
                        StatusCode::PAYLOAD_TOO_LARGE,
                        "the body is larger than this Ingress takes\n",
                    );
                }
                Ok(Err(error)) => {
                    tracing::debug!(%endpoint, %error, "an endpoint did not answer");
                    return say(StatusCode::BAD_GATEWAY, format!("{endpoint} did not answer as HTTP\n"));
                }
                Err(_elapsed) => {
                    return say(StatusCode::GATEWAY_TIMEOUT, format!("{endpoint} did not answer in time\n"));
                }
            }
        }
        say(StatusCode::BAD_GATEWAY, failure)
    }

    fn answer(&self, mut response: Response<Incoming>, upgrade: Option<OnUpgrade>) -> Response<Streamed> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = upgrade else {
                return say(StatusCode::BAD_GATEWAY, "the endpoint switched protocols unasked\n");
            };
            let endpoint = hyper::upgrade::on(&mut response);
            self.tasks.spawn_until_stop(splice(client, endpoint));
            return response.map(|_| text(Bytes::new()));
        }
        strip(response.headers_mut());
        let (parts, body) = response.into_parts();
        let mut answer = Response::new(body.map_err(BoxError::from).boxed_unsync());
        *answer.status_mut() = parts.status;
        *answer.headers_mut() = parts.headers;
        answer
    }
}

/// Bytes both ways until both ends have ended.
async fn splice(client: OnUpgrade, endpoint: OnUpgrade) {
    let (Ok(client), Ok(endpoint)) = tokio::join!(client, endpoint) else { return };
    let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(endpoint));
    // How a connection ends is its ends' affair.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut endpoint).await;
}

fn body_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.is::<http_body_util::LengthLimitError>())
}

fn say(status: StatusCode, why: impl Into<Bytes>) -> Response<Streamed> {
    let mut response = Response::new(text(why));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The host that was asked for, without its port.
fn host_of<B>(request: &Request<B>) -> Option<String> {
    let header = || request.headers().get(header::HOST)?.to_str().ok();
    let authority = request.uri().authority().map(http::uri::Authority::as_str).or_else(header)?;
    let authority: http::uri::Authority = authority.parse().ok()?;
    Some(authority.host().to_ascii_lowercase())
}

fn redirect<B>(route: &Route, request: &Request<B>, host: &str, peer: Peer) -> Option<Response<Streamed>> {
    let settings = &route.settings;
    let to = |status: u16, to: &str| {
        let mut response = say(StatusCode::from_u16(status).unwrap_or(StatusCode::FOUND), Bytes::new());
        response.headers_mut().insert(header::LOCATION, HeaderValue::from_str(to).ok()?);
        Some(response)
    };
    if settings.force_tls && !peer.tls {
        let path = request.uri().path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        return to(308, &format!("https://{host}{path}"));
    }
    if let Some((status, target)) = &settings.redirect {
        return to(*status, target);
    }
    settings.app_root.as_ref().filter(|_| request.uri().path() == "/").and_then(|root| to(302, root))
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    let tokens = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    headers.contains_key(header::UPGRADE)
        && tokens.flat_map(|value| value.split(',')).any(|token| token.trim().eq_ignore_ascii_case("upgrade"))
}

/// Takes out what concerns this connection only, and what `Connection` names.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    // Of what may follow a body, only trailers are passed on.
    let trailers = headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    if !trailers {
        headers.remove(header::TE);
    }
}

/// Tells the endpoint who asked for what.
fn forwarded(headers: &mut HeaderMap, peer: Peer, host: &str) {
    strip(headers);
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    let client = peer.address.ip().to_string();
    // What a client claims of those before it is not believed.
    set("x-forwarded-for", client.clone());
    set("x-real-ip", client);
    set("x-forwarded-proto", if peer.tls { "https" } else { "http" }.into());
    set("x-forwarded-host", host.to_owned());
    set("x-forwarded-port", if peer.tls { HTTPS } else { super::HTTP }.to_string());
    if !headers.contains_key(header::HOST)
        && let Ok(host) = HeaderValue::from_str(host)
    {
        headers.insert(header::HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_between_neighbours_go_no_further() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, x-secret"),
            ("x-secret", "1"),
            ("te", "gzip"),
            ("keep-alive", "timeout=5"),
            ("x-forwarded-for", "1.2.3.4"),
            ("accept", "*/*"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let peer = Peer { address: ([192, 0, 2, 1], 9).into(), tls: true };
        forwarded(&mut headers, peer, "a.example");
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let expect =
            "accept host x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-real-ip";
        assert_eq!(names.join(" "), expect);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
    }

    #[test]
    fn hosts_are_read_without_ports() {
        let host =
            |value: &'static str| host_of(&Request::builder().header("host", value).body(()).expect("built"));
        assert_eq!(host("A.example:8080").as_deref(), Some("a.example"));
        assert_eq!(host("10.0.0.1").as_deref(), Some("10.0.0.1"));
        assert_eq!(host("a b"), None);
    }
}
