//! Who is dialled for a proxied request, and what is shown to them.

use http::Request as HttpRequest;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::net::TcpListener;

use super::*;
use crate::auth::PeerCertificate;
use crate::key::collections::{ENDPOINT_SLICES, SERVICES};
use crate::serve;
use storage::{self, Payload};

struct Stage {
    streams: Streams,
    pki: ServerPki,
    tasks: Tasks,
}

async fn stage() -> Stage {
    let (folder, tasks, store) = (tempfile::tempdir().unwrap(), Tasks::new(), storage::memory());
    let pki = ServerPki::prepare(folder.path(), "t", &["127.0.0.1".to_owned()]).unwrap();
    let objects = [
        (
            NODES.key("", "n"),
            json!({"metadata": {"name": "n"}, "spec": {"podCIDR": "10.42.1.0/24"},
            "status": {"addresses": [{"type": "InternalIP", "address": "172.20.0.3"}]}}),
        ),
        (PODS.key("a", "web"), pod("10.42.1.7", false)),
        (PODS.key("a", "elsewhere"), pod("10.42.2.7", false)),
        (PODS.key("a", "loop"), pod("127.0.0.1", true)),
        (PODS.key("a", "host"), pod("172.20.0.3", true)),
        (PODS.key("a", "server"), pod("172.20.0.2", true)),
        (
            SERVICES.key("a", "kubernetes"),
            json!({"metadata": {"name": "kubernetes"}, "spec": {"ports": [{"name": "https", "port": 443}]}}),
        ),
        (ENDPOINT_SLICES.key("a", "kubernetes"), slice("kubernetes", "172.20.0.2")),
        (
            SERVICES.key("a", "self"),
            json!({"metadata": {"name": "self"}, "spec": {"ports": [{"name": "https", "port": 443}]}}),
        ),
        (ENDPOINT_SLICES.key("a", "self"), slice("self", "127.0.0.1")),
    ];
    for (key, object) in objects {
        store.create(key, Payload { data: object.to_string().into(), ..Payload::default() }).await.unwrap();
    }
    let streams = Streams::new(store, &pki, tasks.clone()).unwrap();
    Stage { streams, pki, tasks }
}

fn pod(address: &str, host_network: bool) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "hostNetwork": host_network, "containers": []},
        "status": {"podIP": address}})
}

fn slice(service: &str, address: &str) -> Value {
    json!({"metadata": {"labels": {"kubernetes.io/service-name": service}}, "ports": [{"name": "https", "port": 6443}],
        "endpoints": [{"addresses": [address]}]})
}

#[tokio::test]
async fn the_kubelets_certificate_is_for_kubelets_and_addresses_are_whose_they_should_be() {
    let stage = stage().await;
    let check = async |path: &str, expect: Result<(&str, Dial), &str>| {
        let uri: Uri = path.parse().unwrap();
        let info = RequestInfo::new(&http::Method::GET, uri.path(), None);
        let got = match info.resource.as_str() {
            "nodes" => stage.streams.node_proxy(&info, &uri).await,
            "pods" => stage.streams.pod_proxy(&info, &uri).await,
            _ => stage.streams.service_proxy(&info, &uri).await,
        };
        let got = got.map(|to| (format!("{}:{}", to.host, to.port), to.dial)).map_err(|error| error.message);
        let expect = expect.map(|(to, dial)| (to.to_owned(), dial)).map_err(str::to_owned);
        assert_eq!(got, expect, "{path}");
    };
    let refused = "address not allowed";
    check("/api/v1/nodes/n/proxy/pods", Ok(("172.20.0.3:10250", Dial::Kubelet))).await;
    check("/api/v1/nodes/https:n:6443/proxy/", Ok(("172.20.0.3:6443", Dial::Anonymous))).await;
    check("/api/v1/nodes/n:9100/proxy/metrics", Ok(("172.20.0.3:9100", Dial::Plain))).await;
    check("/api/v1/namespaces/a/pods/https:web:8443/proxy/", Ok(("10.42.1.7:8443", Dial::Anonymous))).await;
    check("/api/v1/namespaces/a/pods/https:host:10250/proxy/", Ok(("172.20.0.3:10250", Dial::Anonymous)))
        .await;
    check("/api/v1/namespaces/a/pods/https:host:6443/proxy/", Ok(("172.20.0.3:6443", Dial::Anonymous))).await;
    check("/api/v1/namespaces/a/pods/elsewhere/proxy/", Err(refused)).await;
    check("/api/v1/namespaces/a/pods/loop/proxy/", Err(refused)).await;
    check("/api/v1/namespaces/a/pods/https:server:6443/proxy/", Err(refused)).await;
    let kubernetes = "/api/v1/namespaces/a/services/https:kubernetes:https/proxy/api/v1/secrets";
    check(kubernetes, Ok(("172.20.0.2:6443", Dial::Anonymous))).await;
    check("/api/v1/namespaces/a/services/https:self:https/proxy/", Err(refused)).await;
}

#[tokio::test]
async fn only_kubelets_are_shown_a_certificate() {
    let stage = stage().await;
    let says_who = axum::Router::new().fallback(|request: Request<Body>| async move {
        let peer = request.extensions().get::<Arc<PeerCertificate>>().map(|peer| peer.user.name.clone());
        peer.unwrap_or_else(|| "nobody".to_owned())
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = serve::tls(&stage.pki.serving, stage.pki.authority.certificate_pem()).unwrap();
    serve::serve(listener, says_who, tls, &stage.tasks);
    for (dial, expect) in [(Dial::Anonymous, "nobody"), (Dial::Kubelet, ServerPki::KUBELET_CLIENT)] {
        let location =
            Location { host: address.ip(), port: address.port(), dial, path: "/".to_owned(), outside: None };
        let request = HttpRequest::get("/").body(Body::empty()).unwrap();
        let answer = stage.streams.forward(location, request).await.unwrap();
        let said = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(String::from_utf8_lossy(&said), expect);
    }
    stage.tasks.drain(std::time::Duration::from_secs(5)).await.unwrap();
}
