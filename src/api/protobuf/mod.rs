//! `application/vnd.kubernetes.protobuf` to JSON objects and back, for every built-in type, over the schema table.

pub mod encode;
mod wire;

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::{Map, Value};

use self::wire::{Reader, Wire, WireError};
use super::meta::{Gvk, format_micro_time, format_time, split_api_version};
use super::quantity::Quantity;
use super::schema::{self, Kind, Schema};
use super::status::ApiError;

/// What protobuf bodies start with.
pub const MAGIC: &[u8] = b"k8s\0";
pub const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Messages in messages, at most. Each is at most two levels of the object, so this is what JSON bodies may have, too.
const MOST_NESTED: usize = 64;

/// What a body says it is: API version and kind, either of which may be empty. Nothing of the object is read: whoever
/// expects a kind compares it first. 400 if the body is none.
pub fn type_of(body: &[u8]) -> Result<(String, String), ApiError> {
    let envelope = Envelope::read(body).map_err(refuse)?;
    Ok((envelope.api_version, envelope.kind))
}

/// Decodes a body as the kind that its envelope names. 400 if that is unknown or the body cannot be read, 413 if it is
/// nested too deeply.
pub fn decode(body: &[u8]) -> Result<Value, ApiError> {
    decode_within(body, MOST_NESTED)
}

fn decode_within(body: &[u8], left: usize) -> Result<Value, ApiError> {
    let envelope = Envelope::read(body).map_err(refuse)?;
    let (group, version) = split_api_version(&envelope.api_version);
    let kind = Gvk::new(group.to_owned(), version.to_owned(), envelope.kind.clone());
    let Some(schema) = schema::builtin(&kind) else {
        let why = format!("no kind {:?} is registered for version {:?}", envelope.kind, envelope.api_version);
        return Err(ApiError::bad_request(why));
    };
    let mut object = message(schema, envelope.raw, left).map_err(refuse)?;
    object.insert("apiVersion".into(), envelope.api_version.into());
    object.insert("kind".into(), envelope.kind.into());
    Ok(Value::Object(object))
}

fn refuse(error: WireError) -> ApiError {
    if error == TOO_DEEP {
        return ApiError::too_large(error.0);
    }
    ApiError::bad_request(format!("unable to decode the protobuf body: {error}"))
}

const TOO_DEEP: WireError = WireError("the object is nested too deeply");

/// One level further in.
fn deeper(left: usize) -> Result<usize, WireError> {
    left.checked_sub(1).ok_or(TOO_DEEP)
}

/// `runtime.Unknown`.
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    fn read(body: &'a [u8]) -> Result<Self, WireError> {
        let body = body.strip_prefix(MAGIC).ok_or(WireError("the body does not start with k8s\\0"))?;
        let mut this = Self { api_version: String::new(), kind: String::new(), raw: &[] };
        let mut reader = Reader::new(body);
        while let Some((number, value)) = reader.next()? {
            match (number, value) {
                (1, Wire::Bytes(meta)) => {
                    let mut meta = Reader::new(meta);
                    while let Some((number, value)) = meta.next()? {
                        match number {
                            1 => this.api_version = value.text()?,
                            2 => this.kind = value.text()?,
                            _ => {}
                        }
                    }
                }
                (2, Wire::Bytes(raw)) => this.raw = raw,
                _ => {}
            }
        }
        Ok(this)
    }
}

/// One message as a map, with what Go's JSON encoder leaves out left out. At most `left` more may lie in each other.
fn message(schema: &Schema, bytes: &[u8], left: usize) -> Result<Map<String, Value>, WireError> {
    let left = deeper(left)?;
    let mut map = Map::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        if let Some((_, kind)) = schema.nested.iter().find(|(n, _)| *n == number) {
            if let Some(inner) = kind.schema() {
                map.extend(message(inner, wire.bytes()?, left)?);
            }
            continue;
        }
        let Some(field) = schema.fields.iter().find(|f| f.number == number) else { continue };
        match &field.kind {
            Kind::List(item) => {
                let list = map.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                let Value::Array(list) = list else { continue };
                match (&wire, item.as_ref()) {
                    (Wire::Bytes(packed), Kind::Int32 | Kind::Int64) => {
                        let mut packed = Reader::new(packed);
                        while let Some(number) = packed.bare_varint()? {
                            list.push(Value::from(number.cast_signed()));
                        }
                    }
                    _ => list.push(single(item, wire, left)?.unwrap_or_else(|| item.zero())),
                }
            }
            Kind::Map(item) => {
                let (key, value) = entry(item, wire.bytes()?, left)?;
                let slot = map.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                if let Value::Object(slot) = slot {
                    slot.insert(key, value);
                }
            }
            kind => {
                if let Some(value) = single(kind, wire, left)?.filter(|value| field.keeps(value)) {
                    map.insert(field.name.to_owned(), value);
                }
            }
        }
    }
    Ok(map)
}

