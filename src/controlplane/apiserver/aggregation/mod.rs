//! API servers of other people's behind this one: APIServices say who serves a group and version.
//!
//! ```text
//! request -> who, may they -> another server's? -> passed on, with the front proxy's certificate and who the user is
//! APIService -> looked at (Service, endpoints, discovery) -> its condition, and what it told for discovery and OpenAPI
//! ```
//!
//! Groups and versions that this server serves itself have an APIService each, too; people look there for what works.

mod availability;
mod headers;
mod local;
mod look;
mod remote;
mod told;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use http::{Request, Response};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde_json::Value;

pub use local::group_priority;
pub use remote::{Remote, Remotes};
pub use told::Told;

use self::remote::Backend;
use super::audit::{AUDIT_ID, RequestId};
use super::index::Index;
use super::proxy::relay::{self, Peer};
use super::registry::Registry;
use super::user::UserInfo;
use api::meta::ObjectExt;
use api::resources::condition;
use api::status::ApiError;
use client::tls;
use metrics::{Counter, Family, Kind, Text};
use pki::Identity;
use rt::Tasks;

/// Passes requests on to other API servers, and knows which of them can be reached.
pub struct Aggregator {
    index: Arc<Index>,
    registry: Arc<Registry>,
    tasks: Tasks,
    /// What other servers know this one by; without it nothing is passed on.
    front_proxy: Option<Identity>,
    /// TLS settings are read once per server.
    trust: Mutex<HashMap<Backend, Arc<ClientConfig>>>,
    /// How often an APIService could no longer be reached, and why.
    lost: Family<Counter>,
}

impl Aggregator {
    pub fn new(
        index: Arc<Index>,
        registry: Arc<Registry>,
        front_proxy: Option<Identity>,
        tasks: Tasks,
    ) -> Arc<Self> {
        Arc::new(Self {
            index,
            registry,
            tasks,
            front_proxy,
            trust: Mutex::default(),
            lost: Family::default(),
        })
    }

    /// Passes a request on, as the user that it is from. Fails with 503 while the other server cannot be reached.
    pub async fn pass_on(
        &self,
        remote: &Remote,
        user: &UserInfo,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        if !remote.available {
            return Err(ApiError::service_unavailable("service unavailable"));
        }
        let unreachable =
            |why: String| ApiError::service_unavailable(format!("error trying to reach service: {why}"));
        let peer = self.peer(&remote.backend).map_err(unreachable)?;
        let (upgrade, client_side) = relay::upgrade_of(&mut request);
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        let mut onward = Request::builder().method(parts.method.clone()).uri(path);
        if let Some(headers) = onward.headers_mut() {
            *headers = relay::onward_headers(&parts.headers, upgrade);
            headers::tell(headers, user);
            headers::tell_origin(headers, &parts);
            // Both servers' logs tell of it under one name.
            if let Some(RequestId(id)) = parts.extensions.get() {
                headers.insert(AUDIT_ID, id.clone());
            }
        }
        let onward = onward.body(if upgrade { Body::empty() } else { body }).map_err(ApiError::internal)?;
        let answered = relay::relay(&self.tasks, &peer, onward, client_side).await;
        answered.map_err(|error| unreachable(error.to_string()))?
    }

    /// Where a server is: at its Service's cluster address.
    fn peer(&self, backend: &Backend) -> Result<Peer, String> {
        let Backend { namespace, name, port, .. } = backend;
        let address = self.index.read().service_address(namespace, name, *port)?;
        let host = format!("{name}.{namespace}.svc");
        let server_name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
        let tls = self.tls(backend)?;
        Ok(Peer { address, host: format!("{host}:{port}"), tls: Some((tls, server_name)) })
    }

    fn tls(&self, backend: &Backend) -> Result<Arc<ClientConfig>, String> {
        let mut trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = trust.get(backend) {
            return Ok(config.clone());
        }
        let identity = self.front_proxy.as_ref().ok_or("this server has no front-proxy certificate")?;
        let config = if backend.insecure {
            tls::unverified_as(identity)
        } else {
            let own = backend.authorities();
            tls::config(&own.unwrap_or_else(tls::system_authorities), Some(identity))
        };
        let config = Arc::new(config.map_err(|error| format!("unable to load root certificates: {error}"))?);
        if trust.len() > self.registry.snapshot().remotes.len() {
            trust.clear();
        }
        trust.insert(backend.clone(), config.clone());
        Ok(config)
    }

    /// Tells which APIServices cannot be reached.
    pub fn tell(&self, text: &mut Text) {
        let name = "aggregator_unavailable_apiservice";
        text.family(name, Kind::Gauge, "APIServices that cannot be reached.");
        for service in self.index.read().api_services() {
            let value = if condition(service, "Available") { 0.0 } else { 1.0 };
            text.sample(name, &[("name", service.name())], value);
        }
        let name = "aggregator_unavailable_apiservice_total";
        text.family(name, Kind::Counter, "How often an APIService could no longer be reached, and why.");
        for (values, count) in self.lost.all() {
            text.sample(name, &[("name", &values[0]), ("reason", &values[1])], count.get() as f64);
        }
    }

    /// The present state of an APIService.
    fn object(&self, name: &str) -> Option<Arc<Value>> {
        self.index.read().api_service(name).cloned()
    }
}
