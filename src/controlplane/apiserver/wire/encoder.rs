//! Renders objects, entries, lists, watch frames and Statuses in a media type.

use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use api::protobuf::encode as protobuf;
use api::resources::Resource;
use api::schema::{self, Schema};
use api::status::ApiError;
use api::table::{self, IncludeObject};
use rt::Clock;
use storage::Entry;

use super::super::convert;
use super::joined::{Join, Joined, joined_length};
use super::{Format, MediaType, Shape};

const META: &str = "meta.k8s.io/v1";
const OLDER_META: &str = "meta.k8s.io/v1beta1";
const PARTIAL: &str = "PartialObjectMetadata";
const PARTIAL_LIST: &str = "PartialObjectMetadataList";
/// What a frame of a watch takes around its object, at most.
pub const FRAME: usize = 40;

/// Encodes a document that is no view of a resource: a Status, a Scale.
pub fn document(format: Format, value: &Value) -> Result<Bytes, ApiError> {
    match format {
        Format::Json => Ok(value.to_string().into()),
        Format::Yaml => serde_yaml::to_string(value).map(Bytes::from).map_err(ApiError::internal),
        Format::Protobuf => protobuf::encode(value)
            .map(Bytes::from)
            .ok_or_else(|| ApiError::internal(format!("{} has no protobuf message", value["kind"]))),
    }
}

/// Renders a resource's objects, stored states, lists and watch frames in one media type. Nothing else knows how a media
/// type is written.
#[derive(Clone)]
pub struct Encoder {
    pub media: MediaType,
    pub resource: Arc<Resource>,
    /// How much of its object a table's row carries.
    pub include: IncludeObject,
    pub clock: Arc<dyn Clock>,
}

