//! Another API server behind this one: over TLS, at the cluster address of a Service.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceExt as _;

use super::Server;
use crate::auth::PeerCertificate;
use crate::{UserInfo, serve};
use pki::ServerPki;
use rt::{SystemClock, Tasks};

const GROUP: &str = "/apis/wardle.example.com";
const API_SERVICE: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.wardle.example.com";

struct Stage {
    server: Server,
    port: u16,
    address: String,
    tasks: Tasks,
    bundle: String,
    _folder: tempfile::TempDir,
}

/// What the other server answers: its documents, and to all else what it was told.
async fn wardle(request: Request<Body>) -> Response<Body> {
    let peer = request.extensions().get::<Arc<PeerCertificate>>().map(|peer| peer.user.name.clone());
    let told = |name: &str| -> Vec<String> {
        let all = request.headers().get_all(name).iter();
        all.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let answer = match request.uri().path() {
        "/apis/wardle.example.com/v1alpha1" => json!({"kind": "APIResourceList",
            "groupVersion": "wardle.example.com/v1alpha1", "resources": [
                {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"]}]}),
        "/openapi/v2" => json!({"paths": {"/apis/wardle.example.com/v1alpha1/flunders": {"get": {}}},
            "definitions": {"wardle.Flunder": {"type": "object"}}}),
        "/openapi/v3" => json!({"paths": {"apis/wardle.example.com/v1alpha1":
            {"serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1alpha1?hash=1"}}}),
        path => {
            json!({"peer": peer, "path": path, "query": request.uri().query(), "user": told("x-remote-user"),
            "groups": told("x-remote-group"), "authorization": told("authorization"), "host": told("host")})
        }
    };
    Response::new(Body::from(answer.to_string()))
}

async fn stage() -> Stage {
    let (folder, tasks) = (tempfile::tempdir().unwrap(), Tasks::new());
    let pki = ServerPki::prepare(folder.path(), "t", &["wardle.default.svc".to_owned()]).unwrap();
    // In this network each address is this machine's own.
    let address = format!("127.77.{}.{}", rand::random::<u8>(), rand::random::<u8>().clamp(2, 250));
    let listener = TcpListener::bind((address.as_str(), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let tls = serve::tls(&pki.serving, &pki.front_proxy_authority_pem).unwrap();
    serve::serve(listener, axum::Router::new().fallback(wardle), tls, &tasks);
    let server = Server::with(storage::memory(), |options| {
        options.service_cidr = "127.77.0.0/16".parse().unwrap();
        options.front_proxy = Some(pki.front_proxy_client.clone());
        options.tasks = tasks.clone();
    })
    .await;
    let aggregator = server.api.aggregator().clone();
    tasks.spawn_until_stop(aggregator.run(server.router.clone(), Arc::new(SystemClock)));
    let bundle = base64::prelude::BASE64_STANDARD.encode(pki.authority.certificate_pem());
    Stage { server, port, address, tasks, bundle, _folder: folder }
}

impl Stage {
    async fn service(&self) {
        let service = json!({"metadata": {"name": "wardle"}, "spec": {"clusterIP": self.address,
            "ports": [{"name": "https", "port": self.port}]}});
        self.server.create("/api/v1/namespaces/default/services", service).await;
    }

    async fn slice(&self) {
        let slice = json!({"metadata": {"name": "wardle", "labels": {"kubernetes.io/service-name": "wardle"}},
            "addressType": "IPv4", "ports": [{"name": "https", "port": 8443}], "endpoints": [{"addresses": ["10.1.1.1"]}]});
        self.server.create("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await;
    }

    async fn api_service(&self) {
        let object = json!({"metadata": {"name": "v1alpha1.wardle.example.com"}, "spec": {
            "group": "wardle.example.com", "version": "v1alpha1", "groupPriorityMinimum": 2000, "versionPriority": 200,
            "caBundle": self.bundle, "service": {"namespace": "default", "name": "wardle", "port": self.port}}});
        self.server.create("/apis/apiregistration.k8s.io/v1/apiservices", object).await;
    }

    /// Waits until the APIService says why it is or is not available.
    async fn says(&self, name: &str, reason: &str) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        let mut progress = self.server.api.index().progress();
        loop {
            let (_, object) = self.server.get(name).await;
            if object["status"]["conditions"][0]["reason"] == reason {
                return;
            }
            let more = tokio::time::timeout_at(deadline, progress.changed()).await;
            assert!(more.is_ok(), "{name} never says {reason}: {object}");
        }
    }

    async fn as_jane(&self, uri: &str) -> (u16, Value) {
        let mut request = Request::get(uri)
            .header("x-remote-user", "root")
            .header("authorization", "Bearer secret")
            .body(Body::empty())
            .unwrap();
        request.extensions_mut().insert(UserInfo::new("jane", &[UserInfo::MASTERS]));
        let answer = self.server.router.clone().oneshot(request).await.unwrap();
        let code = answer.status().as_u16();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&body).unwrap_or_default())
    }
}

#[tokio::test]
async fn another_server_is_served_as_long_as_it_can_be_reached() {
    let stage = stage().await;
    stage.api_service().await;
    stage.says(API_SERVICE, "ServiceNotFound").await;
    let (code, status) = stage.as_jane(&format!("{GROUP}/v1alpha1/flunders")).await;
    assert_eq!((code, &status["reason"]), (503, &json!("ServiceUnavailable")));
    stage.service().await;
    stage.says(API_SERVICE, "EndpointsNotFound").await;
    stage.slice().await;
    stage.says(API_SERVICE, "Passed").await;

    let (code, told) = stage.as_jane(&format!("{GROUP}/v1alpha1/namespaces/a/flunders/x?y=1")).await;
    assert_eq!(code, 200, "{told}");
    assert_eq!(told["peer"], ServerPki::FRONT_PROXY);
    assert_eq!((&told["user"], &told["authorization"]), (&json!(["jane"]), &json!([])));
    assert_eq!(told["groups"], json!(["system:masters", "system:authenticated"]));
    assert_eq!(told["path"], "/apis/wardle.example.com/v1alpha1/namespaces/a/flunders/x");
    assert_eq!(
        (&told["query"], &told["host"][0]),
        (&json!("y=1"), &json!(format!("wardle.default.svc:{}", stage.port)))
    );

    let slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/wardle";
    stage.server.send("DELETE", slices, &Value::Null).await;
    stage.says(API_SERVICE, "EndpointsNotFound").await;
    assert_eq!(stage.as_jane(&format!("{GROUP}/v1alpha1/flunders")).await.0, 503);
    stage.server.send("DELETE", API_SERVICE, &Value::Null).await;
    assert_eq!(stage.as_jane(&format!("{GROUP}/v1alpha1/flunders")).await.0, 404);
    assert_eq!(stage.as_jane(GROUP).await.0, 404);
    stage.tasks.drain(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn what_another_server_serves_is_discovered_here() {
    let stage = stage().await;
    stage.service().await;
    stage.slice().await;
    stage.api_service().await;
    stage.says(API_SERVICE, "Passed").await;
    let (_, groups) = stage.server.get("/apis").await;
    let names: Vec<&str> =
        groups["groups"].as_array().unwrap().iter().filter_map(|group| group["name"].as_str()).collect();
    let place = |name: &str| names.iter().position(|known| *known == name).unwrap();
    assert!(
        place("apps") < place("wardle.example.com") && place("wardle.example.com") < place("metrics.k8s.io"),
        "{names:?}"
    );
    let (_, group) = stage.server.get(GROUP).await;
    assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1alpha1");
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let all = stage.server.raw("GET", "/apis", &accept, Body::empty()).await;
    let all: Value = serde_json::from_slice(&all.into_body().collect().await.unwrap().to_bytes()).unwrap();
    let own =
        all["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "wardle.example.com");
    let version = &own.unwrap()["versions"][0];
    assert_eq!(
        (&version["freshness"], &version["resources"][0]["resource"]),
        (&json!("Current"), &json!("flunders"))
    );
    let (_, v2) = stage.server.get("/openapi/v2").await;
    assert!(v2["paths"]["/apis/wardle.example.com/v1alpha1/flunders"].is_object());
    assert!(v2["definitions"]["wardle.Flunder"].is_object());
    let (_, v3) = stage.server.get("/openapi/v3").await;
    let link = v3["paths"]["apis/wardle.example.com/v1alpha1"]["serverRelativeURL"].as_str().unwrap();
    assert_eq!(stage.server.get(link).await.1["query"], "hash=1", "the document is the other server's");
    stage.tasks.drain(Duration::from_secs(5)).await.unwrap();
}

#[tokio::test]
async fn what_is_served_here_is_registered_and_goes_with_its_definition() {
    let stage = stage().await;
    let path = |name: &str| format!("/apis/apiregistration.k8s.io/v1/apiservices/{name}");
    stage.says(&path("v1.apps"), "Local").await;
    stage.says(&path("v1."), "Local").await;
    stage.tasks.drain(Duration::from_secs(5)).await.unwrap();
}
