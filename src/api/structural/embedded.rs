//! Objects inside of objects (`x-kubernetes-embedded-resource`): what says their type, and their metadata, keeps the rules of every
//! object. Rule: `objectmeta.Validate` of apiextensions.

use serde_json::Value;

use super::compile::{Additional, Structural};
use crate::meta::ObjectExt;
use crate::schema::{self, FieldValidation};
use crate::validate::{FieldError, NameRule, dns1035_label, object_meta};

/// Stands for the name of an object that has none: it is not an object that anybody stores.
const NAME: &str = "fakename";

/// Returns everything wrong with the objects inside of a value; `path` is where that stands, empty for an object itself.
pub fn check_embedded(schema: &Structural, value: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    visit(schema, value, path, &mut errors);
    errors
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

fn visit(schema: &Structural, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(map) => {
            if schema.embedded {
                of_object(value, path, errors);
            }
            for (name, inner) in map {
                if let Some(member) = schema.properties.get(name) {
                    visit(member, inner, &child(path, name), errors);
                } else if let Additional::Of(member) = &schema.additional {
                    visit(member, inner, &format!("{path}[{name}]"), errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = &schema.items else { return };
            for (at, item) in items.iter().enumerate() {
                visit(schema, item, &format!("{path}[{at}]"), errors);
            }
        }
        _ => {}
    }
}

fn of_object(object: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (name, rule) in [("apiVersion", group_version as fn(&str) -> Option<String>), ("kind", kind)] {
        let at = child(path, name);
        errors.extend(match object.get(name) {
            None => Some(FieldError::required(at, "")),
            Some(Value::String(text)) if text.is_empty() => {
                Some(FieldError::invalid(at, "", "must not be empty"))
            }
            Some(Value::String(text)) => rule(text).map(|why| FieldError::invalid(at, text.as_str(), why)),
            Some(other) => Some(FieldError::invalid(at, other.clone(), "must be a string")),
        });
    }
    let Some(metadata) = object.get("metadata") else { return };
    let schema = schema::named("meta.v1.ObjectMeta");
    if let Some(Err(error)) = schema.map(|schema| schema.convert(metadata, FieldValidation::Ignore)) {
        errors.push(FieldError::invalid(child(path, "metadata"), metadata.clone(), error.message));
        return;
    }
    let mut named = serde_json::json!({ "metadata": metadata });
    if named.name().is_empty() {
        named.meta_mut().insert("name".to_owned(), NAME.into());
    }
    let found = object_meta(&named, !named.namespace().is_empty(), NameRule::PathSegment);
    errors.extend(found.into_iter().map(|error| FieldError { field: child(path, &error.field), ..error }));
}

fn group_version(text: &str) -> Option<String> {
    (text.matches('/').count() > 1).then(|| format!("unexpected GroupVersion string: {text}"))
}

fn kind(text: &str) -> Option<String> {
    let wrong = dns1035_label(&text.to_lowercase());
    (!wrong.is_empty())
        .then(|| format!("may have mixed case, but should otherwise match: {}", wrong.join(",")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn embedded_objects_are_checked_as_objects() {
        let schema = Structural::of(
            &json!({"type": "object", "properties": {"items": {"type": "array", "items": {
            "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true}}}}),
        );
        let case = |object: Value, expect: &[&str]| {
            let errors = check_embedded(&schema, &json!({"items": [object]}), "");
            let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(said, expect, "{object}");
        };
        case(json!({"apiVersion": "v1", "kind": "Pod"}), &[]);
        case(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "x-", "namespace": "a"}}),
            &[],
        );
        case(json!({}), &["items[0].apiVersion: Required value", "items[0].kind: Required value"]);
        case(
            json!({"apiVersion": "a/b/c", "kind": ""}),
            &[
                r#"items[0].apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c"#,
                r#"items[0].kind: Invalid value: "": must not be empty"#,
            ],
        );
        let errors = check_embedded(
            &schema,
            &json!({"items": [{"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "a/b", "labels": {"a": "Bad Value!"}, "namespace": "UPPER"}}]}),
            "",
        );
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(
            fields,
            ["items[0].metadata.name", "items[0].metadata.namespace", "items[0].metadata.labels"]
        );
        let errors = check_embedded(
            &schema,
            &json!({"items": [{"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": 5}}]}),
            "",
        );
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].field, "items[0].metadata");
    }
}