impl Encoder {
    pub fn content_type(&self) -> &'static str {
        self.media.format.content_type()
    }

    /// Where readers of this shape share the protobuf message of a state; `None`: each reader has their own.
    fn slot(&self) -> Option<usize> {
        let slot = match self.media.shape {
            Shape::Plain => 0,
            Shape::Partial => 1,
            Shape::Table => return None,
        };
        (!convert::converts(&self.resource)).then_some(slot)
    }

    /// The bytes of a stored state, if they are what is asked for.
    pub fn as_stored<'e>(&self, entry: &'e Entry) -> Option<&'e [u8]> {
        let plain = (self.media.format, self.media.shape) == (Format::Json, Shape::Plain);
        (plain && !convert::converts(&self.resource)).then_some(&entry.data[..])
    }

    /// An object of the resource's version.
    pub fn object(&self, object: &Value) -> Result<Bytes, ApiError> {
        match self.media.shape {
            Shape::Plain => document(self.media.format, object),
            Shape::Partial => self.partial(object),
            Shape::Table => {
                let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                document(self.media.format, &self.table(std::slice::from_ref(object), meta))
            }
        }
    }

    /// A stored state: its own bytes, if nothing else is asked for.
    pub fn entry(&self, entry: &Entry) -> Result<Bytes, ApiError> {
        if convert::converts(&self.resource) {
            return self.object(&convert::read(&self.resource, &entry.data)?);
        }
        match (self.media.format, self.media.shape) {
            (Format::Json, Shape::Plain) => Ok(entry.data.clone()),
            (Format::Json, Shape::Partial) => Ok(partial_json(&entry.data, self.meta_version())),
            (Format::Protobuf, Shape::Plain) => {
                let message = self.message(entry)?;
                Ok(protobuf::envelope(&self.resource.api_version(), &self.resource.kind, &message).into())
            }
            (Format::Protobuf, Shape::Partial) => {
                Ok(protobuf::envelope(self.meta_version(), PARTIAL, &self.message(entry)?).into())
            }
            _ => self.object(&convert::read(&self.resource, &entry.data)?),
        }
    }

    /// A stored state as it was, saying another revision: what a watcher is told of an object that no longer matches.
    pub fn entry_at(&self, entry: &Entry, revision: u64) -> Result<Bytes, ApiError> {
        let data = entry.data_at(revision);
        if self.media == MediaType::default() && !convert::converts(&self.resource) {
            return Ok(data);
        }
        self.object(&convert::read(&self.resource, &data)?)
    }

    /// The protobuf message of a stored state in this shape, made once for all readers.
    fn message(&self, entry: &Entry) -> Result<Bytes, ApiError> {
        let make = || {
            let object = convert::read(&self.resource, &entry.data)?;
            match self.media.shape {
                Shape::Partial => partial_message(&object),
                _ => Ok(protobuf::message(self.schema()?, &object).into()),
            }
        };
        match self.slot() {
            Some(slot) => entry.encodings.get(slot, make),
            None => make(),
        }
    }

    fn schema(&self) -> Result<&'static Schema, ApiError> {
        let kind = self.resource.gvk();
        schema::builtin(&kind).ok_or_else(|| ApiError::internal(format!("there is no schema for {kind}")))
    }

    fn partial(&self, object: &Value) -> Result<Bytes, ApiError> {
        let partial =
            json!({"kind": PARTIAL, "apiVersion": self.meta_version(), "metadata": object["metadata"]});
        match self.media.format {
            Format::Protobuf => {
                Ok(protobuf::envelope(self.meta_version(), PARTIAL, &partial_message(&partial)?).into())
            }
            format => document(format, &partial),
        }
    }

    /// A list of stored states. `meta` are the members of its metadata.
    pub fn list(&self, entries: &[Arc<Entry>], meta: Map<String, Value>) -> Result<Body, ApiError> {
        let stored = !convert::converts(&self.resource);
        match (self.media.format, self.media.shape) {
            (Format::Json, Shape::Plain) if stored => {
                Ok(self.joined(entries.iter().map(|entry| entry.data.clone()).collect(), meta))
            }
            (Format::Json, Shape::Partial) if stored => Ok(self.joined(
                entries.iter().map(|entry| partial_json(&entry.data, self.meta_version())).collect(),
                meta,
            )),
            (Format::Protobuf, Shape::Plain | Shape::Partial) => {
                let messages = entries.iter().map(|entry| self.message(entry)).collect::<Result<_, _>>()?;
                Ok(self.joined(messages, meta))
            }
            _ => {
                let read = |entry: &Arc<Entry>| convert::read(&self.resource, &entry.data);
                let objects = entries.iter().map(read).collect::<Result<Vec<_>, _>>()?;
                self.objects(objects, meta).map(Body::from)
            }
        }
    }

    /// A list of objects of the resource's version.
    pub fn objects(&self, mut items: Vec<Value>, meta: Map<String, Value>) -> Result<Bytes, ApiError> {
        let (kind, api_version) = self.list_type();
        match self.media.shape {
            Shape::Table => {
                return document(self.media.format, &self.table(&items, Value::Object(meta)));
            }
            Shape::Partial => {
                let version = self.meta_version();
                for item in &mut items {
                    *item =
                        json!({"kind": PARTIAL, "apiVersion": version, "metadata": item["metadata"].take()});
                }
            }
            Shape::Plain => {}
        }
        if self.media.format == Format::Protobuf {
            let messages = items.iter().map(|item| match self.media.shape {
                Shape::Partial => partial_message(item),
                _ => Ok(protobuf::message(self.schema()?, item).into()),
            });
            let messages: Vec<Bytes> = messages.collect::<Result<_, _>>()?;
            let mut out = self.head(meta, joined_length(Join::Protobuf, &messages)).to_vec();
            messages.iter().for_each(|message| protobuf::bytes(2, message, &mut out));
            return Ok(out.into());
        }
        let list = json!({"kind": kind, "apiVersion": api_version, "metadata": meta, "items": items});
        document(self.media.format, &list)
    }

    fn list_type(&self) -> (&str, String) {
        match self.media.shape {
            Shape::Partial => (PARTIAL_LIST, self.meta_version().to_owned()),
            _ => (self.resource.list_kind.as_ref(), self.resource.api_version()),
        }
    }

    fn joined(&self, items: Vec<Bytes>, meta: Map<String, Value>) -> Body {
        let join = if self.media.format == Format::Protobuf { Join::Protobuf } else { Join::Json };
        let head = self.head(meta, joined_length(join, &items));
        Body::new(Joined::new(join, head, items))
    }

    /// A list up to its first item; `length`: of what follows.
    fn head(&self, meta: Map<String, Value>, length: usize) -> Bytes {
        let (kind, api_version) = self.list_type();
        let meta = Value::Object(meta);
        if self.media.format == Format::Protobuf {
            let mut list = Vec::with_capacity(128);
            let schema = schema::named("meta.v1.ListMeta");
            protobuf::bytes(1, &schema.map_or_else(Vec::new, |it| protobuf::message(it, &meta)), &mut list);
            let mut head = protobuf::envelope_head(&api_version, kind, list.len() + length);
            head.extend_from_slice(&list);
            return head.into();
        }
        let mut head = String::with_capacity(256);
        // Writing to a String cannot fail.
        let _ = write!(head, r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{meta},"items":["#);
        head.into()
    }

    /// Objects as a table.
    fn table(&self, objects: &[Value], meta: Value) -> Value {
        let mut table = table::render(&self.resource.printer, objects, meta, self.include, self.clock.now());
        if self.media.older {
            table["apiVersion"] = OLDER_META.into();
            for row in table["rows"].as_array_mut().into_iter().flatten() {
                if row["object"]["kind"] == PARTIAL {
                    row["object"]["apiVersion"] = OLDER_META.into();
                }
            }
        }
        table
    }

    /// The version of the shapes that are answered.
    fn meta_version(&self) -> &'static str {
        if self.media.older { OLDER_META } else { META }
    }

    /// An object with nothing but metadata: what a bookmark carries.
    pub fn bookmark(&self, meta: Value) -> Result<Bytes, ApiError> {
        match self.media.shape {
            Shape::Table => document(self.media.format, &self.table(&[], meta)),
            _ => {
                let (kind, api_version) = (&self.resource.kind, self.resource.api_version());
                self.object(&json!({"kind": kind, "apiVersion": api_version, "metadata": meta}))
            }
        }
    }

    /// Adds a frame of a watch, around an encoded object.
    pub fn frame(&self, kind: &str, object: &[u8], out: &mut Vec<u8>) {
        if self.media.format == Format::Protobuf {
            out.extend_from_slice(&protobuf::watch_frame(kind, object));
            return;
        }
        out.reserve(object.len() + FRAME);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"object\":");
        out.extend_from_slice(object);
        out.extend_from_slice(b"}\n");
    }

    /// Adds the frame that ends a watch that cannot go on.
    pub fn error_frame(&self, error: &ApiError, out: &mut Vec<u8>) {
        let status = error.to_status();
        let status = document(self.media.format, &status).unwrap_or_else(|_| status.to_string().into());
        self.frame("ERROR", &status, out);
    }
}

#[derive(serde::Deserialize)]
struct OnlyMetadata<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// The PartialObjectMetadata of an encoded object; its other members are skipped, not parsed.
fn partial_json(data: &[u8], version: &str) -> Bytes {
    let metadata =
        serde_json::from_slice::<OnlyMetadata<'_>>(data).map_or("{}", |object| object.metadata.get());
    let mut out = BytesMut::with_capacity(metadata.len() + 96);
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":""#);
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(br#"","metadata":"#);
    out.extend_from_slice(metadata.as_bytes());
    out.extend_from_slice(b"}");
    out.freeze()
}

/// The message of a PartialObjectMetadata: the metadata is its first field.
fn partial_message(object: &Value) -> Result<Bytes, ApiError> {
    let schema = schema::named("meta.v1.ObjectMeta")
        .ok_or_else(|| ApiError::internal("there is no schema for ObjectMeta"))?;
    let mut out = Vec::with_capacity(512);
    protobuf::bytes(1, &protobuf::message(schema, &object["metadata"]), &mut out);
    Ok(out.into())
}
