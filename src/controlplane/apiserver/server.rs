//! The server: built from its parts once, then every request goes through [`ApiServer::router`].

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::FutureExt as _;
use http::HeaderValue;
use http::header::{ACCEPT, CACHE_CONTROL, UPGRADE, USER_AGENT};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use ipnet::Ipv4Net;

use api::meta::Str;
use api::resources::{Handler, Resource, Storage, Stream, Subresource, builtin};
use api::status::ApiError;
use config::BuildInfo;
use pki::{Identity, Key};
use rt::{Clock, Stop, SystemClock, Tasks};
use storage::{StorageError, Store};

use super::admission::{Admission, AsyncPlugin, Policies, Webhooks};
use super::aggregation::Aggregator;
use super::allocate::{Allocator, NODE_PORTS};
use super::audit::{self, AUDIT_ID, Audit, Audited, RequestId};
use super::auth::{Authenticator, Tokens};
use super::authz::Authorizer;
use super::context::{Engine, RequestContext};
use super::conversion::Converter;
use super::fairness::{Fairness, Placed};
use super::gate::Gate;
use super::index::{Follower, Index};
use super::observe::{self, Course, TimedStore};
use super::proxy::Streams;
use super::registry::{Registry, Snapshot};
use super::request::RequestInfo;
use super::reviews::Reviews;
use super::user::UserInfo;
use super::verbs::{self, RequestBody};
use super::wire::{self, Format, MediaType, Offer, Params};
use super::{client, measured, proxy, root, special};

/// How long a request may take that is not a watch or a stream.
const PATIENCE: Duration = Duration::from_secs(60);
/// Prometheus' text form.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";

/// What a server is built from.
pub struct Options {
    pub store: Arc<dyn Store>,
    pub clock: Arc<dyn Clock>,
    /// Watches end, and what follows the store stops, when these do.
    pub tasks: Tasks,
    /// Signs ServiceAccount tokens.
    pub token_key: Key,
    /// Addresses for Services.
    pub service_cidr: Ipv4Net,
    /// Service addresses that are given only to who asks for them: the first one (`kubernetes`) and the DNS service's.
    pub reserved: Vec<Ipv4Addr>,
    /// Ports that Services may have on every node.
    pub node_ports: RangeInclusive<u16>,
    /// The way to the nodes; without it logs and the like answer 503.
    pub streams: Option<Streams>,
    /// The rows that are served from the beginning: [`api::resources::builtin`].
    pub resources: Vec<Arc<Resource>>,
    /// What other API servers know this one by; without it nothing is passed on to them.
    pub front_proxy: Option<Identity>,
    /// Whom to tell what was done; `None`: nobody.
    pub audit: Option<Arc<Audit>>,
    /// What `/version` tells.
    pub build: BuildInfo,
}

impl Options {
    /// A server of the built-in resources over `store`: the machine's clock, upstream's usual range of Service addresses, none of
    /// them reserved, and no way to nodes.
    pub fn new(store: Arc<dyn Store>, token_key: Key, tasks: Tasks) -> Self {
        Self {
            store,
            clock: Arc::new(SystemClock),
            tasks,
            token_key,
            service_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16),
            reserved: Vec::new(),
            node_ports: NODE_PORTS,
            streams: None,
            resources: builtin(),
            front_proxy: None,
            audit: None,
            build: BuildInfo::UNKNOWN,
        }
    }
}

/// The API server.
#[derive(Clone)]
pub struct ApiServer {
    shared: Arc<Shared>,
}

/// What all requests share.
struct Shared {
    engine: Engine,
    gate: Arc<Gate>,
    index: Arc<Index>,
    registry: Arc<Registry>,
    aggregator: Arc<Aggregator>,
    fairness: Arc<Fairness>,
    metrics: metrics::Registry,
    /// What clients in this process were answered.
    answers: Arc<client::Answers>,
    tokens: Arc<Tokens>,
    /// Cancelled once this server is about to go.
    leaving: Stop,
    audit: Option<Arc<Audit>>,
    build: BuildInfo,
}

