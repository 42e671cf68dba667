//! What the API is told of this node's drivers.

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::storage::v1::CSINode;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Map, Value, json};

use super::drivers::{Drivers, Registered};

/// The annotation by which others find a driver's name for this node.
const NODE_IDS: &str = "csi.volume.kubernetes.io/nodeid";

/// Writes the CSINode and what drivers say of the Node itself.
pub async fn publish(client: &Client, node: &Node, drivers: &Drivers) -> Result<(), kube::Error> {
    let name = node.metadata.name.clone().unwrap_or_default();
    let all = drivers.all();
    let listed: Vec<Value> = all.iter().map(|(driver, registered)| entry(driver, registered)).collect();
    let csi_nodes: Api<CSINode> = Api::all(client.clone());
    let patch = json!({ "spec": { "drivers": listed } });
    match csi_nodes.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            let object = json!({
                "apiVersion": "storage.k8s.io/v1", "kind": "CSINode",
                "metadata": {"name": name, "ownerReferences": [
                    {"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.metadata.uid}]},
                "spec": {"drivers": listed},
            });
            let object: CSINode = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
            csi_nodes.create(&PostParams::default(), &object).await?;
        }
        other => drop(other?),
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let labels: Map<String, Value> = all
        .values()
        .flat_map(|registered| &registered.info.topology)
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    let ids: Map<String, Value> =
        all.iter().map(|(driver, registered)| (driver.clone(), json!(registered.info.node_id))).collect();
    let annotation = if ids.is_empty() { Value::Null } else { json!(Value::Object(ids).to_string()) };
    let had = node.metadata.annotations.as_ref().is_some_and(|map| map.contains_key(NODE_IDS));
    if annotation.is_null() && !had {
        return Ok(());
    }
    let patch = json!({"metadata": {"annotations": {NODE_IDS: annotation}, "labels": labels}});
    nodes.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop)
}

fn entry(driver: &str, registered: &Registered) -> Value {
    let info = &registered.info;
    let keys: Vec<&String> = info.topology.keys().collect();
    let mut entry = json!({"name": driver, "nodeID": info.node_id, "topologyKeys": keys});
    if info.max_volumes > 0 {
        entry["allocatable"] = json!({"count": info.max_volumes});
    }
    entry
}
