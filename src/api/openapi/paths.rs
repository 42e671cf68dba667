//! A resource's paths and the operations on them.

use serde_json::{Map, Value, json};

use super::custom::custom_reference;
use super::types::reference;
use crate::meta::Gvk;
use crate::resources::Resource;
use crate::schema::builtin;

/// Method, verb of the resource, and the word of `x-kubernetes-action`.
const ON_COLLECTION: [(&str, &str, &str); 3] =
    [("get", "list", "list"), ("post", "create", "post"), ("delete", "deletecollection", "deletecollection")];
const ON_ITEM: [(&str, &str, &str); 4] = [
    ("get", "get", "get"),
    ("put", "update", "put"),
    ("patch", "patch", "patch"),
    ("delete", "delete", "delete"),
];
const ON_SUBRESOURCE: [(&str, &str, &str); 4] = [
    ("get", "get", "get"),
    ("post", "create", "post"),
    ("put", "update", "put"),
    ("patch", "patch", "patch"),
];

/// As extensions write a kind.
pub fn kind(kind: &Gvk) -> Value {
    json!({"group": kind.group, "version": kind.version, "kind": kind.kind})
}

/// Adds everything below the resource's name.
pub fn add(row: &Resource, paths: &mut Map<String, Value>) {
    let root = match row.group.as_ref() {
        "" => format!("/api/{}", row.version),
        group => format!("/apis/{group}/{}", row.version),
    };
    let scope = if row.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{scope}/{}", row.plural);
    let own = row.gvk();
    if row.namespaced && row.has_verb("list") {
        let list = [("get", "list", "list")];
        insert(paths, format!("{root}/{}", row.plural), operations(row, &list, row.verbs, &own));
    }
    insert(paths, collection.clone(), operations(row, &ON_COLLECTION, row.verbs, &own));
    let item = format!("{collection}/{{name}}");
    insert(paths, item.clone(), operations(row, &ON_ITEM, row.verbs, &own));
    for sub in &row.subresources {
        insert(
            paths,
            format!("{item}/{}", sub.name()),
            operations(row, &ON_SUBRESOURCE, sub.verbs, &sub.kind),
        );
    }
}

fn insert(paths: &mut Map<String, Value>, path: String, mut operations: Map<String, Value>) {
    if operations.is_empty() {
        return;
    }
    let parameters: Vec<Value> = ["namespace", "name"]
        .into_iter()
        .filter(|part| path.contains(&format!("{{{part}}}")))
        .map(|part| json!({"name": part, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    if !parameters.is_empty() {
        operations.insert("parameters".to_owned(), Value::Array(parameters));
    }
    paths.insert(path, Value::Object(operations));
}

fn operations(row: &Resource, table: &[(&str, &str, &str)], verbs: &[&str], own: &Gvk) -> Map<String, Value> {
    let served = table.iter().filter(|(_, verb, _)| verbs.contains(verb));
    served.map(|(method, verb, action)| (method.to_string(), operation(row, verb, action, own))).collect()
}

fn operation(row: &Resource, verb: &str, action: &str, own: &Gvk) -> Value {
    let answer = match verb {
        "list" => Gvk { kind: row.list_kind.clone(), ..own.clone() },
        "delete" | "deletecollection" => Gvk::of("", "v1", "Status"),
        _ => own.clone(),
    };
    let mut operation = json!({
        "parameters": parameters(verb),
        "responses": {"200": {"description": "OK", "content": content(row, &["application/json"], &answer)}},
        "x-kubernetes-action": action,
        "x-kubernetes-group-version-kind": kind(own),
    });
    let body = match verb {
        "create" | "update" => Some(content(row, &["*/*"], own)),
        "patch" => {
            // Clients choose by this how they patch; nobody knows the merge keys of custom kinds.
            let strategic = row.published.is_none().then_some("strategic-merge-patch");
            let forms = ["json-patch", "merge-patch"].into_iter().chain(strategic);
            let any =
                |form: &str| (format!("application/{form}+json"), json!({"schema": {"type": "object"}}));
            Some(Value::Object(forms.map(any).collect()))
        }
        "delete" | "deletecollection" => Some(content(row, &["*/*"], &Gvk::of("", "v1", "DeleteOptions"))),
        _ => None,
    };
    if let Some(content) = body {
        operation["requestBody"] = json!({"content": content});
    }
    operation
}

fn content(row: &Resource, forms: &[&str], kind: &Gvk) -> Value {
    let builtin = builtin(kind).map(|schema| reference(schema.name));
    let schema = builtin.or_else(|| custom_reference(row, kind)).unwrap_or_else(|| json!({"type": "object"}));
    Value::Object(forms.iter().map(|form| (form.to_string(), json!({"schema": schema}))).collect())
}

fn parameters(verb: &str) -> Vec<Value> {
    const SELECT: &[(&str, &str)] = &[
        ("allowWatchBookmarks", "boolean"),
        ("continue", "string"),
        ("fieldSelector", "string"),
        ("labelSelector", "string"),
        ("limit", "integer"),
        ("resourceVersion", "string"),
        ("resourceVersionMatch", "string"),
        ("sendInitialEvents", "boolean"),
        ("timeoutSeconds", "integer"),
        ("watch", "boolean"),
    ];
    const WRITE: &[(&str, &str)] = &[
        ("dryRun", "string"),
        ("fieldManager", "string"),
        ("fieldValidation", "string"),
        ("force", "boolean"),
    ];
    const DELETE: &[(&str, &str)] = &[
        ("dryRun", "string"),
        ("gracePeriodSeconds", "integer"),
        ("orphanDependents", "boolean"),
        ("propagationPolicy", "string"),
    ];
    let named: Vec<&(&str, &str)> = match verb {
        "list" => SELECT.iter().collect(),
        "create" | "update" => WRITE[..3].iter().collect(),
        "patch" => WRITE.iter().collect(),
        "delete" => DELETE.iter().collect(),
        "deletecollection" => SELECT.iter().chain(DELETE).collect(),
        _ => Vec::new(),
    };
    let parameter = |(name, form): &(&str, &str)| json!({"name": name, "in": "query", "schema": {"type": form, "uniqueItems": true}});
    named.into_iter().map(parameter).collect()
}
