//! Looks whether the server behind an APIService can be reached, in upstream's order and words.

use std::time::Duration;

use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use super::remote::Backend;
use super::told::{Told, part_of_v2, resources};
use super::{Aggregator, headers};
use crate::key::collections::ENDPOINT_SLICES;
use crate::proxy::relay;
use crate::user::UserInfo;
use api::meta::ObjectExt;
use storage::ListQuery;

/// How long a server may take to answer what it serves.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest document that is taken.
const LONGEST: usize = 64 << 20;

/// What a look found: the condition's status, reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub available: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Found {
    fn not(reason: &'static str, message: String) -> Self {
        Self { available: false, reason, message }
    }

    pub(super) fn local() -> Self {
        Self {
            available: true,
            reason: "Local",
            message: "Local APIServices are always available".to_owned(),
        }
    }
}

impl Aggregator {
    /// Looks at the server of a group and version; when it answers, also what it tells of itself.
    pub(super) async fn look(
        &self,
        backend: &Backend,
        group: &str,
        version: &str,
        before: &Told,
    ) -> (Found, Option<Told>) {
        if let Err(found) = self.check_service(backend).await {
            return (found, None);
        }
        let path = format!("/apis/{group}/{version}");
        let list = match self.ask(backend, &path, &[]).await {
            Ok((code, body, _)) if code.is_success() => body,
            Ok((code, ..)) => {
                let why = format!("bad status from {}: {}", self.url(backend, &path), code.as_u16());
                return (Found::not("FailedDiscoveryCheck", failed(&self.url(backend, &path), &why)), None);
            }
            Err(why) => {
                return (Found::not("FailedDiscoveryCheck", failed(&self.url(backend, &path), &why)), None);
            }
        };
        let told = Told {
            resources: resources(&list),
            openapi_v2: self.openapi_v2(backend, group, version, before).await,
            openapi_v3: self.openapi_v3(backend, group, version).await,
        };
        let passed = Found { available: true, reason: "Passed", message: "all checks passed".to_owned() };
        (passed, Some(told))
    }

    /// The Service must be there, listen on the port, and have somebody behind it.
    async fn check_service(&self, backend: &Backend) -> Result<(), Found> {
        let Backend { namespace, name, port, .. } = backend;
        let service = self.index.read().service(namespace, name).cloned();
        let Some(service) = service else {
            let why = format!("service/{name} in {namespace:?} is not present");
            return Err(Found::not("ServiceNotFound", why));
        };
        let listening = service.array_at("/spec/ports").iter().find(|own| own.int_at("/port") == Some(*port));
        let Some(listening) = listening else {
            let why = format!("service/{name} in {namespace:?} is not listening on port {port}");
            return Err(Found::not("ServicePortError", why));
        };
        if service.str_at("/spec/type") == Some("ExternalName") {
            let why = format!(
                "service/{name} in {namespace:?} has no cluster address: minik passes requests on to Services with one"
            );
            return Err(Found::not("ServiceAccessError", why));
        }
        let prefix = ENDPOINT_SLICES.prefix(namespace);
        let listing = self.index.store().list(ListQuery { prefix, ..ListQuery::default() }).await;
        let entries = match listing {
            Ok(listing) => listing.entries,
            Err(error) => {
                let why = format!("service/{name} in {namespace:?} cannot be accessed due to: {error}");
                return Err(Found::not("EndpointsAccessError", why));
            }
        };
        let slices: Vec<Value> =
            entries.iter().filter_map(|entry| serde_json::from_slice(&entry.data).ok()).collect();
        check_endpoints(backend, listening.text("name").unwrap_or_default(), &slices)
    }

    async fn openapi_v2(
        &self,
        backend: &Backend,
        group: &str,
        version: &str,
        before: &Told,
    ) -> Option<(Value, String)> {
        let tag = before.openapi_v2.as_ref().map(|(_, tag)| tag.as_str()).unwrap_or_default();
        let known = [(header::IF_NONE_MATCH.as_str(), tag)];
        let known = if tag.is_empty() { &[][..] } else { &known[..] };
        match self.ask(backend, "/openapi/v2", known).await {
            Ok((StatusCode::NOT_MODIFIED, ..)) => before.openapi_v2.clone(),
            Ok((code, document, tag)) if code.is_success() => {
                Some((part_of_v2(document, group, version), tag))
            }
            _ => None,
        }
    }

