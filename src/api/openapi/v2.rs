//! OpenAPI version 2, made from version 3: older clients know no other.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::Form;
use super::types::REFERENCE;
use crate::resources::{Resource, Table};

const DEFINITIONS: &str = "#/definitions/";

/// The one document of all resources.
pub fn document(table: &Table) -> Value {
    let rows: Vec<&Arc<Resource>> = table.iter().collect();
    let (paths, schemas) = super::parts(&rows, Form::V2);
    let paths: Map<String, Value> = paths.into_iter().map(|(path, item)| (path, path_item(item))).collect();
    let definitions: Map<String, Value> =
        schemas.into_iter().map(|(name, schema)| (name, lowered(schema))).collect();
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

/// A schema in the words of version 2.
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
    // Unions of types that clients know by their format.
    if members.remove("oneOf").is_some() {
        members.insert("type".to_owned(), "string".into());
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
    use crate::resources::builtin;

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
        assert_eq!((&port["type"], &port["format"]), (&json!("string"), &json!("int-or-string")));
        assert_eq!(port.get("oneOf"), None);
    }
}
