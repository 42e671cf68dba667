//! OpenAPI version 2, made from version 3: older clients know no other.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::types::REFERENCE;
use crate::api::resources::{Resource, Table};

const DEFINITIONS: &str = "#/definitions/";

/// The one document of all resources.
pub fn document(table: &Table) -> Value {
    let rows: Vec<&Arc<Resource>> = table.iter().collect();
    let (paths, schemas) = super::parts(&rows);
    let paths: Map<String, Value> = paths.into_iter().map(|(path, item)| (path, path_item(item))).collect();
    let definitions: Map<String, Value> =
        schemas.into_iter().map(|(name, schema)| (name, lowered(opened(schema)))).collect();
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "v1.36.0"},
        "paths": paths,
        "definitions": definitions,
    })
}

fn path_item(item: Value) -> Value {
    let Value::Object(members) = item else { return item };
    let lower = |(key, value): (String, Value)| match key.as_str() {
        "parameters" => (key, parameters(value)),
        _ => (key, operation(value)),
    };
    Value::Object(members.into_iter().map(lower).collect())
}

fn operation(mut operation: Value) -> Value {
    let mut all = parameters(operation["parameters"].take());
    if let Some(body) = operation.as_object_mut().and_then(|members| members.remove("requestBody"))
        && let (Some((_, content)), Some(list)) = (first(&body["content"]), all.as_array_mut())
    {
        let types: Vec<&String> = body["content"].as_object().into_iter().flat_map(Map::keys).collect();
        operation["consumes"] = json!(types);
        list.push(json!({"name": "body", "in": "body", "required": true, "schema": lowered(content["schema"].clone())}));
    }
    operation["parameters"] = all;
    operation["produces"] = json!(["application/json", "application/yaml"]);
    for response in operation["responses"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        let content = response.as_object_mut().and_then(|members| members.remove("content"));
        if let Some((_, content)) = content.as_ref().and_then(first) {
            response["schema"] = lowered(content["schema"].clone());
        }
    }
    operation
}

fn first(content: &Value) -> Option<(&String, &Value)> {
    content.as_object()?.iter().next()
}

/// A parameter's type stands in the parameter itself.
fn parameters(list: Value) -> Value {
    let Value::Array(list) = list else { return json!([]) };
    let lower = |mut parameter: Value| {
        let schema = parameter["schema"].take();
        if let Some(members) = parameter.as_object_mut() {
            members.remove("schema");
            members.extend(schema.as_object().cloned().unwrap_or_default());
        }
        parameter
    };
    Value::Array(list.into_iter().map(lower).collect())
}

/// A kind that takes any fields says none: clients of version 2 would refuse all others.
fn opened(schema: Value) -> Value {
    const KINDS: &str = "x-kubernetes-group-version-kind";
    if schema.get("x-kubernetes-preserve-unknown-fields") != Some(&Value::Bool(true)) {
        return schema;
    }
    match schema.get(KINDS) {
        Some(kinds) => json!({"type": "object", KINDS: kinds}),
        None => schema,
    }
}

/// A schema without what version 2 does not know. Rule: upstream's `ToStructuralOpenAPIV2`.
fn lowered(schema: Value) -> Value {
    let Value::Object(mut members) = schema else { return schema };
    if let Some(Value::String(target)) = members.get("$ref") {
        return json!({"$ref": target.replace(REFERENCE, DEFINITIONS)});
    }
    if let Some([Value::Object(only)]) = members.get("allOf").and_then(Value::as_array).map(Vec::as_slice)
        && let Some(Value::String(target)) = only.get("$ref")
    {
        let target = target.replace(REFERENCE, DEFINITIONS);
        members.remove("allOf");
        members.insert("$ref".to_owned(), target.into());
        return Value::Object(members);
    }
    let flag = |members: &Map<String, Value>, key: &str| members.get(key) == Some(&Value::Bool(true));
    // Unions of types that clients know by their format.
    if members.contains_key("oneOf") && !members.contains_key("type") && !members.contains_key("properties") {
        members.insert("type".to_owned(), "string".into());
    }
    if flag(&members, "nullable") || flag(&members, "x-kubernetes-int-or-string") {
        members.remove("type");
    }
    if flag(&members, "nullable") || flag(&members, "x-kubernetes-preserve-unknown-fields") {
        for key in ["properties", "items", "additionalProperties", "required"] {
            members.remove(key);
        }
    }
    for key in ["oneOf", "anyOf", "allOf", "not", "nullable"] {
        members.remove(key);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = members.get_mut(key) {
            *inner = lowered(inner.take());
        }
    }
    for inner in members.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten() {
        *inner.1 = lowered(inner.1.take());
    }
    Value::Object(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::resources::builtin;

    #[test]
    fn one_document_without_dangling_references() {
        let document = document(&Table::new(builtin()));
        let definitions = document["definitions"].as_object().unwrap();
        let text = document.to_string();
        assert!(!text.contains("#/components/"));
        for (at, mark) in text.match_indices(DEFINITIONS) {
            let name = text[at + mark.len()..].split('"').next().unwrap();
            assert!(definitions.contains_key(name), "{name} dangles");
        }
        let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        let names: Vec<_> =
            patch["parameters"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
        assert!(names.contains(&"dryRun") && names.contains(&"body"), "{names:?}");
        let port = &definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
        assert_eq!(*port, json!({"type": "string", "format": "int-or-string"}));
    }

    #[test]
    fn kinds_that_take_anything_say_nothing() {
        let kinds = json!([{"group": "g", "version": "v1", "kind": "K"}]);
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "description": "d",
            "properties": {"a": {"type": "string"}}, "x-kubernetes-group-version-kind": kinds});
        assert_eq!(opened(schema), json!({"type": "object", "x-kubernetes-group-version-kind": kinds}));
        let plain = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        assert_eq!(opened(plain.clone()), plain);
    }

    #[test]
    fn schemas_lose_what_version_2_does_not_know() {
        let schema = json!({"type": "object", "properties": {
            "a": {"type": "string", "nullable": true},
            "b": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "c": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"x": {"type": "string"}}},
        }, "oneOf": [{"required": ["a"]}]});
        assert_eq!(
            lowered(schema),
            json!({"type": "object", "properties": {
                "a": {},
                "b": {"x-kubernetes-int-or-string": true},
                "c": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            }})
        );
    }
}
