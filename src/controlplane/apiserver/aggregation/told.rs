//! What another API server tells of itself: its resources and its OpenAPI documents.

use serde_json::{Value, json};

use api::meta::{ObjectExt, split_api_version};

/// What a server told when it was last asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// As in aggregated discovery: the resources, each with its subresources.
    pub resources: Vec<Value>,
    /// Its paths and definitions of OpenAPI version 2, and the tag that this state had.
    pub openapi_v2: Option<(Value, String)>,
    /// Where version 3 of the group and version is, with its hash.
    pub openapi_v3: Option<String>,
}

/// The resources of an APIResourceList, in the form of aggregated discovery.
pub(super) fn resources(list: &Value) -> Vec<Value> {
    let (group, version) = split_api_version(list.text("groupVersion").unwrap_or_default());
    let kind = |entry: &Value| {
        let or = |field: &str, other: &str| {
            entry.text(field).filter(|text| !text.is_empty()).unwrap_or(other).to_owned()
        };
        json!({"group": or("group", group), "version": or("version", version), "kind": or("kind", "")})
    };
    let entries = list.array_at("/resources");
    let name = |entry: &Value| entry.text("name").unwrap_or_default().to_owned();
    let mut resources = Vec::new();
    for entry in entries.iter().filter(|entry| !name(entry).contains('/')) {
        let plural = name(entry);
        let mut resource = json!({
            "resource": plural,
            "responseKind": kind(entry),
            "scope": if entry.bool_at("/namespaced") == Some(true) { "Namespaced" } else { "Cluster" },
            "singularResource": entry.text("singularName").unwrap_or_default(),
            "verbs": entry["verbs"],
        });
        for field in ["shortNames", "categories"] {
            if let Some(value) = entry.get(field).filter(|value| !value.is_null()) {
                resource[field] = value.clone();
            }
        }
        let below = format!("{plural}/");
        let subresources: Vec<Value> = entries
            .iter()
            .filter_map(|sub| {
                let subresource = name(sub).strip_prefix(&below)?.to_owned();
                Some(json!({"subresource": subresource, "responseKind": kind(sub), "verbs": sub["verbs"]}))
            })
            .collect();
        if !subresources.is_empty() {
            resource["subresources"] = subresources.into();
        }
        resources.push(resource);
    }
    resources
}

/// The part of a version 2 document that is about a group and version: its paths, and all definitions.
pub(super) fn part_of_v2(mut document: Value, group: &str, version: &str) -> Value {
    let prefix = format!("/apis/{group}/{version}");
    let own =
        |path: &str| path.strip_prefix(&prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let mut paths = document["paths"].take();
    if let Some(paths) = paths.as_object_mut() {
        paths.retain(|path, _| own(path));
    }
    json!({"paths": paths, "definitions": document["definitions"].take()})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_resources_become_aggregated_discovery() {
        let list = json!({"kind": "APIResourceList", "groupVersion": "wardle.example.com/v1alpha1", "resources": [
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/scale", "singularName": "", "namespaced": true, "group": "autoscaling", "version": "v1", "kind": "Scale", "verbs": ["get"]},
        ]});
        let expect = json!([{"resource": "flunders", "scope": "Namespaced", "singularResource": "flunder", "verbs": ["get"],
            "shortNames": ["fl"],
            "responseKind": {"group": "wardle.example.com", "version": "v1alpha1", "kind": "Flunder"},
            "subresources": [{"subresource": "scale", "verbs": ["get"],
                "responseKind": {"group": "autoscaling", "version": "v1", "kind": "Scale"}}]}]);
        assert_eq!(Value::from(resources(&list)), expect);
    }

    #[test]
    fn only_its_own_paths_are_taken() {
        let document = json!({"paths": {"/apis/x.io/v1/things": 1, "/apis/x.io/v1beta1/things": 1, "/healthz": 1},
            "definitions": {"a": {}}});
        let part = part_of_v2(document, "x.io", "v1");
        assert_eq!(part, json!({"paths": {"/apis/x.io/v1/things": 1}, "definitions": {"a": {}}}));
    }
}
