//! One request on its way to an endpoint, and the answer on its way back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::affinity::Affinity;
use super::body::{BoxError, Copied, Lent, Streamed, text};
use super::filters::{Filter, HeaderChanges, Seen, is_preflight, may};
use super::find::{Found, Names, Services};
use super::headers::{Host, forwarded, host_of, is_grpc, is_upgrade, strip};
use super::rules::{Action, Asked, Backend, Port, Protocol, Rule};
use super::upstream::{SendError, Upstream, Via};
use rt::Tasks;

/// So many endpoints are tried before a request fails: in a roll, many of those that are known may have gone at once.
const TRIES: usize = 8;
/// So long a request waits for another endpoint when all that are known have failed: those of a roll are known here a
/// moment after the old ones have gone, and on a busy machine a few moments.
const ROLL: Duration = Duration::from_secs(5);
/// A name's endpoint must answer its connection within this when no rule says so.
const MIRROR_CONNECT: Duration = Duration::from_secs(5);

/// What is known of a client beside its request.
#[derive(Clone, Debug)]
pub struct Peer {
    pub address: SocketAddr,
    /// The port that it came by.
    pub port: u16,
    /// The name that TLS asked for, maybe empty; None without TLS.
    pub name: Option<Arc<str>>,
}

impl Peer {
    pub(super) fn tls(&self) -> bool {
        self.name.is_some()
    }
}

/// Why a request is not sent on: what the client is told.
struct Refusal(Box<Response<Streamed>>);

fn refuse(status: StatusCode, why: impl Into<Bytes>) -> Refusal {
    let mut response = Response::new(text(why));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    Refusal(Box::new(response))
}

fn too_large() -> Refusal {
    refuse(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than this route takes\n")
}

/// A request that filters are applied to.
struct Steps<'a> {
    rule: &'a Rule,
    parts: Parts,
    path: String,
    mirrors: Vec<&'a Backend>,
    /// What is changed in the answer.
    after: Vec<&'a HeaderChanges>,
    /// What the answer says besides.
    besides: HeaderMap,
}

/// A request that all filters have been applied to.
struct Outgoing<'a> {
    backend: &'a Backend,
    steps: Steps<'a>,
}

/// Sends requests on.
pub struct Forwarder {
    services: Services,
    names: Names,
    upstream: Upstream,
    next: AtomicUsize,
    tasks: Tasks,
}

impl Forwarder {
    /// A forwarder without connections.
    pub fn new(services: Services, names: Names, tasks: Tasks) -> Self {
        Self { services, names, upstream: Upstream::new(tasks.clone()), next: AtomicUsize::new(0), tasks }
    }

    /// Answers one request as the port says.
    pub async fn handle(
        self: &Arc<Self>,
        port: &Port,
        request: Request<Incoming>,
        peer: &Peer,
    ) -> Response<Streamed> {
        self.answer(port, request, peer).await.unwrap_or_else(|Refusal(response)| *response)
    }

    async fn answer(
        self: &Arc<Self>,
        port: &Port,
        mut request: Request<Incoming>,
        peer: &Peer,
    ) -> Result<Response<Streamed>, Refusal> {
        let Some(host) = host_of(&request) else {
            return Err(refuse(StatusCode::BAD_REQUEST, "no host was asked for\n"));
        };
        let rule = rule(port, &request, peer, &host)?;
        let upgrade = is_upgrade(request.headers()).then(|| hyper::upgrade::on(&mut request));
        let limit = rule.act.settings.body_limit.filter(|_| !request.body().is_end_stream());
        if limit.is_some_and(|limit| request.body().size_hint().lower() > limit) {
            return Err(too_large());
        }
        let (parts, body) = request.into_parts();
        let outgoing = self.outgoing(rule, parts, peer, &host, upgrade.is_some()).await?;
        let body = match limit.and_then(|limit| usize::try_from(limit).ok()) {
            Some(limit) => Limited::new(body, limit).boxed_unsync(),
            None => body.map_err(BoxError::from).boxed_unsync(),
        };
        self.send(outgoing, body, upgrade).await
    }

