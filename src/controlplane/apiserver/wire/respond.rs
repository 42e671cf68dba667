use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use http_body::{Frame, SizeHint};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::status::ApiError;
use crate::controlplane::storage::Entry;

use super::Accept;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer of bytes that are JSON already.
pub fn raw(code: StatusCode, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// An answer encoded here, as JSON.
pub fn json(code: StatusCode, value: &Value) -> Response<Body> {
    raw(code, value.to_string())
}

/// An answer encoded here, in the form that the client accepts.
pub fn value(code: StatusCode, accept: Accept, value: &Value) -> Response<Body> {
    if !accept.yaml {
        return json(code, value);
    }
    let Ok(text) = serde_yaml::to_string(value) else { return json(code, value) };
    let mut response = raw(code, text);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(accept.content_type()));
    response
}

/// The answer to a request that failed.
pub fn error(error: &ApiError) -> Response<Body> {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let status = error.to_status();
    let mut response = json(code, &status);
    let seconds = status.pointer("/details/retryAfterSeconds").and_then(Value::as_u64);
    if let Some(seconds) = seconds.filter(|seconds| *seconds > 0) {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}

/// Adds `Warning` headers, which kubectl prints.
pub fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let text: String = warning.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let text = text.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(header) = HeaderValue::from_bytes(format!("299 - \"{text}\"").as_bytes()) {
            response.headers_mut().append(WARNING, header);
        }
    }
}

#[derive(serde::Deserialize)]
struct OnlyMetadata<'a> {
    #[serde(borrow)]
    metadata: &'a RawValue,
}

/// The PartialObjectMetadata of an encoded object; its other members are skipped, not parsed.
pub fn partial(data: &[u8]) -> Bytes {
    let metadata =
        serde_json::from_slice::<OnlyMetadata<'_>>(data).map_or("{}", |object| object.metadata.get());
    let mut out = BytesMut::with_capacity(metadata.len() + 96);
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":"#);
    out.extend_from_slice(metadata.as_bytes());
    out.extend_from_slice(b"}");
    out.freeze()
}

/// A list's body: the stored bytes of its entries, joined chunk by chunk as the connection takes them. Nothing is parsed
/// and the whole is never held in memory twice.
pub struct Joined {
    head: Option<Bytes>,
    entries: Vec<Arc<Entry>>,
    next: usize,
    left: u64,
}

impl Joined {
    /// Bytes per chunk: large enough that a chunk's overhead does not count, small enough to be joined in the cache.
    const CHUNK: usize = 128 * 1024;
    const TAIL: &'static [u8] = b"]}";

    /// `head` ends with the opening bracket of the items.
    pub fn new(head: Bytes, entries: Vec<Arc<Entry>>) -> Self {
        let items: usize = entries.iter().map(|entry| entry.data.len()).sum();
        let commas = entries.len().saturating_sub(1);
        let left = (head.len() + items + commas + Self::TAIL.len()) as u64;
        Self { head: Some(head), entries, next: 0, left }
    }

    fn chunk(&mut self) -> Bytes {
        let mut out = BytesMut::with_capacity(Self::CHUNK.min(self.left as usize) + 4096);
        if let Some(head) = self.head.take() {
            out.extend_from_slice(&head);
        }
        while let Some(entry) = self.entries.get(self.next) {
            if !out.is_empty() && out.len() + entry.data.len() > Self::CHUNK {
                return out.freeze();
            }
            if self.next > 0 {
                out.extend_from_slice(b",");
            }
            out.extend_from_slice(&entry.data);
            self.next += 1;
        }
        out.extend_from_slice(Self::TAIL);
        out.freeze()
    }
}

impl http_body::Body for Joined {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let chunk = self.chunk();
        self.left -= chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
