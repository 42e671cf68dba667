//! OpenAPI v3, one document per group and version: what `kubectl explain` shows and what `kubectl apply` asks
//! before it sends `fieldValidation` or `dryRun`.
//!
//! Everything comes from the resource table and the schema table; descriptions are not in there, so documents are
//! small and say names, types and list keys. Documents are made when they are asked for and kept by nobody.

mod paths;
mod types;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::resources::{Resource, table};
use super::schema;

/// Where a group and version lie below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
fn place(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The index: every document's place, and its URL with `hash`, under which it may be cached for good. The documents
/// follow from the program alone, so one hash, of the program, serves all.
pub fn index(hash: &str) -> Value {
    let places: BTreeSet<String> = table().iter().map(|row| place(&row.group, &row.version)).collect();
    let paths: Map<String, Value> = places
        .into_iter()
        .map(|place| {
            let url = format!("/openapi/v3/{place}?hash={hash}");
            (place, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

/// The document at a place of the index; `None` if there is no such group and version.
pub fn document(at: &str) -> Option<Value> {
    let rows: Vec<_> = table().iter().filter(|row| place(&row.group, &row.version) == at).collect();
    if rows.is_empty() {
        return None;
    }
    let mut paths = Map::new();
    let mut kinds = BTreeSet::new();
    for row in rows {
        paths::add(row, &mut paths);
        kinds.extend(kinds_of(row));
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "components": {"schemas": types::reachable(kinds)},
    }))
}

/// Names of the types a resource's paths speak of.
fn kinds_of(row: &Resource) -> impl Iterator<Item = &'static str> {
    let own = [row.gvk(), super::meta::Gvk { kind: row.list_kind.clone(), ..row.gvk() }];
    let travels = row.subresources.iter().map(|sub| sub.kind.clone());
    let meta = ["DeleteOptions", "Status"].map(|kind| super::meta::Gvk::of("", "v1", kind));
    let all: Vec<_> = own.into_iter().chain(travels).chain(meta).collect();
    all.into_iter().filter_map(|kind| schema::builtin(&kind)).map(|schema| schema.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_of_the_index_leads_to_a_document_without_dangling_references() {
        let index = index("x");
        let places = index["paths"].as_object().unwrap();
        assert!(places.contains_key("api/v1") && places.contains_key("apis/apps/v1"));
        for place in places.keys() {
            let document = document(place).unwrap();
            let text = document.to_string();
            let schemas = document["components"]["schemas"].as_object().unwrap();
            for (at, mark) in text.match_indices("#/components/schemas/") {
                let name = text[at + mark.len()..].split('"').next().unwrap();
                assert!(schemas.contains_key(name), "{place}: {name} dangles");
            }
        }
        assert_eq!(document("apis/none/v1"), None);
    }

    #[test]
    fn a_patch_says_that_it_validates_fields() {
        let document = document("apis/apps/v1").unwrap();
        let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
        assert_eq!(
            patch["x-kubernetes-group-version-kind"],
            json!({"group": "apps", "version": "v1", "kind": "Deployment"})
        );
        let names: Vec<_> =
            patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].as_str().unwrap()).collect();
        assert!(names.contains(&"fieldValidation") && names.contains(&"dryRun"), "{names:?}");
    }

    #[test]
    fn lists_say_how_they_are_merged() {
        let document = document("api/v1").unwrap();
        let spec = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"];
        let containers = &spec["properties"]["containers"];
        assert_eq!(containers["type"], "array");
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(
            containers["items"]["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.api.core.v1.Container"
        );
        assert_eq!(spec["required"], json!(["containers"]));
    }
}