    /// Applies the rule's filters, then those of the backend whose turn it is.
    async fn outgoing<'a>(
        &self,
        rule: &'a Rule,
        mut parts: Parts,
        peer: &Peer,
        host: &Host,
        upgrade: bool,
    ) -> Result<Outgoing<'a>, Refusal> {
        let path = parts.uri.path().to_owned();
        let protocol = parts.headers.get(header::UPGRADE).cloned().filter(|_| upgrade);
        forwarded(&mut parts.headers, peer, host);
        if let Some(protocol) = protocol {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            parts.headers.insert(header::UPGRADE, protocol);
        }
        let backend = rule.act.backend();
        let of_backend = backend.iter().flat_map(|backend| &backend.filters);
        let mut steps =
            Steps { rule, path, parts, mirrors: Vec::new(), after: Vec::new(), besides: HeaderMap::new() };
        for filter in rule.act.filters.iter().chain(of_backend) {
            self.apply(filter, &mut steps, peer, host).await?;
        }
        match backend {
            Some(backend) => Ok(Outgoing { backend, steps }),
            None => Err(refuse(rule.act.settings.no_backend, "this route has no backend\n")),
        }
    }

    async fn apply<'a>(
        &self,
        filter: &'a Filter,
        to: &mut Steps<'a>,
        peer: &Peer,
        host: &Host,
    ) -> Result<(), Refusal> {
        let headers = &mut to.parts.headers;
        match filter {
            Filter::RequestHeaders(changes) => changes.apply(headers),
            Filter::ResponseHeaders(changes) => to.after.push(changes),
            Filter::Redirect(redirect) => {
                let seen = Seen {
                    tls: peer.tls(),
                    port: host.port.unwrap_or(peer.port),
                    host: &host.name,
                    path: to.parts.uri.path(),
                    query: to.parts.uri.query(),
                };
                if let Some(location) = redirect.location(&to.rule.when.path, &seen) {
                    return Err(moved(redirect.status, &location));
                }
            }
            Filter::Rewrite(rewrite) => {
                if let Some(host) = &rewrite.host {
                    headers.insert(header::HOST, host.clone());
                }
                if let Some(change) = &rewrite.path {
                    to.path = change.apply(&to.rule.when.path, to.parts.uri.path());
                }
            }
            Filter::Mirror(backend, thousandths) => {
                if rand::random_range(0..1000) < *thousandths {
                    to.mirrors.push(backend);
                }
            }
            Filter::Cors(cors) if is_preflight(&to.parts.method, headers) => {
                let mut answer = refuse(StatusCode::NO_CONTENT, Bytes::new());
                *answer.0.headers_mut() = cors.preflight(headers);
                return Err(answer);
            }
            Filter::Cors(cors) => to.besides.extend(cors.answer(headers)),
            Filter::Users { users, realm } => {
                let (known, asked) = (users.clone(), headers.clone());
                let known = self.tasks.spawn_blocking(move || known.know(&asked)).await;
                if !known.unwrap_or(false) {
                    return Err(unknown(realm));
                }
            }
            Filter::Clients { of, but } if !may(peer.address.ip().to_canonical(), of, but) => {
                return Err(refuse(StatusCode::FORBIDDEN, "this route is not for clients of your network\n"));
            }
            Filter::Clients { .. } => {}
            Filter::Refuse(status, why) => return Err(refuse(*status, why.clone())),
        }
        Ok(())
    }

    async fn send(
        self: &Arc<Self>,
        outgoing: Outgoing<'_>,
        body: Streamed,
        upgrade: Option<OnUpgrade>,
    ) -> Result<Response<Streamed>, Refusal> {
        let Outgoing { backend, steps } = outgoing;
        let body = self.mirrored(&steps, body);
        let attempt = self.attempts(&steps, backend, body, upgrade.is_some());
        let (response, cookie) = match steps.rule.act.settings.request_timeout {
            None => attempt.await?,
            Some(limit) => tokio::time::timeout(limit, attempt)
                .await
                .map_err(|_| refuse(StatusCode::GATEWAY_TIMEOUT, "the backend did not answer in time\n"))??,
        };
        self.finish(response, upgrade, &steps, cookie)
    }

    /// Tries one endpoint after the other until one answers. A request that was not sent may go to another one; so may one
    /// that was, when doing it twice is doing it once.
    async fn attempts(
        &self,
        outgoing: &Steps<'_>,
        backend: &Backend,
        body: Streamed,
        upgrade: bool,
    ) -> Result<(Response<Incoming>, Option<HeaderValue>), Refusal> {
        let settings = &outgoing.rule.act.settings;
        let repeatable = outgoing.parts.method.is_idempotent() && body.is_end_stream() && !upgrade;
        let body = Lent::new(body);
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let (mut tried, mut failure) = (Vec::new(), None);
        while tried.len() < TRIES {
            let Some((found, endpoints)) = self.untried(backend, &outgoing.rule.act, &tried).await? else {
                break;
            };
            let affinity = settings.affinity.as_ref();
            let own = affinity
                .filter(|_| tried.is_empty())
                .and_then(|a| a.own(&outgoing.parts.headers, &endpoints));
            let endpoint = endpoints[own.unwrap_or(first % endpoints.len())];
            tried.push(endpoint);
            let authority = outgoing.parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
            let authority = authority.unwrap_or_default();
            let name = found.name.as_ref().map_or(authority, |(name, _)| name.as_str());
            let via = Via {
                endpoint,
                protocol: protocol(settings.protocol.or(found.protocol), &outgoing.parts.headers, upgrade),
                name: name.rsplit_once(':').map_or(name, |(name, _)| name),
                connect_timeout: settings.connect_timeout,
            };
            let mut request = Request::from_parts(outgoing.parts.clone(), body.again());
            *request.uri_mut() = target(&outgoing.path, outgoing.parts.uri.query())?;
            let limit = settings.attempt_timeout.unwrap_or(Duration::MAX);
            let sent = tokio::time::timeout(limit, self.upstream.send(via, authority, request)).await;
            failure = Some(match sent {
                Ok(Ok(response)) => {
                    let cookie =
                        affinity.filter(|_| own.is_none()).and_then(|a| Affinity::set_cookie(a, endpoint));
                    return Ok((response, cookie));
                }
                Ok(Err(SendError::Unsent(error))) => {
                    tracing::debug!(%endpoint, %error, "an endpoint takes no connection");
                    refuse(StatusCode::BAD_GATEWAY, format!("{endpoint} takes no connection: {error}\n"))
                }
                Ok(Err(SendError::Sent(error))) if body_too_large(&error) => return Err(too_large()),
                Ok(Err(SendError::Sent(error))) => {
                    tracing::debug!(%endpoint, %error, "an endpoint did not answer");
                    let refusal =
                        refuse(StatusCode::BAD_GATEWAY, format!("{endpoint} did not answer as HTTP\n"));
                    if !repeatable {
                        return Err(refusal);
                    }
                    refusal
                }
                Err(_elapsed) => {
                    let why = format!("{endpoint} did not answer in time\n");
                    return Err(refuse(StatusCode::GATEWAY_TIMEOUT, why));
                }
            });
        }
        Err(failure.unwrap_or_else(|| refuse(settings.no_backend, "this route has no backend\n")))
    }

    /// Where the backend takes connections, but for the endpoints that this request has tried; None when no other one is
    /// known in time.
    async fn untried(
        &self,
        backend: &Backend,
        act: &Action,
        tried: &[SocketAddr],
    ) -> Result<Option<(Found, Vec<SocketAddr>)>, Refusal> {
        let look = async {
            loop {
                let mut changes = self.services.changes();
                match self.endpoints(backend, act).await {
                    Ok((found, mut endpoints)) => {
                        endpoints.retain(|endpoint| !tried.contains(endpoint));
                        if !endpoints.is_empty() {
                            return Ok(Some((found, endpoints)));
                        }
                    }
                    Err(none) if tried.is_empty() => return Err(none),
                    Err(_) => {}
                }
                if changes.changed().await.is_err() {
                    return Ok(None);
                }
            }
        };
        tokio::time::timeout(ROLL, look).await.unwrap_or(Ok(None))
    }

    /// Where the backend takes connections now: never empty.
    async fn endpoints(&self, backend: &Backend, act: &Action) -> Result<(Found, Vec<SocketAddr>), Refusal> {
        let unusable = |why: String| refuse(act.settings.no_backend, why + "\n");
        let to = backend.to.as_ref().map_err(|why| unusable(why.clone()))?;
        let service = || format!("Service {}/{}", to.namespace, to.service);
        let found = self.services.find(to);
        let found =
            found.ok_or_else(|| unusable(format!("{} has no such port, or is missing", service())))?;
        let endpoints = match &found.name {
            Some((name, port)) => self.names.addresses(name, *port).await,
            None => found.endpoints.clone(),
        };
        if endpoints.is_empty() {
            let why = match &found.name {
                Some((name, _)) => format!("{}: {name} has no address\n", service()),
                None => format!("{} has no ready endpoints\n", service()),
            };
            return Err(refuse(StatusCode::SERVICE_UNAVAILABLE, why));
        }
        Ok((found, endpoints))
    }

    /// Sends copies to the rule's mirrors; what comes back is the body that the endpoint gets.
    fn mirrored(self: &Arc<Self>, outgoing: &Steps<'_>, body: Streamed) -> Streamed {
        if outgoing.mirrors.is_empty() {
            return body;
        }
        let (body, copies) = Copied::new(body, outgoing.mirrors.len());
        for (backend, copy) in outgoing.mirrors.iter().zip(copies) {
            let Ok(uri) = target(&outgoing.path, outgoing.parts.uri.query()) else { continue };
            let mut request = Request::from_parts(outgoing.parts.clone(), Lent::new(copy));
            *request.uri_mut() = uri;
            let (own, backend, act) = (self.clone(), (*backend).clone(), outgoing.rule.act.clone());
            self.tasks.spawn_until_stop(async move { own.mirror(&backend, &act, request).await });
        }
        body.boxed_unsync()
    }

    async fn mirror(&self, backend: &Backend, act: &Action, request: Request<Lent>) {
        let Ok((found, endpoints)) = self.endpoints(backend, act).await else { return };
        let endpoint = endpoints[self.next.fetch_add(1, Ordering::Relaxed) % endpoints.len()];
        let authority = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let authority = authority.unwrap_or_default().to_owned();
        let via = Via {
            endpoint,
            protocol: protocol(found.protocol, request.headers(), false),
            name: &authority,
            connect_timeout: MIRROR_CONNECT,
        };
        if let Ok(response) = self.upstream.send(via, &authority, request).await {
            // Read to its end, so that the mirror sees an ordinary client; what it says is nobody's business.
            let mut body = response.into_body();
            while body.frame().await.is_some_and(|frame| frame.is_ok()) {}
        }
    }

    fn finish(
        &self,
        mut response: Response<Incoming>,
        upgrade: Option<OnUpgrade>,
        outgoing: &Steps<'_>,
        cookie: Option<HeaderValue>,
    ) -> Result<Response<Streamed>, Refusal> {
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if switched {
            let Some(client) = upgrade else {
                let why = "the endpoint switched protocols unasked\n";
                return Err(refuse(StatusCode::BAD_GATEWAY, why));
            };
            let endpoint = hyper::upgrade::on(&mut response);
            self.tasks.spawn_until_stop(splice(client, endpoint));
        } else {
            strip(response.headers_mut());
        }
        let headers = response.headers_mut();
        outgoing.after.iter().for_each(|changes| changes.apply(headers));
        headers.extend(outgoing.besides.clone());
        if let Some(cookie) = cookie {
            headers.append(header::SET_COOKIE, cookie);
        }
        let (parts, body) = response.into_parts();
        let body = if switched { text(Bytes::new()) } else { body.map_err(BoxError::from).boxed_unsync() };
        let mut answer = Response::new(body);
        *answer.status_mut() = parts.status;
        *answer.headers_mut() = parts.headers;
        Ok(answer)
    }

    /// Where a connection that is not read goes to.
    pub(super) async fn stream_to(&self, act: &Action) -> Option<SocketAddr> {
        let (_, endpoints) = self.endpoints(act.backend()?, act).await.ok()?;
        Some(endpoints[self.next.fetch_add(1, Ordering::Relaxed) % endpoints.len()])
    }
}