impl ApiServer {
    /// Puts the parts together and reads what they need to know; nothing is bound or served yet.
    pub async fn build(options: Options) -> Result<Self, StorageError> {
        let Options {
            store,
            clock,
            tasks,
            token_key,
            service_cidr,
            reserved,
            node_ports,
            streams,
            resources,
            front_proxy,
            audit,
            build,
        } = options;
        let timed = Arc::new(TimedStore::new(store));
        let store: Arc<dyn Store> = timed.clone();
        let allocator = Allocator::new(service_cidr, &reserved, node_ports);
        let registry = Registry::new(resources, tasks.stop());
        let fairness = Fairness::new();
        let followers: Vec<Arc<dyn Follower>> = vec![allocator.clone(), registry.clone(), fairness.clone()];
        let index = Index::start(store.clone(), &registry.snapshot().table, followers, &tasks).await?;
        let authorizer = Arc::new(Authorizer::new(index.clone()));
        let tokens = Arc::new(Tokens::new(&token_key));
        let authenticator =
            Arc::new(Authenticator::new(index.clone(), tokens.clone(), authorizer.clone(), clock.clone()));
        let reviews = Reviews::new(
            index.clone(),
            authenticator.clone(),
            authorizer.clone(),
            tokens.clone(),
            clock.clone(),
        );
        let gate = Arc::new(Gate::new(authenticator, authorizer.clone()));
        let converter = Arc::new(Converter::new(index.clone()));
        let policies = Policies::new(index.clone(), registry.clone(), converter.clone());
        let waiting: Vec<Arc<dyn AsyncPlugin>> =
            vec![Arc::new(policies), Arc::new(Webhooks::new(index.clone()))];
        let admission = Arc::new(Admission::new(index.clone(), waiting, allocator, clock.clone()));
        let engine = Engine {
            store,
            clock,
            admission,
            authorizer,
            converter,
            reviews: Arc::new(reviews),
            streams: streams.map(Arc::new),
            observer: Arc::default(),
            stop: tasks.stop(),
            tasks,
        };
        let aggregator = Aggregator::new(index.clone(), registry.clone(), front_proxy, engine.tasks.clone());
        let metrics = metrics::Registry::default();
        let leaving = engine.stop.child_token();
        let shared = Shared {
            engine,
            gate,
            index,
            registry,
            aggregator,
            fairness,
            metrics,
            answers: Arc::default(),
            tokens,
            leaving,
            audit,
            build,
        };
        shared.add_metrics(timed);
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The whole API as a service: what is put behind TLS, and what in-process clients call.
    pub fn router(&self) -> Router {
        let shared = self.shared.clone();
        Router::new().fallback(move |request: Request<Body>| handle(shared.clone(), request))
    }

    /// The resources that are served.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.shared.registry
    }

    /// What `/metrics` tells; other parts of the process add theirs.
    pub fn metrics(&self) -> &metrics::Registry {
        &self.shared.metrics
    }

    /// Says from now on that this server is not ready for more; what it is asked it still answers. The first step of going, so that
    /// who spreads requests over servers leaves it out.
    pub fn leave(&self) {
        self.shared.leaving.cancel();
    }

    /// Cancelled once this server is about to go.
    pub fn leaving(&self) -> Stop {
        self.shared.leaving.clone()
    }

    /// The way to other API servers.
    pub fn aggregator(&self) -> &Arc<Aggregator> {
        &self.shared.aggregator
    }

    /// What requests are judged by.
    pub fn index(&self) -> &Arc<Index> {
        &self.shared.index
    }

    /// Where everything is stored.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.shared.engine.store
    }

    /// A client in this process that acts as `user`; no socket and no TLS between.
    pub fn client(&self, user: UserInfo) -> kube::Client {
        client::in_process(self.router(), user, self.shared.answers.clone())
    }
}

/// What was found out about a request on its way, for who tells of it afterwards.
#[derive(Default)]
struct Learned {
    placed: Option<Placed>,
    audited: Option<Audited>,
    notes: Arc<audit::Notes>,
    course: Course,
    /// What the client is warned of, whatever becomes of the request.
    deprecated: Option<Str>,
}

