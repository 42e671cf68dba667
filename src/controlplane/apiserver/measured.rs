//! What is looked at when somebody reads it: metrics.k8s.io (what nodes and Pods use now) and component statuses. Nothing is
//! stored and nobody polls.

use std::collections::HashMap;
use std::time::Duration;

use http::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::context::{RequestContext, from_storage};
use super::key::CollectionKey;
use super::key::collections::{NODES, PODS};
use super::proxy::Streams;
use super::verbs::Answer;
use super::wire;
use api::meta::ObjectExt;
use api::resources::Measure;
use api::selector::LabelSelector;
use api::status::ApiError;
use storage::ListQuery;

/// A kubelet that does not answer by then is left out; its first answer takes a second of measuring.
const PATIENCE: Duration = Duration::from_secs(8);
/// No more than what is told here.
const SUMMARY: &str = "/stats/summary?only_cpu_and_memory=true";
/// What a kubelet's rates are taken over, at least.
const WINDOW: &str = "1s";

/// Answers a read of what is measured. Fails with 404 for a node or Pod there is no measurement of.
pub async fn answer(context: &RequestContext<'_>, measure: Measure) -> Answer {
    let info = context.info;
    let selector = context.params.text("labelSelector").map(LabelSelector::parse).transpose();
    let selector = selector.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let nodes = match measure {
        Measure::Components => Vec::new(),
        _ => objects(context, NODES, "").await?,
    };
    let mut items = match measure {
        Measure::Components => {
            let storage = component(context.engine.store.healthy().err().map(|error| error.to_string()));
            Some(storage).into_iter().filter(|it| info.name.is_empty() || it.name() == info.name).collect()
        }
        Measure::Nodes => {
            let wanted: Vec<&Value> =
                nodes.iter().filter(|node| info.name.is_empty() || node.name() == info.name).collect();
            let summaries = summaries(context, &wanted).await?;
            wanted.iter().zip(&summaries).filter_map(|(node, told)| of_node(node, told.as_ref()?)).collect()
        }
        Measure::Pods => {
            let pods = objects(context, PODS, &info.namespace).await?;
            let pods: Vec<Value> =
                pods.into_iter().filter(|pod| info.name.is_empty() || pod.name() == info.name).collect();
            let with_pods =
                |node: &&Value| pods.iter().any(|pod| pod.str_at("/spec/nodeName") == Some(node.name()));
            let wanted: Vec<&Value> = nodes.iter().filter(with_pods).collect();
            of_pods(&pods, &summaries(context, &wanted).await?)
        }
    };
    items.retain(|item| selector.as_ref().is_none_or(|selector| selected(selector, item)));
    let response = match items.first() {
        None if !info.name.is_empty() => return Err(context.not_found()),
        Some(item) if !info.name.is_empty() => context.answer_object(StatusCode::OK, item)?,
        _ => {
            let encoder = context.encoder();
            wire::raw(StatusCode::OK, encoder.content_type(), encoder.objects(items, Map::new())?)
        }
    };
    Ok(response)
}

/// The storage, by the name under which clients look for it.
fn component(error: Option<String>) -> Value {
    let condition = match error {
        None => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Some(error) => json!({"type": "Healthy", "status": "False", "message": "storage", "error": error}),
    };
    json!({"kind": "ComponentStatus", "apiVersion": "v1",
        "metadata": {"name": "etcd-0", "creationTimestamp": null}, "conditions": [condition]})
}

async fn objects(
    context: &RequestContext<'_>,
    of: CollectionKey<'_>,
    namespace: &str,
) -> Result<Vec<Value>, ApiError> {
    let query = ListQuery { prefix: of.prefix(namespace), ..ListQuery::default() };
    let listing = context.engine.store.list(query).await.map_err(from_storage)?;
    let read = |entry: &std::sync::Arc<storage::Entry>| {
        serde_json::from_slice::<Value>(&entry.data).map_err(ApiError::internal)
    };
    listing.entries.iter().map(read).collect()
}

/// What each node's kubelet tells; `None` of one that does not answer.
async fn summaries(context: &RequestContext<'_>, nodes: &[&Value]) -> Result<Vec<Option<Value>>, ApiError> {
    let Some(streams) = &context.engine.streams else {
        return Err(ApiError::service_unavailable("this server has no way to nodes"));
    };
    let asked = nodes.iter().map(|node| summary(streams, node));
    Ok(futures::future::join_all(asked).await)
}