/// A map's entry: key 1, value 2. A value that is a list travels as a message with the items in field 1.
fn entry(item: &Kind, bytes: &[u8], left: usize) -> Result<(String, Value), WireError> {
    let (mut key, mut value) = (String::new(), None);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        match (number, item) {
            (1, _) => key = wire.text()?,
            (2, Kind::List(inner)) => {
                let mut items = Vec::new();
                let mut reader = Reader::new(wire.bytes()?);
                while let Some((_, wire)) = reader.next()? {
                    items.push(single(inner, wire, left)?.unwrap_or_else(|| inner.zero()));
                }
                value = Some(Value::Array(items));
            }
            (2, _) => value = single(item, wire, left)?,
            _ => {}
        }
    }
    Ok((key, value.unwrap_or_else(|| item.zero())))
}

/// A value that is not a list or map; `None`: it stands for null.
fn single(kind: &Kind, wire: Wire<'_>, left: usize) -> Result<Option<Value>, WireError> {
    Ok(Some(match kind {
        Kind::String => wire.text()?.into(),
        Kind::Bool => (wire.varint()? != 0).into(),
        Kind::Int32 | Kind::Int64 => wire.varint()?.cast_signed().into(),
        Kind::Double => wire.double()?.into(),
        Kind::Bytes => base64::engine::general_purpose::STANDARD.encode(wire.bytes()?).into(),
        Kind::IntOrString => int_or_string(wire.bytes()?)?,
        Kind::Quantity => quantity(wire.bytes()?)?,
        Kind::Time => return Ok(time(wire.bytes()?)?.map(|t| format_time(t).into())),
        Kind::MicroTime => return Ok(time(wire.bytes()?)?.map(|t| format_micro_time(t).into())),
        Kind::Fields | Kind::Raw | Kind::Json => return raw(wire.bytes()?, left),
        Kind::SchemaOrArray | Kind::SchemaOrBool | Kind::SchemaOrStrings => {
            return schema_union(kind, wire.bytes()?, left);
        }
        Kind::Object(_) => match kind.schema() {
            Some(schema) => Value::Object(message(schema, wire.bytes()?, left)?),
            None => return Ok(None),
        },
        Kind::List(_) | Kind::Map(_) => return Err(WireError("a list in a list")),
    }))
}

fn int_or_string(bytes: &[u8]) -> Result<Value, WireError> {
    let (mut is_text, mut number, mut text) = (false, 0, String::new());
    let mut reader = Reader::new(bytes);
    while let Some((field, wire)) = reader.next()? {
        match field {
            1 => is_text = wire.varint()? == 1,
            2 => number = wire.varint()?.cast_signed(),
            3 => text = wire.text()?,
            _ => {}
        }
    }
    Ok(if is_text { text.into() } else { number.into() })
}

fn quantity(bytes: &[u8]) -> Result<Value, WireError> {
    let mut text = String::from("0");
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        if number == 1 {
            text = wire.text()?;
        }
    }
    let quantity = Quantity::parse(&text).map_err(|_| WireError("a quantity that cannot be read"))?;
    Ok(quantity.to_string().into())
}

/// Seconds and nanoseconds since 1970; no bytes at all is Go's zero time.
fn time(bytes: &[u8]) -> Result<Option<Timestamp>, WireError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        match number {
            1 => seconds = wire.varint()?.cast_signed(),
            2 => nanos = i32::try_from(wire.varint()?.cast_signed()).unwrap_or(0),
            _ => {}
        }
    }
    Timestamp::new(seconds, nanos).map(Some).map_err(|_| WireError("a time out of range"))
}

/// JSON (or a whole protobuf object) in field 1.
fn raw(bytes: &[u8], left: usize) -> Result<Option<Value>, WireError> {
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        if number != 1 {
            continue;
        }
        let raw = wire.bytes()?;
        if raw.starts_with(MAGIC) {
            let object = decode_within(raw, deeper(left)?);
            return object.map(Some).map_err(|_| WireError("an embedded object that cannot be read"));
        }
        let value =
            serde_json::from_slice(raw).map_err(|_| WireError("embedded JSON that cannot be read"))?;
        return Ok(Some(value));
    }
    Ok(None)
}

