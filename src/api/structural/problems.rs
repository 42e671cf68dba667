//! What keeps a schema from being structural. Rule: upstream's `ValidateStructural`, its most common refusals.

use regex::Regex;
use serde_json::Value;

use super::check::check;
use super::compile::{JsonType, Structural};
use super::fill;
use crate::meta::ObjectExt;
use crate::validate::FieldError;

/// Everything wrong with a definition's schema at `path`.
pub fn problems(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if schema.text("type") != Some("object") {
        let at = format!("{path}.type");
        match schema.text("type").unwrap_or_default() {
            "" => errors.push(FieldError::required(at, "must not be empty at the root")),
            other => errors.push(FieldError::invalid(at, other, "must be object at the root")),
        }
    }
    if schema.get("nullable").and_then(Value::as_bool) == Some(true) {
        errors.push(FieldError::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    walk(schema, path, true, &mut errors);
    errors
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key).and_then(Value::as_bool).unwrap_or(false)
}

fn walk(schema: &Value, path: &str, root: bool, errors: &mut Vec<FieldError>) {
    typed(schema, path, root, errors);
    lists(schema, path, errors);
    values(schema, path, errors);
    for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        walk(inner, &format!("{path}.properties[{name}]"), false, errors);
    }
    for key in ["additionalProperties", "items"] {
        if let Some(inner) = schema.get(key).filter(|inner| inner.is_object()) {
            walk(inner, &format!("{path}.{key}"), false, errors);
        }
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (at, inner) in schema.get(key).and_then(Value::as_array).into_iter().flatten().enumerate() {
            logic(schema, inner, &format!("{path}.{key}[{at}]"), errors);
        }
    }
    if let Some(inner) = schema.get("not") {
        logic(schema, inner, &format!("{path}.not"), errors);
    }
}

fn typed(schema: &Value, path: &str, root: bool, errors: &mut Vec<FieldError>) {
    let at = |key: &str| format!("{path}.{key}");
    let word = schema.text("type").unwrap_or_default();
    if !word.is_empty() && JsonType::parse(word).is_none() {
        let words = ["array", "boolean", "integer", "number", "object", "string"];
        errors.push(FieldError::not_supported(at("type"), word, &words));
    }
    let free =
        flag(schema, "x-kubernetes-int-or-string") || flag(schema, "x-kubernetes-preserve-unknown-fields");
    if word.is_empty() && !free && !root {
        errors.push(FieldError::required(at("type"), "must not be empty for specified object fields"));
    }
    if flag(schema, "x-kubernetes-int-or-string") && !word.is_empty() {
        let why = "must be empty if x-kubernetes-int-or-string is true";
        errors.push(FieldError::invalid(at("type"), word, why));
    }
    if flag(schema, "x-kubernetes-embedded-resource") && word != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(FieldError::invalid(at("type"), word, why));
    }
    if flag(schema, "x-kubernetes-embedded-resource")
        && schema.get("properties").is_none()
        && !flag(schema, "x-kubernetes-preserve-unknown-fields")
    {
        let why = "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(at("properties"), why));
    }
    if word == "array" && schema.get("items").is_none() {
        errors.push(FieldError::required(at("items"), "must be specified"));
    }
    let properties =
        schema.get("properties").is_some_and(|inner| !inner.as_object().is_none_or(|m| m.is_empty()));
    if properties && schema.get("additionalProperties").is_some_and(|a| *a != Value::Bool(false)) {
        let why = "additionalProperties and properties are mutual exclusive";
        errors.push(FieldError::forbidden(at("additionalProperties"), why));
    }
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        errors.push(FieldError::forbidden(
            at("additionalProperties"),
            "additionalProperties cannot be set to false",
        ));
    }
    for (key, why) in [
        ("$ref", "$ref is not supported"),
        ("definitions", "definitions is not supported"),
        ("dependencies", "dependencies is not supported"),
        ("patternProperties", "patternProperties is not supported"),
        ("id", "id is not supported"),
    ] {
        if schema.get(key).is_some() {
            errors.push(FieldError::forbidden(at(key), why));
        }
    }
    if flag(schema, "uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(at("uniqueItems"), why));
    }
}

