//! JSON objects to `application/vnd.kubernetes.protobuf`, over the same schema table that decoding reads.

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::MAGIC;
use crate::meta::{Gvk, ObjectExt};
use crate::schema::{self, Kind, Schema};

/// Encodes an object of a built-in kind: the magic, the envelope, the message. Returns `None` if its kind is not in the table.
pub fn encode(object: &Value) -> Option<Vec<u8>> {
    let schema = schema::builtin(&Gvk::of_object(object))?;
    let raw = message(schema, object);
    let (api_version, kind) = (object.str_at("/apiVersion")?, object.str_at("/kind")?);
    Some(envelope(api_version, kind, &raw))
}

/// An object's message alone, as lists and envelopes carry it.
pub fn message(schema: &Schema, object: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    if let Some(map) = object.as_object() {
        fields(schema, map, &mut out);
    }
    out
}

/// A message in the envelope that says its type (`runtime.Unknown`).
pub fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = envelope_head(api_version, kind, raw.len());
    out.extend_from_slice(raw);
    out
}

/// An envelope up to where a message of `length` bytes follows.
pub fn envelope_head(api_version: &str, kind: &str, length: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(length + api_version.len() + kind.len() + 24);
    out.extend_from_slice(MAGIC);
    delimited(1, &mut out, |out| {
        bytes(1, api_version.as_bytes(), out);
        bytes(2, kind.as_bytes(), out);
    });
    field_head(2, length, &mut out);
    out
}

