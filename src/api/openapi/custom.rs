//! Custom kinds as OpenAPI schemas. Rule: `builder.go` of apiextensions.

use serde_json::{Map, Value, json};

use super::Form;
use super::types::{REFERENCE, described, reference};
use crate::meta::Gvk;
use crate::resources::Resource;
use crate::schema::Descriptions;

/// A type whose fields are those that every object and every list has.
const OBJECT: &str = "io.k8s.api.core.v1.ConfigMap";
const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
const EMBEDDED: &str = "x-kubernetes-embedded-resource";
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// The name under which clients know a custom kind: the group's parts reversed, version, kind.
fn custom_name(row: &Resource, kind: &str) -> String {
    let mut parts: Vec<&str> = row.group.split('.').rev().collect();
    parts.extend([row.version.as_ref(), kind]);
    parts.join(".")
}

/// A reference to a row's own kind or its list, if that is not a built-in type.
pub fn custom_reference(row: &Resource, kind: &Gvk) -> Option<Value> {
    let own = kind.group == row.group && [&row.kind, &row.list_kind].contains(&&kind.kind);
    (own && row.published.is_some())
        .then(|| json!({"$ref": format!("{REFERENCE}{}", custom_name(row, &kind.kind))}))
}

/// Adds the types of a custom row: the kind as its definition has it, and its list.
pub fn add(row: &Resource, form: Form, said: &Descriptions, schemas: &mut Map<String, Value>) {
    let Some(Ok(published)) = row.published.as_deref().map(serde_json::from_str) else { return };
    let members = Members::new(said);
    let fields: Vec<Value> = row.selectable.iter().map(|(path, _)| json!({"fieldPath": path})).collect();
    let typed = |mut schema: Value, kind: &str| {
        schema["x-kubernetes-group-version-kind"] =
            json!([{"group": row.group, "version": row.version, "kind": kind}]);
        if form == Form::V3 && !fields.is_empty() {
            schema["x-kubernetes-selectable-fields"] = json!(fields);
        }
        schema
    };
    let item = json!({"$ref": format!("{REFERENCE}{}", custom_name(row, &row.kind))});
    let list = json!({
        "type": "object",
        "description": format!("{} is a list of {}", row.list_kind, row.kind),
        "required": ["items"],
        "properties": {
            "apiVersion": members.api_version,
            "kind": members.kind,
            "metadata": members.list_metadata,
            "items": {"type": "array", "items": item, "description": format!("The {} of the list.", row.plural)},
        },
    });
    let object = typed(members.object(&published, form), &row.kind);
    schemas.insert(custom_name(row, &row.kind), object);
    schemas.insert(custom_name(row, &row.list_kind), typed(list, &row.list_kind));
}

/// What every object has, whatever its definition says of it.
struct Members {
    api_version: Value,
    kind: Value,
    metadata: Value,
    list_metadata: Value,
}

impl Members {
    fn new(said: &Descriptions) -> Self {
        let text = |field| described(json!({"type": "string"}), said.of_field(OBJECT, field));
        let refers = |name| json!({"allOf": [reference(name)]});
        let list_metadata = said.of_field("io.k8s.api.core.v1.ComponentStatus", "metadata");
        Self {
            api_version: text("apiVersion"),
            kind: text("kind"),
            metadata: described(refers("meta.v1.ObjectMeta"), said.of_field(OBJECT, "metadata")),
            list_metadata: described(refers("meta.v1.ListMeta"), list_metadata),
        }
    }

    /// The schema of a kind's objects.
    fn object(&self, published: &Value, form: Form) -> Value {
        // Clients of version 2 would refuse all fields beside those that are named.
        if form == Form::V2 && published[PRESERVE] == true {
            return json!({"type": "object"});
        }
        let mut object = published.clone();
        match form {
            Form::V2 => lower(&mut object),
            Form::V3 => unfold(&mut object),
        }
        self.join(&mut object);
        each_inner(&mut object, &mut |inner| self.embed(inner, form));
        object
    }

    fn join(&self, schema: &mut Value) {
        if !schema["properties"].is_object() {
            schema["properties"] = json!({});
        }
        let properties = &mut schema["properties"];
        properties["apiVersion"] = self.api_version.clone();
        properties["kind"] = self.kind.clone();
        properties["metadata"] = self.metadata.clone();
    }

    /// Objects inside of the object have the same.
    fn embed(&self, schema: &mut Value, form: Form) {
        each_inner(schema, &mut |inner| self.embed(inner, form));
        if schema[EMBEDDED] != true || (form == Form::V2 && schema[PRESERVE] == true) {
            return;
        }
        self.join(schema);
        let mut required = schema["required"].as_array().cloned().unwrap_or_default();
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|known| known == name) {
                required.push(name.into());
            }
        }
        schema["required"] = required.into();
    }
}