fn lists(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let at = |key: &str| format!("{path}.{key}");
    let keys: Vec<&str> =
        schema.array_at("/x-kubernetes-list-map-keys").iter().filter_map(Value::as_str).collect();
    let kind = schema.text("x-kubernetes-list-type").unwrap_or_default();
    match kind {
        "" | "atomic" | "set" | "map" => {}
        other => {
            errors.push(FieldError::not_supported(
                at("x-kubernetes-list-type"),
                other,
                &["atomic", "set", "map"],
            ));
        }
    }
    if !kind.is_empty() && schema.text("type") != Some("array") {
        let why = "must be array if x-kubernetes-list-type is specified";
        errors.push(FieldError::invalid(at("type"), schema.text("type").unwrap_or_default(), why));
    }
    if !keys.is_empty() && kind != "map" {
        let why = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(FieldError::invalid(at("x-kubernetes-list-type"), kind, why));
    }
    if kind != "map" {
        return;
    }
    if keys.is_empty() {
        let why = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(at("x-kubernetes-list-map-keys"), why));
    }
    let items = &schema["items"];
    for (index, key) in keys.iter().enumerate() {
        if items["properties"].get(key).is_none() {
            let at = format!("{path}.x-kubernetes-list-map-keys[{index}]");
            errors.push(FieldError::invalid(at, *key, "entries must all be names of item properties"));
            continue;
        }
        let required = items.array_at("/required").iter().any(|name| name == key);
        if !required && items["properties"][key].get("default").is_none() {
            let at = format!("{path}.items.properties[{key}].default");
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(FieldError::required(at, why));
        }
    }
}

fn values(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if let Some(pattern) = schema.text("pattern")
        && Regex::new(pattern).is_err()
    {
        let why = format!("must be a valid regular expression, but isn't: {pattern}");
        errors.push(FieldError::invalid(format!("{path}.pattern"), pattern, why));
    }
    let Some(default) = schema.get("default") else { return };
    let compiled = Structural::of(schema);
    let at = format!("{path}.default");
    let mut pruned = default.clone();
    if !fill::prune(&compiled, &mut pruned).is_empty() {
        errors.push(FieldError::invalid(&at, default.clone(), "must not have unknown fields"));
    }
    let mut filled = default.clone();
    fill::default(&compiled, &mut filled);
    errors.extend(check(&compiled, &filled, &at));
}

/// Below a logical junctor stand value validations alone, of what the structure beside it has.
fn logic(outer: &Value, schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let union = flag(outer, "x-kubernetes-int-or-string");
    for key in ["type", "default", "nullable", "additionalProperties", "x-kubernetes-preserve-unknown-fields"]
    {
        let set = schema.get(key).is_some_and(|value| *value != Value::Bool(false));
        if set && !(union && key == "type") {
            let why = "must be empty to be structural";
            errors.push(FieldError::forbidden(format!("{path}.{key}"), why));
        }
    }
    for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let here = format!("{path}.properties[{name}]");
        match outer["properties"].get(name) {
            Some(outer) => logic(outer, inner, &here, errors),
            None => {
                let why = format!("because it is defined in {here}");
                errors.push(FieldError::required(here, why));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_structural_is_refused() {
        let case = |schema: Value, expect: &[&str]| {
            let said: Vec<String> = problems(&schema, "s").iter().map(ToString::to_string).collect();
            assert_eq!(said, expect, "{schema}");
        };
        case(json!({"type": "object", "properties": {"a": {"type": "string"}}}), &[]);
        case(json!({}), &["s.type: Required value: must not be empty at the root"]);
        case(
            json!({"type": "object", "properties": {"a": {}}}),
            &["s.properties[a].type: Required value: must not be empty for specified object fields"],
        );
        case(
            json!({"type": "object", "properties": {"a": {"type": "integer", "default": "x"}}}),
            &[
                r#"s.properties[a].default: Invalid value: "string": s.properties[a].default in body must be of type integer: "string""#,
            ],
        );
        case(
            json!({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map",
                "items": {"type": "object", "properties": {"k": {"type": "string"}}, "required": ["k"]}}}}),
            &[
                "s.properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if x-kubernetes-list-type is map",
            ],
        );
        case(
            json!({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": true,
                "anyOf": [{"type": "integer"}, {"type": "string"}]}}}),
            &[],
        );
    }
}
