//! The node's view as our own API server feeds it, with a node's own rights.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use minik::controlplane::apiserver::UserInfo;
use minik::controlplane::apiserver::{ApiServer, Options};
use minik::controlplane::storage;
use minik::node::network::{Feed, ServiceKey, View, feed};
use minik::pki::Key;
use minik::rt::{SystemClock, Tasks};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

async fn until(feed: &Feed, what: &str, holds: impl Fn(&View) -> bool) {
    let mut changes = feed.services();
    let seen = async {
        loop {
            changes.borrow_and_update();
            if *changes.borrow() > 0 && holds(&feed.read()) {
                return;
            }
            changes.changed().await.expect("the feed goes on");
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen)
        .await
        .unwrap_or_else(|_| panic!("not in time: {what}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_follows_services_and_endpoints() {
    let tasks = Tasks::new();
    let options = Options {
        store: storage::memory(),
        clock: Arc::new(SystemClock),
        tasks: tasks.clone(),
        token_key: Key::generate().expect("a key"),
        service_cidr: "10.43.0.0/16".parse().expect("network"),
        reserved: Vec::new(),
        streams: None,
    };
    let server = ApiServer::build(options).await.expect("a server");
    let admin =
        server.client(UserInfo::new("kubernetes-admin", &[UserInfo::MASTERS, UserInfo::AUTHENTICATED]));
    let node = server.client(UserInfo::new("system:node:here", &[UserInfo::NODES, UserInfo::AUTHENTICATED]));

    let namespaces = Api::<Namespace>::all(admin.clone());
    let default = object(json!({ "metadata": { "name": "default" } }));
    namespaces.create(&PostParams::default(), &default).await.expect("a namespace");
    let feed = feed(&node, &tasks);
    until(&feed, "the first lists", |view| view.services().next().is_none()).await;

    let services = Api::<Service>::namespaced(admin.clone(), "default");
    let spec = json!({ "ports": [{ "port": 80, "targetPort": 8080 }] });
    let web = object(json!({ "metadata": { "name": "web" }, "spec": spec }));
    services.create(&PostParams::default(), &web).await.expect("a Service");
    let slices = Api::<EndpointSlice>::namespaced(admin, "default");
    let slice = object(json!({
        "metadata": { "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4",
        "ports": [{ "name": "", "port": 8080, "protocol": "TCP" }],
        "endpoints": [{ "addresses": ["10.42.0.11"] }],
    }));
    slices.create(&PostParams::default(), &slice).await.expect("a slice");

    let key = ServiceKey::new("default", "web");
    until(&feed, "the Service with its address and endpoint", |view| {
        let address = view.service(&key).and_then(|service| service.cluster_ip);
        address.is_some() && view.slices(&key).any(|slice| slice.endpoints.len() == 1)
    })
    .await;
    services.delete("web", &DeleteParams::default()).await.expect("deleted");
    until(&feed, "the Service gone", |view| view.service(&key).is_none()).await;
    tasks.drain(Duration::from_secs(5)).await.expect("all tasks end");
}