/// Answers one request, whatever happens on the way.
async fn handle(shared: Arc<Shared>, request: Request<Body>) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    let RequestId(id) = RequestId::of(&mut parts);
    let info = RequestInfo::new(&parts.method, parts.uri.path(), parts.uri.query());
    let (verb, uri) = (info.verb, parts.uri.clone());
    let accept = parts.headers.get(ACCEPT).cloned();
    let snapshot = shared.snapshot(&info).await;
    let target = target(&snapshot, &info);
    let stream = target.as_ref().is_ok_and(|target| target.stream().is_some());
    let others = snapshot.remotes.of_path(&info.path).is_some() && parts.headers.contains_key(UPGRADE);
    let unbounded = stream || others || info.verb == "watch";
    let observed = shared.engine.observer.begin(&parts, &info, stream);
    let mut learned = Learned::default();
    let work = shared.route(parts, body, &info, &snapshot, target, &mut learned);
    let work = AssertUnwindSafe(work).catch_unwind();
    let done = if unbounded { Ok(work.await) } else { tokio::time::timeout(PATIENCE, work).await };
    let mut panic = None;
    let answer = match done {
        Ok(Ok(answer)) => answer,
        Ok(Err(panicked)) => {
            let why = rt::panic_text(panicked.as_ref());
            tracing::error!(verb, %uri, why, "a request handler panicked");
            panic = Some(why.to_owned());
            Err(ApiError::internal(format!("this request caused apiserver to panic: {verb} {uri}")))
        }
        Err(_) => {
            learned.course.terminated = true;
            let why = format!("request did not complete within {}s", PATIENCE.as_secs());
            Err(ApiError::timeout(&why, 0))
        }
    };
    let mut response = answer.unwrap_or_else(|error| {
        if error.code >= 500 && panic.is_none() {
            tracing::warn!(verb, %uri, %error, "request failed");
        }
        wire::error(error_format(accept.as_ref()), &error)
    });
    if let Some(placed) = &learned.placed {
        placed.tell(response.headers_mut());
    }
    if let Some(warning) = &learned.deprecated {
        wire::warn(&mut response, &[warning.to_string()]);
    }
    response.headers_mut().entry(AUDIT_ID).or_insert(id);
    // Whatever needs a right is nobody else's.
    let private = HeaderValue::from_static("no-cache, private");
    response.headers_mut().entry(CACHE_CONTROL).or_insert(private);
    if let (Some(audit), Some(mut audited)) = (&shared.audit, learned.audited.take()) {
        audited.noted(&learned.notes);
        response = match panic {
            None => audit.end(audited, response).await,
            Some(why) => {
                audit.panicked(audited, &why).await;
                response
            }
        };
    }
    let waited = learned.placed.map_or(Duration::ZERO, |placed| placed.waited) + learned.notes.waited_for();
    let course = Course { waited, ..learned.course };
    shared.engine.observer.end(observed, &info, course, response)
}

/// What a request on a resource is about.
struct Target<'a> {
    resource: &'a Arc<Resource>,
    subresource: Option<&'a Subresource>,
}

impl Target<'_> {
    fn handler(&self) -> Option<Handler> {
        self.subresource.map(|subresource| subresource.handler)
    }

    fn stream(&self) -> Option<Stream> {
        match self.handler()? {
            Handler::Stream(stream) => Some(stream),
            _ => None,
        }
    }

    fn verbs(&self) -> &'static [&'static str] {
        self.subresource.map_or(self.resource.verbs, |subresource| subresource.verbs)
    }
}

/// What went wrong is told in the format that was asked for, if it is one that can tell it.
fn error_format(accept: Option<&HeaderValue>) -> Format {
    let accept = accept.and_then(|header| header.to_str().ok());
    MediaType::negotiate(accept, Offer::ERRORS).unwrap_or_default().format
}

