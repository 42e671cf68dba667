//! Streams to nodes, Pods and Services: logs, exec, attach, port-forward and the `proxy` subresources.
//!
//! ```text
//! client --request--> this server --request as the kubelet's client--> kubelet (or Pod)
//! client <==bytes after 101 ==> this server <==same bytes, untouched==> kubelet
//! ```
//!
//! Which protocol runs in an upgraded connection is the two ends' business. Only what no runtime speaks is refused here:
//! the fifth version of the WebSocket protocol and SPDY tunnelled in a WebSocket, upon which kubectl falls back to SPDY/3.1.

mod forward;
mod html;
mod location;
pub mod relay;
mod rewrite;
mod target;
mod websocket;

use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response, Uri};
use rustls::ClientConfig;
use serde_json::Value;

use super::context::from_storage;
use super::key::CollectionKey;
use super::key::collections::{NODES, PODS};
use super::request::RequestInfo;
use api::resources::Stream;
use api::status::ApiError;
use client::tls;
use pki::{PkiError, ServerPki};
use rt::Tasks;
use storage::Store;

pub use target::PodStream;
pub use websocket::{Messages, Socket};

/// Passes streams on.
pub struct Streams {
    store: Arc<dyn Store>,
    /// Shows the API server's identity, and believes whom the cluster's authority has signed: for kubelets alone.
    kubelets: Arc<ClientConfig>,
    /// Shows nothing and believes everybody: for what people run.
    anybody: Arc<ClientConfig>,
    tasks: Tasks,
}

/// How a connection is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dial {
    Plain,
    /// TLS without an identity, to whoever answers, as upstream does: what listens there belongs to other people, and the
    /// API server's identity would make its rights theirs.
    Anonymous,
    /// TLS as the kubelets' client.
    Kubelet,
}

impl Dial {
    /// To a server of other people's.
    fn tls(secure: bool) -> Self {
        if secure { Self::Anonymous } else { Self::Plain }
    }
}

/// Where a stream goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// Host (an address) and port.
    pub host: std::net::IpAddr,
    pub port: u16,
    pub dial: Dial,
    /// Path and query.
    pub path: String,
    /// The path under which the client sees what is passed on, up to and with `proxy`; `None` where nothing speaks of paths.
    pub outside: Option<String>,
}

impl Streams {
    /// Streams that show kubelets the API server's client certificate, and everybody else none. Fails if the certificates
    /// cannot be read.
    pub fn new(store: Arc<dyn Store>, pki: &ServerPki, tasks: Tasks) -> Result<Self, PkiError> {
        let kubelets = tls::config(pki.authority.certificate_pem(), Some(&pki.kubelet_client))?;
        Ok(Self { store, kubelets: Arc::new(kubelets), anybody: Arc::new(tls::unverified()?), tasks })
    }

    /// Answers a request on `log`, `exec`, `attach`, `portforward` or `proxy`.
    pub async fn answer(
        &self,
        stream: Stream,
        info: &RequestInfo,
        request: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        let location = match stream {
            Stream::Log | Stream::Exec | Stream::Attach | Stream::PortForward => {
                return self.pod_stream(stream, info, request).await;
            }
            Stream::NodeProxy | Stream::PodProxy | Stream::ServiceProxy if lacks_slash(stream, &request) => {
                return Ok(with_slash(request.uri()));
            }
            Stream::NodeProxy => self.node_proxy(info, request.uri()).await?,
            Stream::PodProxy => self.pod_proxy(info, request.uri()).await?,
            Stream::ServiceProxy => self.service_proxy(info, request.uri()).await?,
        };
        self.forward(location, request).await
    }

    async fn pod_stream(
        &self,
        kind: Stream,
        info: &RequestInfo,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, ApiError> {
        let pod = self.object(PODS, &info.namespace, &info.name).await?;
        let query = request.uri().query().unwrap_or_default();
        let stream = PodStream::plan(kind, &pod, query)?;
        if kind != Stream::Log {
            forward::settle_protocols(request.headers_mut())?;
        }
        let Some(node) = stream.node else {
            // As upstream: a Pod that is not scheduled has an empty log.
            return Ok(Response::new(Body::empty()));
        };
        let node = self.object(NODES, "", &node).await?;
        let (host, port) = target::kubelet_address(&node)?;
        let location = Location { host, port, dial: Dial::Kubelet, path: stream.path, outside: None };
        if kind == Stream::Log {
            let (mut parts, _) = request.into_parts();
            let socket = Socket::of(&mut parts, Messages::Pieces)?;
            let log = self.log(info, location).await?;
            return Ok(match socket {
                Some(socket) => socket.serve(log, &self.tasks),
                None => log,
            });
        }
        self.forward(location, request).await
    }

    /// The stored object; 404 if there is none.
    async fn object(&self, of: CollectionKey<'_>, namespace: &str, name: &str) -> Result<Value, ApiError> {
        let entry = self.store.get(&of.key(namespace, name)).await.map_err(from_storage)?;
        let entry = entry.ok_or_else(|| ApiError::not_found(of.group, of.plural, name))?;
        serde_json::from_slice(&entry.data).map_err(ApiError::internal)
    }
}

/// How many parts of a path come before what is passed on: "", "api", "v1", ["namespaces", namespace,] plural, name, "proxy".
fn skipped(namespaced: bool) -> usize {
    if namespaced { 8 } else { 6 }
}

/// What follows `/proxy` in the path as it was sent, with the query; at least a slash.
pub(super) fn proxied_path(uri: &Uri, namespaced: bool) -> String {
    let rest: Vec<&str> = uri.path().split('/').skip(skipped(namespaced)).collect();
    match uri.query() {
        Some(query) => format!("/{}?{query}", rest.join("/")),
        None => format!("/{}", rest.join("/")),
    }
}

/// The path up to and with `/proxy`.
pub(super) fn outside(uri: &Uri, namespaced: bool) -> String {
    let parts: Vec<&str> = uri.path().split('/').take(skipped(namespaced)).collect();
    parts.join("/")
}

/// Relative links of a page need the slash behind `/proxy`: who reads it without is sent there.
fn lacks_slash(stream: Stream, request: &Request<Body>) -> bool {
    let namespaced = stream != Stream::NodeProxy;
    request.uri().path().split('/').count() == skipped(namespaced)
        && !request.headers().contains_key(http::header::UPGRADE)
}

fn with_slash(uri: &Uri) -> Response<Body> {
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::MOVED_PERMANENTLY;
    if let Ok(to) = http::HeaderValue::from_str(&format!("{}/{query}", uri.path())) {
        response.headers_mut().insert(http::header::LOCATION, to);
    }
    response
}

#[cfg(test)]
mod tests;
