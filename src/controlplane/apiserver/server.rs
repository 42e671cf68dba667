//! The server: built from its parts once, then every request goes through [`ApiServer::router`].

use std::net::Ipv4Addr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::FutureExt as _;
use http::HeaderValue;
use http::header::{ACCEPT, USER_AGENT};
use http::request::Parts;
use http::{Request, Response};
use ipnet::Ipv4Net;

use crate::api::resources::{Handler, Resource, Storage, Stream, Subresource, builtin};
use crate::api::status::ApiError;
use crate::controlplane::storage::{StorageError, Store};
use crate::pki::Key;
use crate::rt::{Clock, Tasks};

use super::admission::{Admission, AsyncPlugin, Webhooks};
use super::allocate::Allocator;
use super::auth::{Authenticator, Tokens};
use super::authz::Authorizer;
use super::context::{Engine, RequestContext};
use super::gate::Gate;
use super::index::{Follower, Index};
use super::inflight::InFlight;
use super::proxy::Streams;
use super::registry::{Registry, Snapshot};
use super::request::RequestInfo;
use super::reviews::Reviews;
use super::user::UserInfo;
use super::verbs::{self, RequestBody};
use super::wire::{self, Format, MediaType, Offer, Params};
use super::{client, measured, root, special};

/// How long a request may take that is not a watch or a stream.
const PATIENCE: Duration = Duration::from_secs(60);

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
    /// The way to the nodes; without it logs and the like answer 503.
    pub streams: Option<Streams>,
}

/// The API server.
#[derive(Clone)]
pub struct ApiServer {
    shared: Arc<Shared>,
}

/// What all requests share.
struct Shared {
    engine: Engine,
    gate: Gate,
    index: Arc<Index>,
    registry: Arc<Registry>,
    inflight: InFlight,
}

impl ApiServer {
    /// Puts the parts together and reads what they need to know; nothing is bound or served yet.
    pub async fn build(options: Options) -> Result<Self, StorageError> {
        let Options { store, clock, tasks, token_key, service_cidr, reserved, streams } = options;
        let allocator = Allocator::new(service_cidr, &reserved);
        let registry = Registry::new(builtin(), tasks.stop());
        let followers: Vec<Arc<dyn Follower>> = vec![allocator.clone(), registry.clone()];
        let index = Index::start(store.clone(), &registry.snapshot().table, followers, &tasks).await?;
        let authorizer = Arc::new(Authorizer::new(index.clone()));
        let tokens = Arc::new(Tokens::new(&token_key));
        let authenticator =
            Arc::new(Authenticator::new(index.clone(), tokens.clone(), authorizer.clone(), clock.clone()));
        let reviews =
            Reviews::new(index.clone(), authenticator.clone(), authorizer.clone(), tokens, clock.clone());
        let gate = Gate { authenticator, authorizer: authorizer.clone() };
        let waiting: Vec<Arc<dyn AsyncPlugin>> = vec![Arc::new(Webhooks::new(index.clone()))];
        let admission = Arc::new(Admission::new(index.clone(), waiting, allocator, clock.clone()));
        let engine = Engine {
            store,
            clock,
            admission,
            authorizer,
            reviews: Arc::new(reviews),
            streams: streams.map(Arc::new),
            stop: tasks.stop(),
            tasks,
        };
        let shared = Shared { engine, gate, index, registry, inflight: InFlight::default() };
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
        client::in_process(self.router(), user)
    }
}

/// Answers one request, whatever happens on the way.
async fn handle(shared: Arc<Shared>, request: Request<Body>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let info = RequestInfo::new(&parts.method, parts.uri.path(), parts.uri.query());
    let (verb, uri) = (info.verb, parts.uri.clone());
    let accept = parts.headers.get(ACCEPT).cloned();
    let snapshot = shared.snapshot(&info).await;
    let target = target(&snapshot, &info);
    let unbounded = info.verb == "watch" || target.as_ref().is_ok_and(|target| target.stream().is_some());
    let work = AssertUnwindSafe(shared.route(parts, body, info, &snapshot, target)).catch_unwind();
    let done = if unbounded { Ok(work.await) } else { tokio::time::timeout(PATIENCE, work).await };
    match done {
        Ok(Ok(Ok(response))) => response,
        Ok(Ok(Err(error))) => {
            if error.code >= 500 {
                tracing::warn!(verb, %uri, %error, "request failed");
            }
            wire::error(error_format(accept.as_ref()), &error)
        }
        Ok(Err(_)) => {
            tracing::error!(verb, %uri, "a request handler panicked");
            wire::error(
                error_format(accept.as_ref()),
                &ApiError::internal(format!("this request caused apiserver to panic: {verb} {uri}")),
            )
        }
        Err(_) => {
            let why = format!("request did not complete within {}s", PATIENCE.as_secs());
            wire::error(error_format(accept.as_ref()), &ApiError::timeout(&why, 0))
        }
    }
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

    async fn route(
        &self,
        parts: Parts,
        body: Body,
        info: RequestInfo,
        snapshot: &Snapshot,
        target: Result<Target<'_>, ApiError>,
    ) -> verbs::Answer {
        let user = self.gate.pass(&parts, &info).await?;
        if !info.is_resource {
            return root::answer(&parts, &info, snapshot, self.engine.store.as_ref());
        }
        let target = target?;
        if !target.verbs().contains(&info.verb) {
            return Err(ApiError::method_not_allowed());
        }
        let mut context = RequestContext {
            engine: &self.engine,
            table: &snapshot.table,
            info: &info,
            user: &user,
            resource: target.resource,
            handler: target.handler(),
            media: MediaType::default(),
            params: Params::new(parts.uri.query()),
            user_agent: parts
                .headers
                .get(USER_AGENT)
                .and_then(|agent| agent.to_str().ok())
                .unwrap_or_default(),
        };
        if let Some(stream) = target.stream() {
            return special::stream(&context, stream, Request::from_parts(parts.clone(), body)).await;
        }
        let _place = match info.verb {
            "watch" => None,
            verb => self.inflight.admit(&user, verb)?,
        };
        let accept = parts.headers.get(ACCEPT).and_then(|header| header.to_str().ok());
        context.media = MediaType::negotiate(accept, context.offer())?;
        let bytes = if matches!(info.verb, "get" | "list" | "watch") {
            bytes::Bytes::new()
        } else {
            wire::read_body(body).await?
        };
        let body = RequestBody { headers: &parts.headers, bytes };
        match target.resource.storage {
            Storage::Virtual(review) => special::review(&context, review, &body).await,
            Storage::Measured(measure) => measured::answer(&context, measure).await,
            Storage::Stored => verbs::run(&context, body).await,
        }
    }
}
