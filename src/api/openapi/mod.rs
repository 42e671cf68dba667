//! OpenAPI: version 3, one document per group and version, which `kubectl explain` shows and `kubectl apply` asks before it
//! sends `fieldValidation` or `dryRun`; and version 2, one document of everything, for older clients.
//!
//! Everything comes from the rows, their types, and what is to be said of these. Who asks keeps what is made here.

mod custom;
mod gnostic;
mod paths;
mod types;
mod v2;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::meta::Gvk;
use super::resources::{Resource, Table};
use super::schema::{self, Descriptions};

pub use gnostic::encode as encode_v2;
pub use v2::document as document_v2;

/// Where a group and version lie below `/openapi/v3/`: `api/v1`, `apis/apps/v1`.
fn place(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// Every place that has a document, with the text that its content follows from: what changes the document changes the text.
pub fn places(table: &Table) -> BTreeMap<String, String> {
    let mut places = BTreeMap::<String, String>::new();
    for row in table.iter() {
        let text = places.entry(place(&row.group, &row.version)).or_default();
        if let Some(published) = &row.published {
            let subresources: Vec<&str> = row.subresources.iter().map(|sub| sub.name()).collect();
            let names = [&row.plural, &row.kind, &row.list_kind].map(|name| name.as_ref());
            text.push_str(&json!([names, row.verbs, row.namespaced, subresources]).to_string());
            text.push_str(published);
        }
    }
    places
}

/// The document at a place; `None` if there is no such group and version.
pub fn document(table: &Table, at: &str) -> Option<Value> {
    let rows: Vec<_> = table.iter().filter(|row| place(&row.group, &row.version) == at).collect();
    if rows.is_empty() {
        return None;
    }
    let (paths, schemas) = parts(&rows, Form::V3);
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

/// Which of the two a document is. They differ in what is said of custom kinds; the rest of version 2 follows from version 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    V2,
    V3,
}

/// The paths of these rows, and the types that they speak of.
fn parts(rows: &[&Arc<Resource>], form: Form) -> (Map<String, Value>, Map<String, Value>) {
    let mut paths = Map::new();
    let mut kinds = BTreeSet::new();
    for row in rows {
        paths::add(row, &mut paths);
        kinds.extend(kinds_of(row));
    }
    let said = Descriptions::unpack();
    let mut schemas = types::reachable(kinds, &said);
    for row in rows {
        custom::add(row, form, &said, &mut schemas);
    }
    (paths, schemas)
}

/// Names of the built-in types a resource's paths speak of.
fn kinds_of(row: &Resource) -> impl Iterator<Item = &'static str> {
    let own = [row.gvk(), Gvk { kind: row.list_kind.clone(), ..row.gvk() }];
    let travels = row.subresources.iter().map(|sub| sub.kind.clone());
    let meta = ["DeleteOptions", "Status"].map(|kind| Gvk::of("", "v1", kind));
    let all: Vec<_> = own.into_iter().chain(travels).chain(meta).collect();
    let shared = ["meta.v1.ObjectMeta", "meta.v1.ListMeta"].into_iter().filter(|_| row.published.is_some());
    all.into_iter().filter_map(|kind| schema::builtin(&kind)).map(|schema| schema.name).chain(shared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::builtin;

    #[test]
    fn every_link_of_the_index_leads_to_a_document_without_dangling_references() {
        let table = Table::new(builtin());
        let places = places(&table);
        assert!(places.contains_key("api/v1") && places.contains_key("apis/apps/v1"));
        for place in places.keys() {
            let document = document(&table, place).unwrap();
            let text = document.to_string();
            let schemas = document["components"]["schemas"].as_object().unwrap();
            for (at, mark) in text.match_indices("#/components/schemas/") {
                let name = text[at + mark.len()..].split('"').next().unwrap();
                assert!(schemas.contains_key(name), "{place}: {name} dangles");
            }
        }
        assert_eq!(document(&table, "apis/none/v1"), None);
    }

    #[test]
    fn a_patch_says_that_it_validates_fields() {
        let document = document(&Table::new(builtin()), "apis/apps/v1").unwrap();
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
        let document = document(&Table::new(builtin()), "api/v1").unwrap();
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

    #[test]
    fn fields_are_described() {
        let document = document(&Table::new(builtin()), "apis/apps/v1").unwrap();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let silent: Vec<String> = schemas
            .iter()
            .filter(|(name, _)| !name.ends_with("List"))
            .flat_map(|(name, schema)| {
                let fields = schema["properties"].as_object().into_iter().flatten();
                let silent =
                    fields.filter(|(_, field)| field["description"].as_str().is_none_or(str::is_empty));
                silent.map(|(field, _)| format!("{name}.{field}")).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(silent, Vec::<String>::new());
    }
}