async fn summary(streams: &Streams, node: &Value) -> Option<Value> {
    match tokio::time::timeout(PATIENCE, streams.kubelet_json(node, SUMMARY)).await {
        Ok(Ok(summary)) => Some(summary),
        Ok(Err(error)) => {
            tracing::debug!(%error, node = node.name(), "a kubelet does not tell what is used");
            None
        }
        Err(_) => None,
    }
}

fn selected(selector: &LabelSelector, item: &Value) -> bool {
    let labels = item.pointer("/metadata/labels").and_then(Value::as_object);
    selector.matches(|key| labels?.get(key)?.as_str())
}

/// Processor time in billionths of a core, memory in KiB, as metrics-server writes them.
fn usage(measured: &Value) -> Value {
    let number = |path: &str| measured.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    json!({
        "cpu": format!("{}n", number("/cpu/usageNanoCores")),
        "memory": format!("{}Ki", number("/memory/workingSetBytes") / 1024),
    })
}

fn head(kind: &str, of: &Value, measured: &Value) -> Value {
    let when = measured.str_at("/cpu/time").and_then(|time| time.parse::<Timestamp>().ok());
    let when =
        when.and_then(|time| Timestamp::from_second(time.as_second()).ok()).map(|time| time.to_string());
    let mut metadata = json!({"name": of.name(), "creationTimestamp": when});
    for field in ["namespace", "labels"] {
        if let Some(value) = of.pointer(&format!("/metadata/{field}")) {
            metadata[field] = value.clone();
        }
    }
    json!({"kind": kind, "apiVersion": "metrics.k8s.io/v1beta1", "metadata": metadata,
        "timestamp": when, "window": WINDOW})
}

fn of_node(node: &Value, summary: &Value) -> Option<Value> {
    let measured = summary.get("node")?;
    let mut item = head("NodeMetrics", node, measured);
    item["usage"] = usage(measured);
    Some(item)
}

fn of_pods(pods: &[Value], summaries: &[Option<Value>]) -> Vec<Value> {
    let measured: HashMap<&str, &Value> = summaries
        .iter()
        .flatten()
        .flat_map(|summary| summary.array_at("/pods"))
        .filter_map(|pod| Some((pod.str_at("/podRef/uid")?, pod)))
        .collect();
    let one = |pod: &Value| {
        let measured = measured.get(pod.str_at("/metadata/uid")?)?;
        let containers = measured.array_at("/containers").iter();
        let containers: Vec<Value> = containers
            .map(|container| json!({"name": container["name"], "usage": usage(container)}))
            .collect();
        let mut item = head("PodMetrics", pod, measured);
        item["containers"] = containers.into();
        Some(item)
    };
    pods.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelets_words_become_metrics() {
        let measured = json!({"cpu": {"time": "2026-01-01T00:00:00.5Z", "usageNanoCores": 250},
            "memory": {"workingSetBytes": 2048}});
        let node = json!({"metadata": {"name": "n", "labels": {"a": "b"}}});
        let item = of_node(&node, &json!({ "node": measured })).expect("measured");
        assert_eq!(item["usage"], json!({"cpu": "250n", "memory": "2Ki"}));
        assert_eq!(item["timestamp"], "2026-01-01T00:00:00Z");
        let mut container = measured.clone();
        container["name"] = "web".into();
        let told = json!({"podRef": {"uid": "u"}, "cpu": measured["cpu"], "containers": [container]});
        let summary = Some(json!({ "pods": [told] }));
        let pods = [
            json!({"metadata": {"name": "p", "namespace": "s", "uid": "u", "labels": {"app": "x"}}}),
            json!({"metadata": {"name": "unmeasured", "namespace": "s", "uid": "v"}}),
        ];
        let items = of_pods(&pods, &[None, summary]);
        assert_eq!(items.len(), 1);
        assert_eq!(
            items[0]["containers"][0],
            json!({"name": "web", "usage": {"cpu": "250n", "memory": "2Ki"}})
        );
        assert_eq!(component(Some("broken".to_owned()))["conditions"][0]["status"], "False");
        let selector = LabelSelector::parse("app=x").expect("a selector");
        assert!(selected(&selector, &items[0]));
    }
}
