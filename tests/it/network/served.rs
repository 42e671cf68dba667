//! The node's view as our own API server feeds it, with a node's own rights.

use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use minik::apiserver::UserInfo;
use minik::node::network::{Feed, ServiceKey, View, feed};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::TestApi;

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
    let dir = tempfile::tempdir().expect("a folder");
    let server = TestApi::start(dir.path()).await;
    let (admin, tasks) = (server.admin(), server.tasks.clone());
    let node =
        server.api.client(UserInfo::new("system:node:here", &[UserInfo::NODES, UserInfo::AUTHENTICATED]));

    let feed = feed(&node, &tasks);
    // `kubernetes` and `kube-dns` are there from the start.
    until(&feed, "the first lists", |view| view.services().count() == 2).await;

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
    tasks.drain(Duration::from_secs(30)).await.expect("all tasks end");
}
