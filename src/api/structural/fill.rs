//! What is unknown goes, what is left out is filled in.

use serde_json::{Map, Value};

use super::compile::{Additional, Structural};
use crate::schema;

/// What every object has, whatever its schema says.
const OF_OBJECTS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes members that the schema does not know from an object; returns where they stood, as `spec.a[0].b`.
pub fn prune(schema: &Structural, object: &mut Value) -> Vec<String> {
    let mut gone = Vec::new();
    walk(schema, object, &mut String::new(), true, &mut gone);
    gone
}

fn walk(schema: &Structural, value: &mut Value, path: &mut String, root: bool, gone: &mut Vec<String>) {
    let length = path.len();
    match value {
        Value::Object(map) => {
            let kept = |name: &str| (root || schema.embedded) && OF_OBJECTS.contains(&name);
            let open = schema.preserve || matches!(schema.additional, Additional::Anything);
            map.retain(|name, inner| {
                let member = schema.member(name).filter(|_| !kept(name));
                if let Some(member) = member {
                    push(path, name);
                    walk(member, inner, path, false, gone);
                    path.truncate(length);
                    return true;
                }
                if !root && kept(name) && name == "metadata" {
                    push(path, name);
                    let said = schema::named("meta.v1.ObjectMeta").map(|schema| schema.prune(inner));
                    let unknown = said.iter().flatten().filter_map(|said| said.split('"').nth(1));
                    gone.extend(unknown.map(|below| format!("{path}.{below}")));
                    path.truncate(length);
                }
                if open || kept(name) {
                    return true;
                }
                push(path, name);
                gone.push(path.clone());
                path.truncate(length);
                false
            });
        }
        Value::Array(items) => {
            let Some(schema) = &schema.items else { return };
            for (index, item) in items.iter_mut().enumerate() {
                path.push_str(&format!("[{index}]"));
                walk(schema, item, path, false, gone);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn push(path: &mut String, name: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(name);
}

/// Fills in defaults, outer before inner. A null that the schema does not allow counts as absent, and goes.
pub fn default(schema: &Structural, value: &mut Value) {
    match value {
        Value::Object(map) => {
            drop_nulls(schema, map);
            for (name, member) in &schema.properties {
                if let Some(default) = member.default.as_ref().filter(|_| !map.contains_key(name)) {
                    map.insert(name.clone(), default.clone());
                }
            }
            for (name, inner) in map {
                if let Some(member) = schema.member(name) {
                    default(member, inner);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = &schema.items else { return };
            for item in items {
                if let (Value::Null, Some(value), false) = (&item, &schema.default, schema.nullable) {
                    *item = value.clone();
                }
                default(schema, item);
            }
        }
        _ => {}
    }
}

fn drop_nulls(schema: &Structural, map: &mut Map<String, Value>) {
    map.retain(|name, value| {
        !value.is_null() || schema.member(name).is_none_or(|member| member.nullable || member.kind.is_none())
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Structural {
        Structural::of(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer", "default": 3},
                "maybe": {"type": "string", "nullable": true},
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"closed": {"type": "object"}}},
                "map": {"type": "object", "additionalProperties": {"type": "object",
                    "properties": {"a": {"type": "string", "default": "x"}}}},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {}},
            }},
        }}))
    }

    #[test]
    fn what_is_unknown_goes() {
        let mut object = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "a", "odd": 1}, "odd": 1,
            "spec": {"size": 1, "odd": 2, "open": {"any": 1, "closed": {"x": 1}}, "map": {"k": {"a": "b", "c": 1}},
                "list": [{"a": "b"}, {"b": 1}], "pod": {"kind": "P", "metadata": {"name": "a", "odd": 1}, "spec": {}}}});
        let gone = prune(&schema(), &mut object);
        assert_eq!(
            gone,
            [
                "odd",
                "spec.list[1].b",
                "spec.map.k.c",
                "spec.odd",
                "spec.open.closed.x",
                "spec.pod.metadata.odd",
                "spec.pod.spec"
            ]
        );
        assert_eq!(object["metadata"]["odd"], 1);
        assert_eq!(object["spec"]["open"], json!({"any": 1, "closed": {}}));
        assert_eq!(object["spec"]["pod"], json!({"kind": "P", "metadata": {"name": "a"}}));
    }

    #[test]
    fn what_is_left_out_is_filled_in() {
        let mut object = json!({"spec": {"maybe": null, "size": null, "map": {"k": {}}}});
        default(&schema(), &mut object);
        assert_eq!(object, json!({"spec": {"maybe": null, "size": 3, "map": {"k": {"a": "x"}}}}));
        let mut object = json!({});
        default(&schema(), &mut object);
        assert_eq!(object, json!({}));
    }
}
