//! Quotas over kinds that come and go.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde_json::json;

use super::{Cluster, eventually, parse};

/// What the quota says is used of `count/widgets.example.com`.
async fn used(quotas: &Api<ResourceQuota>) -> Option<String> {
    let used = quotas.get("q").await.expect("a quota").status?.used?;
    Some(used.get("count/widgets.example.com")?.0.clone())
}

fn widgets(client: &Client) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Widget"));
    Api::namespaced_with(client.clone(), "default", &kind)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quota_follows_kinds_that_come_and_go() {
    let cluster = Cluster::start(Duration::from_secs(40)).await;
    let quotas = cluster.api::<ResourceQuota>("default");
    let quota = json!({"metadata": {"name": "q"}, "spec": {"hard": {"count/widgets.example.com": "5"}}});
    quotas.create(&PostParams::default(), &parse(quota)).await.expect("a quota");
    eventually("the status", || async { used(&quotas).await.as_deref() == Some("0") }).await;

    let definitions: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
    let definition = json!({"metadata": {"name": "widgets.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    definitions.create(&PostParams::default(), &parse(definition)).await.expect("a definition");
    let widgets = widgets(&cluster.client);
    let widget = |name: &str| {
        let object = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}});
        serde_json::from_value::<DynamicObject>(object).expect("a widget")
    };
    eventually("the kind is served", || async {
        widgets.create(&PostParams::default(), &widget("a")).await.is_ok()
    })
    .await;
    // Long before kinds are looked for again by the clock.
    let begun = Instant::now();
    eventually("the first is counted", || async { used(&quotas).await.as_deref() == Some("1") }).await;
    widgets.create(&PostParams::default(), &widget("b")).await.expect("a second");
    eventually("the second, too", || async { used(&quotas).await.as_deref() == Some("2") }).await;
    widgets.delete("a", &DeleteParams::default()).await.expect("deleted");
    eventually("one less", || async { used(&quotas).await.as_deref() == Some("1") }).await;
    println!("followed within {:?}", begun.elapsed());
    definitions.delete("widgets.example.com", &DeleteParams::default()).await.expect("deleted");
    eventually("the kind is gone", || async { used(&quotas).await.as_deref() == Some("0") }).await;
}