    async fn openapi_v3(&self, backend: &Backend, group: &str, version: &str) -> Option<String> {
        let (code, index, _) = self.ask(backend, "/openapi/v3", &[]).await.ok()?;
        let place = format!("apis/{group}/{version}");
        let link = index.get("paths")?.get(&place)?.text("serverRelativeURL")?.to_owned();
        code.is_success().then_some(link)
    }

    /// Asks for a JSON document, as the aggregator itself. Returns the code, the document and its tag.
    async fn ask(
        &self,
        backend: &Backend,
        path: &str,
        sent: &[(&str, &str)],
    ) -> Result<(StatusCode, Value, String), String> {
        let exchange = async {
            let peer = self.peer(backend)?;
            let mut request = Request::get(path).header(header::ACCEPT, "application/json");
            for (name, value) in sent {
                request = request.header(*name, *value);
            }
            let mut request = request.body(Body::empty()).map_err(|error| error.to_string())?;
            let user = UserInfo::new("system:kube-aggregator", &[UserInfo::MASTERS]);
            headers::tell(request.headers_mut(), &user);
            let response =
                relay::send(&self.tasks, &peer, request).await.map_err(|error| error.to_string())?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, LONGEST).collect().await.map_err(|error| error.to_string())?;
            let document = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
            let tag = parts.headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
            Ok((parts.status, document, tag.unwrap_or_default().to_owned()))
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err("context deadline exceeded".to_owned()),
        }
    }

    fn url(&self, backend: &Backend, path: &str) -> String {
        match self.peer(backend) {
            Ok(peer) => format!("https://{}{path}", peer.address),
            Err(_) => format!("https://{}.{}.svc:{}{path}", backend.name, backend.namespace, backend.port),
        }
    }
}

fn failed(url: &str, why: &str) -> String {
    format!("failing or missing response from {url}: {why}")
}

/// Somebody must be ready under the port's name.
fn check_endpoints(backend: &Backend, port: &str, slices: &[Value]) -> Result<(), Found> {
    let Backend { namespace, name, .. } = backend;
    let own: Vec<&Value> =
        slices.iter().filter(|slice| slice.label("kubernetes.io/service-name") == Some(name)).collect();
    if own.is_empty() {
        let why = format!("cannot find endpoints for service/{name} in {namespace:?}");
        return Err(Found::not("EndpointsNotFound", why));
    }
    let ready = |slice: &&&Value| {
        let ports = slice.array_at("/ports");
        let endpoints = slice.array_at("/endpoints");
        ports.iter().any(|own| own.text("name").unwrap_or_default() == port)
            && endpoints.iter().any(|endpoint| {
                endpoint.bool_at("/conditions/ready").unwrap_or(true)
                    && !endpoint.array_at("/addresses").is_empty()
            })
    };
    if own.iter().any(|slice| ready(&slice)) {
        return Ok(());
    }
    let why =
        format!("endpoints for service/{name} in {namespace:?} have no addresses with port name {port:?}");
    Err(Found::not("MissingEndpoints", why))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn somebody_must_be_ready_behind_the_port() {
        let backend = Backend {
            namespace: "n".to_owned(),
            name: "s".to_owned(),
            port: 443,
            ca_bundle: String::new(),
            insecure: false,
        };
        let slice = |ready: bool, of: &str| {
            json!({"metadata": {"labels": {"kubernetes.io/service-name": of}}, "ports": [{"name": "https", "port": 1}],
                "endpoints": [{"addresses": ["10.1.1.1"], "conditions": {"ready": ready}}]})
        };
        let check = |slices: &[Value], expect: Option<(&str, &str)>| {
            let found = check_endpoints(&backend, "https", slices).err();
            let found = found.as_ref().map(|found| (found.reason, found.message.as_str()));
            assert_eq!(found, expect);
        };
        check(&[slice(true, "s")], None);
        check(
            &[slice(true, "other")],
            Some(("EndpointsNotFound", "cannot find endpoints for service/s in \"n\"")),
        );
        check(
            &[slice(false, "s")],
            Some((
                "MissingEndpoints",
                "endpoints for service/s in \"n\" have no addresses with port name \"https\"",
            )),
        );
    }
}
