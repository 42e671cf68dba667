//! Controllers and scheduler run at one server, and at another one when that is gone.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{Server, Shared, TERMS, eventually, parse};

const PARTS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

/// Who holds a Lease, and how often that has changed.
async fn holder(server: &Server, lease: &str) -> (String, i32) {
    let lease = server.api::<Lease>("kube-system").get_opt(lease).await.expect("the API answers");
    let spec = lease.and_then(|lease| lease.spec).unwrap_or_default();
    (spec.holder_identity.unwrap_or_default(), spec.lease_transitions.unwrap_or_default())
}

/// Waits until a server leads everything; returns how long that took.
async fn led_by(server: &Server, name: &str) -> Duration {
    eventually(&format!("{name} leads"), || async {
        let mut all = true;
        for part in PARTS {
            all &= holder(server, part).await.0 == name;
        }
        all
    })
    .await
}

async fn deploy(server: &Server) {
    let deployment = json!({"metadata": {"name": "web"}, "spec": {"replicas": 3,
        "selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "image": "one"}]}}}});
    server
        .api::<Deployment>("default")
        .create(&PostParams::default(), &parse(deployment))
        .await
        .expect("a deployment");
}

async fn node(server: &Server) {
    let nodes: Api<Node> = Api::all(server.client.clone());
    let node = json!({"metadata": {"name": "n"}});
    nodes.create(&PostParams::default(), &parse(node)).await.expect("a node");
    let status = json!({"status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"},
        "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]}});
    nodes.patch_status("n", &PatchParams::default(), &Patch::Merge(status)).await.expect("a status");
}

async fn scale(server: &Server, replicas: i32) {
    let patch = json!({"spec": {"replicas": replicas}});
    let api = server.api::<Deployment>("default");
    api.patch("web", &PatchParams::default(), &Patch::Merge(patch)).await.expect("scaled");
}

/// Waits until so many Pods are there and bound.
async fn runs(server: &Server, pods: usize) {
    eventually(&format!("{pods} Pods are bound"), || async {
        let list = server.api::<Pod>("default").list(&ListParams::default()).await.expect("a list").items;
        let bound = list.iter().filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()));
        bound.count() == pods
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_leads_and_another_takes_over() {
    let Some(shared) = Shared::start() else { return };
    let one = shared.server("one").await;
    led_by(&one, "one").await;
    let two = shared.server("two").await;
    node(&two).await;
    // Written at the one, done by the other: what runs where does not show.
    deploy(&two).await;
    runs(&two, 3).await;
    for part in PARTS {
        assert_eq!(holder(&two, part).await, ("one".to_owned(), 0), "{part}");
    }
    // Stopped, it hands over: nobody waits for the lease to end.
    one.stop().await;
    let took = led_by(&two, "two").await;
    assert!(took < TERMS.lease / 2, "took over after {took:?}");
    scale(&two, 5).await;
    runs(&two, 5).await;
    // Killed, it is taken over from within its lease's term.
    let one = shared.server("one").await;
    let before = holder(&one, PARTS[0]).await;
    two.kill();
    assert_eq!(before, ("two".to_owned(), 1));
    scale(&one, 6).await;
    let took = led_by(&one, "one").await;
    assert!(took < TERMS.lease + Duration::from_secs(4), "took over after {took:?}");
    runs(&one, 6).await;
    // Nothing was done twice.
    let pods = one.api::<Pod>("default").list(&ListParams::default()).await.expect("a list").items;
    assert_eq!(pods.len(), 6);
    let sets = one.api::<ReplicaSet>("default").list(&ListParams::default()).await.expect("a list").items;
    assert_eq!(sets.len(), 1);
    let events = one.api::<Event>("default").list(&ListParams::default()).await.expect("a list").items;
    let bound = events.iter().filter(|event| event.reason.as_deref() == Some("Scheduled"));
    let bound: Vec<String> = bound.filter_map(|event| event.involved_object.name.clone()).collect();
    let names: BTreeSet<String> = pods.iter().map(ResourceExt::name_any).collect();
    assert!(bound.len() <= 6 && bound.iter().all(|pod| names.contains(pod)), "{bound:?}, {names:?}");
    one.stop().await;
}