/// The resource and subresource that a path names; 404 if there is none such.
fn target<'s>(snapshot: &'s Snapshot, info: &RequestInfo) -> Result<Target<'s>, ApiError> {
    let resource = snapshot.table.find(&info.group, &info.version, &info.resource);
    let resource = resource.ok_or_else(ApiError::unknown_path)?;
    if !resource.namespaced && !info.namespace.is_empty() && resource.plural != "namespaces" {
        return Err(ApiError::unknown_path());
    }
    let subresource = match info.subresource.as_str() {
        "" => None,
        name => Some(resource.subresource(name).ok_or_else(ApiError::unknown_path)?),
    };
    Ok(Target { resource, subresource })
}

impl Shared {
    /// The resources there are. A resource that is not among them, and what tells about all of them, is looked for again when
    /// everything that is durable has been seen: a client finds what it has just defined.
    async fn snapshot(&self, info: &RequestInfo) -> Arc<Snapshot> {
        let snapshot = self.registry.snapshot();
        let table = &snapshot.table;
        let known = match info.is_resource {
            true => table.find(&info.group, &info.version, &info.resource).is_some(),
            false => !["/api", "/openapi"].iter().any(|start| info.path.starts_with(start)),
        };
        if known || self.index.is_current() {
            return snapshot;
        }
        self.index.caught_up().await;
        self.registry.snapshot()
    }

    /// Who a request counts as from. Tells the audit log who it really is from.
    async fn requester(
        &self,
        parts: &Parts,
        info: &RequestInfo,
        streams: bool,
        learned: &mut Learned,
    ) -> Result<UserInfo, ApiError> {
        let user = match self.gate.who(parts).await {
            Ok(user) => user,
            Err(refusal) => {
                if let Some(audit) = &self.audit {
                    audit.unauthenticated(parts, info, &refusal).await;
                }
                return Err(refusal);
            }
        };
        if let Some(audit) = &self.audit {
            let long = streams || info.verb == "watch";
            learned.audited = audit.begin(parts, info, &user, long).await;
        }
        let Some(other) = self.gate.acts_as(&user, parts).await? else { return Ok(user) };
        if let Some(audited) = &mut learned.audited {
            audited.acts_as(&other);
        }
        Ok(other)
    }

    /// Adds all that this server tells of itself.
    fn add_metrics(&self, store: Arc<TimedStore>) {
        let build = self.build;
        self.metrics.tell(metrics::process);
        self.metrics.tell(move |text| observe::build(build, root::GIT_VERSION, text));
        let Engine { observer, admission, .. } = &self.engine;
        let (observer, admission) = (observer.clone(), admission.clone());
        self.metrics.tell(move |text| observer.tell(text));
        self.metrics.tell(move |text| admission.tell(text));
        self.metrics.tell(move |text| store.tell(text));
        let store = self.engine.store.clone();
        self.metrics.tell(move |text| observe::stored(store.as_ref(), text));
        let fairness = self.fairness.clone();
        self.metrics.tell(move |text| fairness.tell(text));
        let aggregator = self.aggregator.clone();
        self.metrics.tell(move |text| aggregator.tell(text));
        let (gate, answers) = (self.gate.clone(), self.answers.clone());
        self.metrics.tell(move |text| gate.tell(text));
        self.metrics.tell(move |text| answers.tell(text));
        if let Some(audit) = self.audit.clone() {
            self.metrics.tell(move |text| audit.tell(text));
        }
    }

