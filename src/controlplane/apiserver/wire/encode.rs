//! Encodes an object once, with a gap for its revision.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use api::meta::Str;
use storage::{Attrs, Payload, Ttl};

/// Encodes an object once, as every reader will get it: `kind`, `apiVersion` and `metadata` first, the revision left empty
/// for the storage engine to fill in.
pub fn payload(object: &Value, attrs: Attrs, ttl: Ttl) -> Payload {
    let mut data = Vec::with_capacity(1024);
    let mut revision_at = None;
    data.push(b'{');
    if let Some(object) = object.as_object() {
        for key in ["kind", "apiVersion"] {
            if let Some(value) = object.get(key) {
                member(&mut data, key, value);
            }
        }
        separate(&mut data);
        data.extend_from_slice(b"\"metadata\":{\"resourceVersion\":\"");
        revision_at = Some(data.len());
        data.push(b'"');
        for (key, value) in object.get("metadata").and_then(Value::as_object).into_iter().flatten() {
            if key != "resourceVersion" {
                member(&mut data, key, value);
            }
        }
        data.push(b'}');
        for (key, value) in object {
            if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
                member(&mut data, key, value);
            }
        }
    }
    data.push(b'}');
    Payload { data: Bytes::from(data), revision_at, attrs, ttl, turn: None }
}

fn separate(data: &mut Vec<u8>) {
    if data.last() != Some(&b'{') {
        data.push(b',');
    }
}

fn member(data: &mut Vec<u8>, key: &str, value: &Value) {
    separate(data);
    write(data, key);
    data.push(b':');
    write(data, value);
}

fn write<T: serde::Serialize + ?Sized>(data: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(data, value).expect("JSON values have string keys, and a Vec takes every write");
}

/// What filters may ask without parsing: labels as `l:<key>`, selectable fields as `f:<path>`.
pub fn attrs(metadata: Option<&Map<String, Value>>, fields: &[(Str, String)]) -> Attrs {
    let labels = metadata.and_then(|metadata| metadata.get("labels")).and_then(Value::as_object);
    let labels =
        labels.into_iter().flatten().filter_map(|(key, value)| Some((format!("l:{key}"), value.as_str()?)));
    let fields = fields.iter().map(|(path, value)| (format!("f:{path}"), value.as_str()));
    let mut attrs: Vec<(Box<str>, Box<str>)> =
        labels.chain(fields).map(|(key, value)| (key.into_boxed_str(), value.into())).collect();
    if attrs.is_empty() {
        return Arc::new([]);
    }
    attrs.sort();
    attrs.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(object: Value, expect: &str) {
        let payload = payload(&object, Arc::new([]), None);
        let (before, after) = payload.data.split_at(payload.revision_at.expect("a place"));
        let text = [before, b"7", after].concat();
        assert_eq!(String::from_utf8(text.clone()).expect("UTF-8"), expect);
        let back: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(back["metadata"]["resourceVersion"], "7");
    }

    #[test]
    fn the_revision_has_its_place() {
        check(
            json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "\"x"}, "metadata": {"name": "a", "resourceVersion": "3"}}),
            r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"7","name":"a"},"data":{"a":"\"x"}}"#,
        );
        check(json!({}), r#"{"metadata":{"resourceVersion":"7"}}"#);
    }

    #[test]
    fn attributes_are_sorted_by_name() {
        let metadata = json!({"labels": {"b": "2", "a": "1"}});
        let attrs = attrs(metadata.as_object(), &[("spec.nodeName".into(), "n".to_owned())]);
        let said: Vec<String> = attrs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(said, ["f:spec.nodeName=n", "l:a=1", "l:b=2"]);
    }
}
