//! Types of the schema table as OpenAPI schemas.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::schema::{Descriptions, Field, Kind, ListType, Schema, named};

pub const REFERENCE: &str = "#/components/schemas/";
/// Short prefixes of the schema table, and the packages they stand for.
const PACKAGES: [(&str, &str); 3] = [
    ("apiextensions.", "io.k8s.apiextensions-apiserver.pkg.apis."),
    ("apiregistration.", "io.k8s.kube-aggregator.pkg.apis."),
    ("meta.", "io.k8s.apimachinery.pkg.apis."),
];
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// The name under which clients know a type.
pub fn public_name(name: &str) -> String {
    let package = PACKAGES.iter().find(|(short, _)| name.starts_with(short));
    format!("{}{name}", package.map_or("io.k8s.api.", |(_, package)| package))
}

pub fn reference(name: &str) -> Value {
    json!({"$ref": format!("{REFERENCE}{}", public_name(name))})
}

/// The schemas of these types and of all they contain.
pub fn reachable(names: impl IntoIterator<Item = &'static str>, said: &Descriptions) -> Map<String, Value> {
    let mut schemas = Map::new();
    let mut queue: Vec<&'static str> = names.into_iter().collect();
    let mut seen: BTreeSet<&str> = queue.iter().copied().collect();
    let mut special = BTreeSet::new();
    while let Some(name) = queue.pop() {
        let Some(schema) = named(name) else { continue };
        schemas.insert(public_name(name), object(schema, said, &mut special));
        let inner = schema.fields.iter().filter_map(|field| field.kind.schema());
        queue.extend(inner.map(|inner| inner.name).filter(|name| seen.insert(name)));
    }
    schemas.extend(special.into_iter().filter_map(|name| {
        let schema = described(special_type(name)?, said.of_type(name));
        Some((name.to_owned(), schema))
    }));
    schemas
}

/// A schema with a description, if there is one.
pub fn described(mut schema: Value, said: Option<&str>) -> Value {
    if let Some(said) = said {
        schema["description"] = said.into();
    }
    schema
}

fn object(schema: &Schema, said: &Descriptions, special: &mut BTreeSet<&'static str>) -> Value {
    let name = public_name(schema.name);
    let properties = schema.fields.iter().map(|field| {
        (field.name.to_owned(), described(property(field, special), said.of_field(&name, field.name)))
    });
    let properties: Map<String, Value> = properties.collect();
    let required: Vec<&str> =
        schema.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let mut object = described(json!({"type": "object", "properties": properties}), said.of_type(&name));
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    if !schema.kinds.is_empty() {
        let kinds: Vec<Value> = schema.kinds.iter().map(super::paths::kind).collect();
        object["x-kubernetes-group-version-kind"] = Value::Array(kinds);
    }
    object
}

fn property(field: &Field, special: &mut BTreeSet<&'static str>) -> Value {
    let mut property = value(&field.kind, special);
    let list_type = match field.list_type {
        ListType::Unsaid => None,
        ListType::Atomic => Some("atomic"),
        ListType::Set => Some("set"),
        ListType::Map => Some("map"),
    };
    if let Some(list_type) = list_type {
        let word = if matches!(field.kind, Kind::List(_)) {
            "x-kubernetes-list-type"
        } else {
            "x-kubernetes-map-type"
        };
        property[word] = list_type.into();
    }
    if !field.keys.is_empty() {
        property["x-kubernetes-list-map-keys"] = json!(field.keys);
    }
    if !field.patch_strategies.is_empty() {
        property["x-kubernetes-patch-strategy"] = field.patch_strategies.join(",").into();
    }
    if let Some(key) = field.merge_key {
        property["x-kubernetes-patch-merge-key"] = key.into();
    }
    property
}

fn value(kind: &Kind, special: &mut BTreeSet<&'static str>) -> Value {
    let mut known = |name: &'static str| {
        special.insert(name);
        json!({"allOf": [{"$ref": format!("{REFERENCE}{name}")}]})
    };
    match kind {
        Kind::String => json!({"type": "string"}),
        Kind::Bool => json!({"type": "boolean"}),
        Kind::Int32 => json!({"type": "integer", "format": "int32"}),
        Kind::Int64 => json!({"type": "integer", "format": "int64"}),
        Kind::Double => json!({"type": "number", "format": "double"}),
        Kind::Bytes => json!({"type": "string", "format": "byte"}),
        Kind::IntOrString => known("io.k8s.apimachinery.pkg.util.intstr.IntOrString"),
        Kind::Quantity => known("io.k8s.apimachinery.pkg.api.resource.Quantity"),
        Kind::Time => known("io.k8s.apimachinery.pkg.apis.meta.v1.Time"),
        Kind::MicroTime => known("io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"),
        Kind::Fields => known("io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1"),
        Kind::Raw => known("io.k8s.apimachinery.pkg.runtime.RawExtension"),
        Kind::Json | Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings => {
            json!({"x-kubernetes-preserve-unknown-fields": true})
        }
        Kind::Object(_) => json!({"allOf": [reference(kind.schema().map_or("", |schema| schema.name))]}),
        Kind::List(item) => json!({"type": "array", "items": value(item, special)}),
        Kind::Map(item) => json!({"type": "object", "additionalProperties": value(item, special)}),
    }
}

/// Types that travel in a form of their own.
fn special_type(name: &str) -> Option<Value> {
    Some(match name.strip_prefix(META) {
        Some("Time" | "MicroTime") => json!({"type": "string", "format": "date-time"}),
        Some("FieldsV1") => json!({"type": "object"}),
        Some(_) => return None,
        None if name.ends_with("IntOrString") => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        None if name.ends_with("Quantity") => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
        None => json!({"type": "object"}),
    })
}