/// The rule for a request, of the site that its host belongs to.
fn rule<'a, B>(port: &'a Port, request: &Request<B>, peer: &Peer, host: &Host) -> Result<&'a Rule, Refusal> {
    let missing = || refuse(StatusCode::NOT_FOUND, "no route has this host and path\n");
    let site = port.sites.get(&host.name).ok_or_else(missing)?;
    // A client that got its certificate from one listener may not reach another one over the same connection.
    let other = |name: &Arc<str>| port.sites.get(name).is_some_and(|named| !Arc::ptr_eq(named, site));
    if peer.name.as_ref().is_some_and(other) {
        return Err(refuse(StatusCode::MISDIRECTED_REQUEST, "this host needs a connection of its own\n"));
    }
    let asked = Asked {
        host: &host.name,
        path: request.uri().path(),
        query: request.uri().query().unwrap_or_default(),
        method: request.method(),
        headers: request.headers(),
    };
    site.rule(&asked).ok_or_else(missing)
}

/// What an endpoint is spoken to in.
fn protocol(said: Option<Protocol>, headers: &HeaderMap, upgrade: bool) -> Protocol {
    match said.unwrap_or_default() {
        // Only HTTP/1.1 is left by an upgrade.
        Protocol::Http2 if upgrade => Protocol::Http,
        Protocol::Http2Tls if upgrade => Protocol::Https,
        Protocol::Http if is_grpc(headers) => Protocol::Http2,
        Protocol::Https if is_grpc(headers) => Protocol::Http2Tls,
        said => said,
    }
}

