//! Aggregated discovery: all groups and resources in one document.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::aggregation::{Remote, Remotes};
use api::meta::Gvk;
use api::resources::Resource;

use super::discovery::groups;

pub const CONTENT_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// All groups and resources in one document: of the core group, or of all others.
pub fn document(rows: &[Arc<Resource>], remotes: &Remotes, core: bool) -> Value {
    let items: Vec<Value> = groups(rows, remotes)
        .iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    if let Some(remote) = remotes.find(name, version) {
                        return told(remote);
                    }
                    let of_version = rows.iter().filter(|row| row.group == *name && row.version == *version);
                    let mut resources: Vec<Value> = of_version.map(|row| resource(row)).collect();
                    resources.sort_by(|a, b| a["resource"].as_str().cmp(&b["resource"].as_str()));
                    json!({"version": version, "resources": resources, "freshness": "Current"})
                })
                .collect();
            let metadata = if core {
                json!({"creationTimestamp": null})
            } else {
                json!({"name": name, "creationTimestamp": null})
            };
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

/// What another server told of its group and version; stale while it cannot be asked.
fn told(remote: &Remote) -> Value {
    let freshness = if remote.available { "Current" } else { "Stale" };
    json!({"version": remote.version, "resources": remote.told.resources, "freshness": freshness})
}

fn kind_of(kind: &Gvk) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

fn resource(row: &Resource) -> Value {
    let mut entry = json!({
        "resource": row.plural,
        "responseKind": kind_of(&row.gvk()),
        "scope": if row.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": row.singular,
        "verbs": row.verbs,
    });
    if !row.short_names.is_empty() {
        entry["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        entry["categories"] = json!(row.categories);
    }
    if !row.subresources.is_empty() {
        let subresource = |sub: &api::resources::Subresource| json!({"subresource": sub.name(), "responseKind": kind_of(&sub.kind), "verbs": sub.verbs});
        entry["subresources"] = row.subresources.iter().map(subresource).collect();
    }
    entry
}