    async fn route(
        &self,
        parts: Parts,
        body: Body,
        info: &RequestInfo,
        snapshot: &Snapshot,
        target: Result<Target<'_>, ApiError>,
        learned: &mut Learned,
    ) -> verbs::Answer {
        let streams = target.as_ref().is_ok_and(|target| target.stream().is_some());
        let user = self.requester(&parts, info, streams, learned).await?;
        // A watch has its seat until it begins; what only passes bytes on needs none.
        let remote = snapshot.remotes.of_path(&info.path);
        let _seat = match streams || (remote.is_some() && parts.headers.contains_key(UPGRADE)) {
            true => None,
            false => {
                let (placed, seat) = self.fairness.seat(&user, info).await;
                learned.placed = Some(placed);
                learned.course.terminated = seat.is_err();
                Some(seat?)
            }
        };
        let allowed = self.gate.may(&user, info).await;
        if let Some(audited) = &mut learned.audited {
            audited.decided(allowed.is_ok(), allowed.as_deref().unwrap_or_default());
        }
        allowed?;
        let packs = wire::gzip::accepted(&parts.headers);
        let lines = !streams && info.verb != "watch" && wire::pretty::wanted(&parts);
        if let Some(remote) = remote {
            if let Some(audited) = &mut learned.audited {
                audited.pass_on();
            }
            let answer = self.aggregator.pass_on(remote, &user, Request::from_parts(parts, body)).await;
            learned.course.terminated = answer.is_err();
            return answer;
        }
        if !info.is_resource {
            if info.path == "/metrics" && parts.method == Method::GET {
                return Ok(wire::raw(StatusCode::OK, METRICS, self.metrics.render()));
            }
            if info.path == config::backup::PATH && parts.method == Method::GET {
                return root::backup::answer(self.engine.store.as_ref()).await;
            }
            let told = root::Told {
                store: self.engine.store.as_ref(),
                tokens: &self.tokens,
                build: self.build,
                leaving: &self.leaving,
            };
            return root::answer(&parts, info, snapshot, &told);
        }
        let request = Request::from_parts(parts, body);
        let mut answer = self.resource(request, info, snapshot, target?, &user, learned).await?;
        if lines {
            answer = wire::pretty::lines(answer).await?;
        }
        Ok(match packs && matches!(info.verb, "get" | "list") && !streams {
            true => wire::gzip::packed(answer, &self.engine.tasks).await,
            false => answer,
        })
    }

    async fn resource(
        &self,
        request: Request<Body>,
        info: &RequestInfo,
        snapshot: &Snapshot,
        target: Target<'_>,
        user: &UserInfo,
        learned: &mut Learned,
    ) -> verbs::Answer {
        if !target.verbs().contains(&info.verb) {
            return Err(ApiError::method_not_allowed());
        }
        learned.deprecated.clone_from(&target.resource.deprecated);
        let (mut parts, body) = request.into_parts();
        let socket = match info.verb {
            "watch" => proxy::Socket::of(&mut parts, proxy::Messages::Lines)?,
            _ => None,
        };
        let notes = Arc::clone(&learned.notes);
        let mut context = RequestContext {
            engine: &self.engine,
            table: &snapshot.table,
            info,
            user,
            resource: target.resource,
            handler: target.handler(),
            media: MediaType::default(),
            params: Params::new(parts.uri.query()),
            user_agent: parts
                .headers
                .get(USER_AGENT)
                .and_then(|agent| agent.to_str().ok())
                .unwrap_or_default(),
            notes: &notes,
        };
        if let Some(stream) = target.stream() {
            return special::stream(&context, stream, Request::from_parts(parts.clone(), body)).await;
        }
        let accept = parts.headers.get(ACCEPT).and_then(|header| header.to_str().ok());
        // A message is a text.
        let offer = Offer { protobuf: context.offer().protobuf && socket.is_none(), ..context.offer() };
        context.media = MediaType::negotiate(accept, offer)?;
        context.check_table()?;
        let bytes = if matches!(info.verb, "get" | "list" | "watch") {
            bytes::Bytes::new()
        } else {
            wire::read_body(body).await?
        };
        if let Some(audited) = &mut learned.audited {
            audited.requested(info, &parts.headers, &bytes);
        }
        let body = RequestBody { headers: &parts.headers, bytes };
        let answer = match target.resource.storage {
            Storage::Virtual(review) => special::review(&context, review, &body).await,
            Storage::Measured(measure) => measured::answer(&context, measure).await,
            Storage::Stored => verbs::run(&context, body).await,
        }?;
        Ok(match socket {
            Some(socket) => socket.serve(answer, &self.engine.tasks),
            None => answer,
        })
    }
}