fn target(path: &str, query: Option<&str>) -> Result<Uri, Refusal> {
    let target = query.map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    target.parse().map_err(|_| refuse(StatusCode::BAD_REQUEST, "the path cannot be sent on\n"))
}

fn moved(status: StatusCode, location: &str) -> Refusal {
    let mut answer = refuse(status, Bytes::new());
    match HeaderValue::from_str(location) {
        Ok(location) => drop(answer.0.headers_mut().insert(header::LOCATION, location)),
        Err(_) => return refuse(StatusCode::BAD_REQUEST, "the path cannot be sent on\n"),
    }
    answer
}

fn unknown(realm: &str) -> Refusal {
    let mut answer = refuse(StatusCode::UNAUTHORIZED, "a name and a password are needed\n");
    let realm = realm.replace(['"', '\\'], "");
    if let Ok(value) = HeaderValue::from_str(&format!("Basic realm=\"{realm}\"")) {
        answer.0.headers_mut().insert(header::WWW_AUTHENTICATE, value);
    }
    answer
}

fn body_too_large(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source())
        .any(|error| error.is::<http_body_util::LengthLimitError>())
}

/// Bytes both ways until both ends have ended.
async fn splice(client: OnUpgrade, endpoint: OnUpgrade) {
    let (Ok(client), Ok(endpoint)) = tokio::join!(client, endpoint) else { return };
    let (mut client, mut endpoint) = (TokioIo::new(client), TokioIo::new(endpoint));
    // How a connection ends is its ends' affair.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut endpoint).await;
}
