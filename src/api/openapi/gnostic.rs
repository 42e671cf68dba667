//! The protobuf form of OpenAPI version 2, which older kubectl asks for
//! (`application/com.github.proto-openapi.spec.v2@v1.0+protobuf`). Field numbers are those of `openapiv2.proto`.

use serde_json::{Map, Value};

/// Encodes a version 2 document.
pub fn encode(document: &Value) -> Vec<u8> {
    let mut out = Message::default();
    out.text(1, &document["swagger"]);
    let mut info = Message::default();
    info.text(1, &document["info"]["title"]);
    info.text(2, &document["info"]["version"]);
    out.message(2, info);
    let mut paths = Message::default();
    for (name, item) in members(&document["paths"]) {
        paths.named(2, name, path_item(item));
    }
    out.message(8, paths);
    let mut definitions = Message::default();
    for (name, definition) in members(&document["definitions"]) {
        definitions.named(1, name, schema(definition));
    }
    out.message(9, definitions);
    out.bytes
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// A message while it is written.
#[derive(Default)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push((number as u8 & 0x7f) | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    fn raw(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, message: Self) {
        self.raw(field, &message.bytes);
    }

    fn named(&mut self, field: u64, name: &str, value: Self) {
        let mut entry = Self::default();
        entry.raw(1, name.as_bytes());
        entry.message(2, value);
        self.message(field, entry);
    }

    fn text(&mut self, field: u64, value: &Value) {
        if let Some(text) = value.as_str().filter(|text| !text.is_empty()) {
            self.raw(field, text.as_bytes());
        }
    }

    fn texts(&mut self, field: u64, value: &Value) {
        for text in value.as_array().into_iter().flatten().filter_map(Value::as_str) {
            self.raw(field, text.as_bytes());
        }
    }

    fn flag(&mut self, field: u64, value: &Value) {
        if value.as_bool() == Some(true) {
            self.varint(field << 3);
            self.varint(1);
        }
    }

    fn count(&mut self, field: u64, value: &Value) {
        if let Some(number) = value.as_u64().filter(|number| *number > 0) {
            self.varint(field << 3);
            self.varint(number);
        }
    }

    fn double(&mut self, field: u64, value: &Value) {
        if let Some(number) = value.as_f64().filter(|number| *number != 0.0) {
            self.varint(field << 3 | 1);
            self.bytes.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// Any value, as YAML; JSON is YAML.
    fn any(&mut self, field: u64, value: &Value) {
        let mut any = Self::default();
        any.raw(2, value.to_string().as_bytes());
        self.message(field, any);
    }

    /// All members that are extensions.
    fn extensions(&mut self, field: u64, value: &Value) {
        for (name, value) in members(value).filter(|(name, _)| name.starts_with("x-")) {
            let mut any = Self::default();
            any.raw(2, value.to_string().as_bytes());
            self.named(field, name, any);
        }
    }
}

fn path_item(item: &Value) -> Message {
    let mut out = Message::default();
    for (name, field) in [("get", 2), ("put", 3), ("post", 4), ("delete", 5), ("patch", 8)] {
        if let Some(found) = item.get(name) {
            out.message(field, operation(found));
        }
    }
    parameters(&mut out, 9, &item["parameters"]);
    out
}

fn operation(operation: &Value) -> Message {
    let mut out = Message::default();
    out.texts(6, &operation["produces"]);
    out.texts(7, &operation["consumes"]);
    parameters(&mut out, 8, &operation["parameters"]);
    let mut responses = Message::default();
    for (code, found) in members(&operation["responses"]) {
        let mut response = Message::default();
        response.text(1, &found["description"]);
        if let Some(of) = found.get("schema") {
            let mut item = Message::default();
            item.message(1, schema(of));
            response.message(2, item);
        }
        let mut value = Message::default();
        value.message(1, response);
        responses.named(1, code, value);
    }
    out.message(9, responses);
    out.extensions(13, operation);
    out
}

fn parameters(out: &mut Message, field: u64, list: &Value) {
    for parameter in list.as_array().into_iter().flatten() {
        let mut item = Message::default();
        item.message(1, self::parameter(parameter));
        out.message(field, item);
    }
}

fn parameter(parameter: &Value) -> Message {
    let mut inner = Message::default();
    let mut out = Message::default();
    if parameter["in"] == "body" {
        inner.text(2, &parameter["name"]);
        inner.text(3, &parameter["in"]);
        inner.flag(4, &parameter["required"]);
        inner.message(5, schema(&parameter["schema"]));
        out.message(1, inner);
        return out;
    }
    let in_path = parameter["in"] == "path";
    inner.flag(1, &parameter["required"]);
    inner.text(2, &parameter["in"]);
    inner.text(4, &parameter["name"]);
    inner.text(if in_path { 5 } else { 6 }, &parameter["type"]);
    inner.flag(if in_path { 19 } else { 20 }, &parameter["uniqueItems"]);
    let mut bare = Message::default();
    bare.message(if in_path { 4 } else { 3 }, inner);
    out.message(2, bare);
    out
}

fn schema(schema: &Value) -> Message {
    let mut out = Message::default();
    out.text(1, &schema["$ref"]);
    out.text(2, &schema["format"]);
    out.text(3, &schema["title"]);
    out.text(4, &schema["description"]);
    if let Some(default) = schema.get("default") {
        out.any(5, default);
    }
    out.double(6, &schema["multipleOf"]);
    out.double(7, &schema["maximum"]);
    out.flag(8, &schema["exclusiveMaximum"]);
    out.double(9, &schema["minimum"]);
    out.flag(10, &schema["exclusiveMinimum"]);
    out.count(11, &schema["maxLength"]);
    out.count(12, &schema["minLength"]);
    out.text(13, &schema["pattern"]);
    out.count(14, &schema["maxItems"]);
    out.count(15, &schema["minItems"]);
    out.flag(16, &schema["uniqueItems"]);
    out.count(17, &schema["maxProperties"]);
    out.count(18, &schema["minProperties"]);
    out.texts(19, &schema["required"]);
    for choice in schema["enum"].as_array().into_iter().flatten() {
        out.any(20, choice);
    }
    structure(&mut out, schema);
    out.extensions(31, schema);
    out
}

fn structure(out: &mut Message, of: &Value) {
    match of.get("additionalProperties") {
        Some(inner @ Value::Object(_)) => {
            let mut item = Message::default();
            item.message(1, schema(inner));
            out.message(21, item);
        }
        Some(Value::Bool(allowed)) => {
            let mut item = Message::default();
            item.varint(2 << 3);
            item.varint(u64::from(*allowed));
            out.message(21, item);
        }
        _ => {}
    }
    if of["type"].is_string() {
        let mut kind = Message::default();
        kind.text(1, &of["type"]);
        out.message(22, kind);
    }
    if let Some(items) = of.get("items") {
        let mut item = Message::default();
        item.message(1, schema(items));
        out.message(23, item);
    }
    if let Some(properties) =
        of.get("properties").and_then(Value::as_object).filter(|map: &&Map<_, _>| !map.is_empty())
    {
        let mut named = Message::default();
        for (name, property) in properties {
            named.named(1, name, schema(property));
        }
        out.message(25, named);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_in_its_bytes() {
        let bytes = schema(&json!({"type": "array", "items": {"$ref": "#/x"}, "x-a": true})).bytes;
        let expect = [
            &[0xb2, 1, 7, 10, 5][..],
            b"array",
            &[0xba, 1, 7, 10, 5, 10, 3],
            b"#/x",
            &[0xfa, 1, 13, 10, 3],
            b"x-a",
            &[18, 6, 18, 4],
            b"true",
        ];
        assert_eq!(bytes, expect.concat());
    }
}