/// A JSON schema in one field, or the alternative in the other.
fn schema_union(kind: &Kind, bytes: &[u8], left: usize) -> Result<Option<Value>, WireError> {
    let props = schema::named("apiextensions.v1.JSONSchemaProps");
    let object = |wire: &Wire<'_>| match props {
        Some(props) => Ok(Value::Object(message(props, wire.bytes()?, left)?)),
        None => Err(WireError("no type for JSON schemas")),
    };
    let (mut one, mut items, mut allows) = (None, Vec::new(), None);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.next()? {
        match (kind, number) {
            (Kind::SchemaOrArray | Kind::SchemaOrStrings, 1) | (Kind::SchemaOrBool, 2) => {
                one = Some(object(&wire)?);
            }
            (Kind::SchemaOrArray, 2) => items.push(object(&wire)?),
            (Kind::SchemaOrStrings, 2) => items.push(wire.text()?.into()),
            (Kind::SchemaOrBool, 1) => allows = Some(Value::Bool(wire.varint()? != 0)),
            _ => {}
        }
    }
    let list = (!items.is_empty()).then_some(Value::Array(items));
    Ok(one.or(list).or(allows))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Bytes of `field number: bytes`, for short contents.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let length = u8::try_from(content.len()).unwrap();
        [&[number << 3 | 2, length][..], content].concat()
    }

    fn body(api_version: &str, kind: &str, object: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &meta), &field(2, object), &field(3, b""), &field(4, b"")].concat()
    }

    #[test]
    fn a_secret_with_a_map_of_bytes() {
        // metadata {name: "s", generateName: "", creationTimestamp: {}}, data {"k": "v"}, type "Opaque".
        let meta = [field(1, b"s"), field(2, b""), field(8, b"")].concat();
        let entry = [field(1, b"k"), field(2, b"v")].concat();
        let object = [field(1, &meta), field(2, &entry), field(3, b"Opaque")].concat();
        assert_eq!(
            decode(&body("v1", "Secret", &object)).unwrap(),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "Opaque",
                "data": {"k": "dg=="}})
        );
    }

    #[test]
    fn pointers_keep_their_zero_and_inlined_structs_are_flat() {
        // spec: replicas 0 (pointer), minReadySeconds 0; template spec volume "v" with emptyDir {}.
        let volume = [field(1, b"v"), field(2, &field(2, b""))].concat();
        let template = field(2, &field(1, &volume));
        let spec = [vec![1 << 3, 0], field(3, &template), vec![5 << 3, 0]].concat();
        let object = field(2, &spec);
        assert_eq!(
            decode(&body("apps/v1", "Deployment", &object)).unwrap(),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 0,
                "template": {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}}})
        );
    }

    #[test]
    fn broken_bodies_are_refused() {
        assert!(decode(b"{}").is_err());
        assert!(decode(b"k8s\0\x0a\xff").is_err());
        assert!(decode(&body("v1", "Nonsense", b"")).is_err());
    }

    /// Bytes of `field number: bytes`, of any length.
    fn long_field(number: u8, content: &[u8]) -> Vec<u8> {
        let (mut head, mut length) = (vec![number << 3 | 2], content.len());
        while length >= 0x80 {
            head.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        head.push(length as u8);
        [&head[..], content].concat()
    }

    #[test]
    fn nesting_ends() {
        // A CustomResourceDefinition's schema: versions[0].schema.openAPIV3Schema.not.not.not...
        let props = schema::named("apiextensions.v1.JSONSchemaProps").unwrap();
        let not = props.fields.iter().find(|field| field.name == "not").unwrap().number;
        assert_eq!(not, 28);
        // Field 28 needs a tag of two bytes.
        let nest = |levels: usize| {
            let mut schema: Vec<u8> = Vec::new();
            for _ in 0..levels {
                let framed = long_field(1, &schema);
                schema = [&[(28 << 3 | 2) as u8 & 0x7f | 0x80, 1][..], &framed[1..]].concat();
            }
            schema
        };
        assert!(message(props, &nest(20), MOST_NESTED).is_ok());
        assert_eq!(message(props, &nest(200), MOST_NESTED), Err(TOO_DEEP));
        assert_eq!(message(props, &nest(20_000), MOST_NESTED), Err(TOO_DEEP));
        // Objects in objects, each a whole body in a RawExtension (a List's items).
        let mut body_of = body("v1", "List", b"");
        for _ in 0..200 {
            let meta = [field(1, b"v1"), field(2, b"List")].concat();
            let item = long_field(1, &body_of);
            body_of = [MAGIC, &field(1, &meta), &long_field(2, &long_field(2, &item))].concat();
        }
        assert!(decode(&body_of).is_err());
    }
}