/// Calls `visit` for the schemas of members and items.
fn each_inner(schema: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    let Some(members) = schema.as_object_mut() else { return };
    if let Some(Value::Object(properties)) = members.get_mut("properties") {
        properties.values_mut().for_each(&mut *visit);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = members.get_mut(key).filter(|inner| inner.is_object()) {
            visit(inner);
        }
    }
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

/// What a number or a text may be is said in words of JSON schemas, too. Rule: `Structural.Unfold`.
fn unfold(schema: &mut Value) {
    each_inner(schema, &mut unfold);
    if !flag(schema, INT_OR_STRING) {
        return;
    }
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let first = schema.pointer("/allOf/0/anyOf");
    if schema.get("anyOf") == Some(&either) || first == Some(&either) {
        return;
    }
    if schema.get("anyOf").is_none() {
        schema["anyOf"] = either;
        return;
    }
    let mut all = vec![json!({"anyOf": either})];
    all.extend(schema["allOf"].as_array().into_iter().flatten().cloned());
    schema["allOf"] = all.into();
}

/// Takes from a schema what version 2 does not know, and what its clients misunderstand. Rule: `ToStructuralOpenAPIV2`.
fn lower(schema: &mut Value) {
    let (nullable, open) = (flag(schema, "nullable"), flag(schema, PRESERVE));
    let Some(members) = schema.as_object_mut() else { return };
    for key in ["allOf", "oneOf", "anyOf", "not", "nullable"] {
        members.remove(key);
    }
    if nullable {
        members.remove("type");
    }
    if nullable || open {
        members.remove("items");
        members.remove("properties");
    }
    let kind = members.get("type").and_then(Value::as_str);
    if (kind == Some("array") && !members.contains_key("items")) || (kind == Some("object") && open) {
        members.remove("type");
    }
    // Where a null may stand, nothing can be asked for.
    let properties = members.get("properties").and_then(Value::as_object);
    let nulls: Vec<String> = properties
        .into_iter()
        .flatten()
        .filter(|(_, inner)| flag(inner, "nullable"))
        .map(|(name, _)| name.clone())
        .collect();
    if let Some(Value::Array(required)) = members.get_mut("required") {
        required.retain(|name| !nulls.iter().any(|null| name == null));
    }
    let any = members.get("additionalProperties").is_some_and(|inner| flag(inner, "nullable"));
    if any || members.get("required").and_then(Value::as_array).is_some_and(Vec::is_empty) {
        members.remove("required");
    }
    each_inner(schema, &mut lower);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(published: &Value, form: Form) -> Value {
        Members::new(&Descriptions::default()).object(published, form)
    }

    #[test]
    fn kinds_that_take_anything_say_nothing_in_version_2() {
        let schema = json!({"type": "object", PRESERVE: true, "description": "d", "properties": {"a": {"type": "string"}}});
        assert_eq!(object(&schema, Form::V2), json!({"type": "object"}));
        assert_eq!(object(&schema, Form::V3)["properties"]["a"], json!({"type": "string"}));
    }

    #[test]
    fn schemas_lose_what_version_2_does_not_know() {
        let mut schema = json!({"type": "object", "required": ["a", "b"], "properties": {
            "a": {"type": "string", "nullable": true},
            "b": {INT_OR_STRING: true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
            "c": {"type": "object", PRESERVE: true, "properties": {"x": {"type": "string"}}},
            "d": {"type": "array", "nullable": true, "items": {"type": "string"}},
            "e": {"type": "array", PRESERVE: true, "items": {"type": "string"}},
            "f": {"type": "object", "required": ["x"], "additionalProperties": {"type": "object", "nullable": true,
                "additionalProperties": {"type": "string"}}},
        }, "oneOf": [{"required": ["a"]}]});
        lower(&mut schema);
        assert_eq!(
            schema,
            json!({"type": "object", "required": ["b"], "properties": {
                "a": {},
                "b": {INT_OR_STRING: true},
                "c": {PRESERVE: true},
                "d": {},
                "e": {PRESERVE: true},
                "f": {"type": "object", "additionalProperties": {"additionalProperties": {"type": "string"}}},
            }})
        );
    }

    #[test]
    fn objects_inside_have_what_objects_have() {
        let schema = json!({"type": "object", "properties": {
            "closed": {"type": "object", EMBEDDED: true, "required": ["kind"]},
            "open": {"type": "object", EMBEDDED: true, PRESERVE: true},
        }});
        let v2 = object(&schema, Form::V2);
        assert_eq!(
            v2["properties"]["open"],
            json!({EMBEDDED: true, PRESERVE: true}),
            "a null is no fault in it"
        );
        let closed = &v2["properties"]["closed"];
        assert_eq!(closed["required"], json!(["kind", "apiVersion"]));
        assert_eq!(closed["properties"]["metadata"]["allOf"][0], reference("meta.v1.ObjectMeta"));
        assert!(object(&schema, Form::V3)["properties"]["open"]["properties"]["metadata"].is_object());
    }

    #[test]
    fn numbers_and_texts_are_unfolded() {
        let mut schema = json!({"properties": {"a": {INT_OR_STRING: true}, "b": {INT_OR_STRING: true, "anyOf": [{"pattern": "x"}]}}});
        unfold(&mut schema);
        let either = json!([{"type": "integer"}, {"type": "string"}]);
        assert_eq!(schema["properties"]["a"]["anyOf"], either);
        assert_eq!(schema["properties"]["b"]["allOf"], json!([{"anyOf": either}]));
    }
}