/// One frame of a watch: a length of four bytes, then a `WatchEvent` that carries an enveloped object.
pub fn watch_frame(kind: &str, object: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(object.len() + 40);
    out.extend_from_slice(&[0; 4]);
    bytes(1, kind.as_bytes(), &mut out);
    delimited(2, &mut out, |out| bytes(1, object, out));
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

/// Tag and length of a field of bytes; the bytes follow.
pub fn field_head(number: u32, length: usize, out: &mut Vec<u8>) {
    varint(u64::from(number) << 3 | 2, out);
    varint(length as u64, out);
}

/// A field of bytes: text, or a message that is encoded already.
pub fn bytes(number: u32, content: &[u8], out: &mut Vec<u8>) {
    field_head(number, content.len(), out);
    out.extend_from_slice(content);
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn number_field(number: u32, value: u64, out: &mut Vec<u8>) {
    varint(u64::from(number) << 3, out);
    varint(value, out);
}

/// A field whose length is known when `write` is done. Most lengths fit the one byte that is kept free for them.
fn delimited(number: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    varint(u64::from(number) << 3 | 2, out);
    let at = out.len();
    out.push(0);
    write(out);
    let length = out.len() - at - 1;
    if length < 0x80 {
        out[at] = length as u8;
        return;
    }
    let mut prefix = Vec::with_capacity(5);
    varint(length as u64, &mut prefix);
    out.splice(at..=at, prefix);
}

fn fields(schema: &Schema, map: &Map<String, Value>, out: &mut Vec<u8>) {
    for (number, kind) in &schema.nested {
        if let Some(inner) = kind.schema() {
            delimited(*number, out, |out| fields(inner, map, out));
        }
    }
    for (name, value) in map {
        let Some(field) = schema.field(name).filter(|field| field.number > 0) else { continue };
        match (&field.kind, value) {
            (_, Value::Null) => {}
            (Kind::List(item), Value::Array(items)) => {
                for value in items {
                    single(field.number, item, value, out);
                }
            }
            (Kind::Map(item), Value::Object(entries)) => {
                for (key, value) in entries {
                    delimited(field.number, out, |out| entry(item, key, value, out));
                }
            }
            (kind, value) => single(field.number, kind, value, out),
        }
    }
}

/// A map's entry: key 1, value 2. A value that is a list travels as a message with the items in field 1.
fn entry(item: &Kind, key: &str, value: &Value, out: &mut Vec<u8>) {
    bytes(1, key.as_bytes(), out);
    match (item, value) {
        (Kind::List(inner), Value::Array(items)) => delimited(2, out, |out| {
            for value in items {
                single(1, inner, value, out);
            }
        }),
        _ => single(2, item, value, out),
    }
}

/// A value that is not a list or map. One of another JSON type than its kind's is written as the kind's zero.
fn single(number: u32, kind: &Kind, value: &Value, out: &mut Vec<u8>) {
    let text = || value.as_str().unwrap_or_default();
    match kind {
        Kind::String => bytes(number, text().as_bytes(), out),
        Kind::Bool => number_field(number, u64::from(value.as_bool().unwrap_or(false)), out),
        Kind::Int32 | Kind::Int64 => number_field(number, integer(value).cast_unsigned(), out),
        Kind::Double => {
            varint(u64::from(number) << 3 | 1, out);
            out.extend_from_slice(&value.as_f64().unwrap_or(0.0).to_le_bytes());
        }
        Kind::Bytes => {
            let decoded = base64::engine::general_purpose::STANDARD.decode(text()).unwrap_or_default();
            bytes(number, &decoded, out);
        }
        Kind::IntOrString => delimited(number, out, |out| match value.as_str() {
            Some(text) => {
                number_field(1, 1, out);
                number_field(2, 0, out);
                bytes(3, text.as_bytes(), out);
            }
            None => {
                number_field(1, 0, out);
                number_field(2, integer(value).cast_unsigned(), out);
                bytes(3, b"", out);
            }
        }),
        Kind::Quantity => delimited(number, out, |out| match value {
            Value::String(text) => bytes(1, text.as_bytes(), out),
            other => bytes(1, other.to_string().as_bytes(), out),
        }),
        Kind::Time | Kind::MicroTime => delimited(number, out, |out| time(text(), out)),
        Kind::Fields | Kind::Raw | Kind::Json => {
            delimited(number, out, |out| bytes(1, value.to_string().as_bytes(), out));
        }
        Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings => {
            delimited(number, out, |out| schema_union(kind, value, out));
        }
        Kind::Object(_) => delimited(number, out, |out| {
            if let (Some(schema), Some(map)) = (kind.schema(), value.as_object()) {
                fields(schema, map, out);
            }
        }),
        Kind::List(_) | Kind::Map(_) => {}
    }
}

fn integer(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_f64().map(|number| number as i64)).unwrap_or(0)
}

/// Seconds and nanoseconds since 1970; no bytes at all is Go's zero time.
fn time(text: &str, out: &mut Vec<u8>) {
    let Ok(time) = text.parse::<Timestamp>() else { return };
    // Before 1970 the nanoseconds still count forward.
    let (mut seconds, mut nanos) = (time.as_second(), time.subsec_nanosecond());
    if nanos < 0 {
        (seconds, nanos) = (seconds - 1, nanos + 1_000_000_000);
    }
    number_field(1, seconds.cast_unsigned(), out);
    number_field(2, i64::from(nanos).cast_unsigned(), out);
}

/// A JSON schema in one field, or the alternative in the other.
fn schema_union(kind: &Kind, value: &Value, out: &mut Vec<u8>) {
    let props = schema::named("apiextensions.v1.JSONSchemaProps");
    let object = |number: u32, value: &Value, out: &mut Vec<u8>| {
        if let (Some(props), Some(map)) = (props, value.as_object()) {
            delimited(number, out, |out| fields(props, map, out));
        }
    };
    match (kind, value) {
        (Kind::SchemaOrBool, Value::Bool(allows)) => number_field(1, u64::from(*allows), out),
        (Kind::SchemaOrBool, value) => {
            number_field(1, 1, out);
            object(2, value, out);
        }
        (Kind::SchemaOrStrings, Value::Array(names)) => {
            for name in names {
                bytes(2, name.as_str().unwrap_or_default().as_bytes(), out);
            }
        }
        (_, Value::Array(items)) => items.iter().for_each(|item| object(2, item, out)),
        (_, value) => object(1, value, out),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::decode;
    use super::*;

    /// What is encoded is read back as the same object.
    fn check(object: Value) {
        let encoded = encode(&object).expect("a built-in kind");
        assert_eq!(decode(&encoded).expect("readable"), object);
    }

    #[test]
    fn objects_survive_the_round_trip() {
        check(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s", "labels": {"a": "b"}},
            "type": "Opaque", "data": {"k": "dg=="}}));
        check(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s",
            "creationTimestamp": "2026-01-02T03:04:05Z", "generation": 3}, "spec": {
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": "http"}, {"port": 81, "targetPort": 8080}],
            "selector": {"a": "b"}, "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10800}}},
            "status": {"loadBalancer": {}}}));
        check(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {
            "replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "strategy": {"rollingUpdate":
            {"maxSurge": "25%", "maxUnavailable": 1}, "type": "RollingUpdate"}, "template": {"metadata": {},
            "spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "100m"}},
            "livenessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 10}}],
            "volumes": [{"name": "v", "emptyDir": {}}, {"name": "w", "secret": {"secretName": "x",
            "defaultMode": 420}}]}}}, "status": {}}));
        check(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"renewTime": "2026-01-02T03:04:05.123456Z", "leaseDurationSeconds": -1}}));
    }

    #[test]
    fn long_messages_have_long_lengths() {
        let long = "x".repeat(20_000);
        check(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": long}}),
        );
    }

    #[test]
    fn schemas_and_errors_travel_too() {
        check(
            json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "message": "no",
            "reason": "NotFound", "code": 404, "details": {"name": "a", "kind": "pods", "causes":
            [{"reason": "x", "message": "y", "field": "z"}]}}),
        );
        check(
            json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata":
            {"name": "a.b"}, "spec": {"group": "b", "names": {"kind": "A", "plural": "as"}, "scope": "Cluster",
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
            {"type": "object", "properties": {"x": {"type": "array", "items": {"type": "string"}},
            "y": {"additionalProperties": {"type": "integer"}, "default": {"a": 1}, "type": "object"}}}}}]}}),
        );
    }

    #[test]
    fn an_unknown_kind_is_not_encoded() {
        assert_eq!(encode(&json!({"apiVersion": "x.io/v1", "kind": "Y"})), None);
    }

    #[test]
    fn a_watch_frame_says_its_length() {
        let frame = watch_frame("ADDED", b"abc");
        assert_eq!(frame, [b"\0\0\0\x0e\x0a\x05ADDED\x12\x05\x0a\x03abc".as_slice()].concat());
    }
}
