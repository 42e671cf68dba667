//! Paths that are not resources: discovery, OpenAPI, version, health.

mod aggregated;
mod discovery;
mod health;

use std::collections::BTreeMap;

use axum::body::Body;
use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION, VARY};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::api::openapi;
use crate::api::resources::table;
use crate::api::status::ApiError;
use crate::controlplane::storage::Store;

use super::request::RequestInfo;
use super::verbs::Answer;
use super::wire;

/// A document that is made once and answered with its hash as ETag.
struct Document {
    body: Bytes,
    etag: HeaderValue,
    content_type: HeaderValue,
}

impl Document {
    fn new(value: &Value, content_type: &'static str) -> Self {
        let body = Bytes::from(value.to_string());
        let hash = hex::encode_upper(&digest(&SHA256, &body).as_ref()[..16]);
        let etag = HeaderValue::from_str(&format!("\"{hash}\"")).expect("hexadecimal digits in quotes");
        Self { body, etag, content_type: HeaderValue::from_static(content_type) }
    }

    fn answer(&self, parts: &Parts) -> Response<Body> {
        let same = parts.headers.get(IF_NONE_MATCH).is_some_and(|known| *known == self.etag);
        let mut response = Response::new(if same { Body::empty() } else { Body::from(self.body.clone()) });
        if same {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = response.headers_mut();
        headers.insert(ETAG, self.etag.clone());
        headers.insert(CONTENT_TYPE, self.content_type.clone());
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("public"));
        response
    }
}

const JSON: &str = "application/json";
/// What the OpenAPI documents are made from.
const SCHEMA_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "/v1.36");

/// The documents, made from the resource table.
pub struct Root {
    plain: BTreeMap<String, Document>,
    aggregated: BTreeMap<&'static str, Document>,
    paths: Value,
}

impl Root {
    pub fn new() -> Self {
        let rows: Vec<_> = table().iter().cloned().collect();
        let plain: BTreeMap<String, Document> = discovery::documents(&rows)
            .into_iter()
            .map(|(path, value)| (path, Document::new(&value, JSON)))
            .collect();
        let aggregated = ["/api", "/apis"].map(|path| {
            (path, Document::new(&aggregated::document(&rows, path == "/api"), aggregated::CONTENT_TYPE))
        });
        let mut paths: Vec<&str> = plain.keys().map(String::as_str).collect();
        paths.extend(health::PATHS);
        paths.extend(["/openapi/v3", "/version"]);
        paths.sort_unstable();
        let paths = json!({"paths": paths});
        Self { plain, aggregated: aggregated.into(), paths }
    }

    /// Answers a path that is not a resource.
    pub fn answer(&self, parts: &Parts, info: &RequestInfo, store: &dyn Store) -> Answer {
        let path = info.path.as_str();
        let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
        if !matches!(parts.method, Method::GET | Method::HEAD) {
            return Err(if self.plain.contains_key(path) {
                ApiError::method_not_allowed()
            } else {
                ApiError::unknown_path()
            });
        }
        if let Some(document) = self.plain.get(path) {
            let accept = parts.headers.get(ACCEPT).and_then(|header| header.to_str().ok());
            let aggregated = self.aggregated.get(path).filter(|_| wire::wants_aggregated_discovery(accept));
            return Ok(aggregated.unwrap_or(document).answer(parts));
        }
        match path {
            "/" => Ok(wire::json(StatusCode::OK, &self.paths)),
            "/version" => Ok(wire::json(StatusCode::OK, &version())),
            _ if path.starts_with("/openapi/v3") => openapi_document(path, parts),
            _ => health::answer(path, parts, store).ok_or_else(ApiError::unknown_path),
        }
    }
}

/// The Kubernetes version whose API this is.
fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": "v1.36.0+minik",
        "gitCommit": env!("CARGO_PKG_VERSION"),
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}

/// The OpenAPI documents: an index whose links carry a hash, so that what they lead to may be kept for good. A link with
/// an old hash leads to the one there is now. Documents follow from the program alone, so its version is their hash.
fn openapi_document(path: &str, parts: &Parts) -> Answer {
    let hash = hex::encode_upper(&digest(&SHA256, SCHEMA_VERSION.as_bytes()).as_ref()[..16]);
    let place = path.strip_prefix("/openapi/v3").unwrap_or_default().trim_matches('/');
    if place.is_empty() {
        return Ok(wire::json(StatusCode::OK, &openapi::index(&hash)));
    }
    let asked = parts.uri.query().and_then(|query| query.strip_prefix("hash="));
    if let Some(asked) = asked.filter(|asked| *asked != hash) {
        tracing::debug!(asked, "an outdated OpenAPI link");
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        let url = format!("/openapi/v3/{place}?hash={hash}");
        let url = HeaderValue::from_str(&url).map_err(|_| ApiError::unknown_path())?;
        response.headers_mut().insert(LOCATION, url);
        return Ok(response);
    }
    let document = openapi::document(place).ok_or_else(ApiError::unknown_path)?;
    let mut response = Document::new(&document, JSON).answer(parts);
    if asked.is_some() {
        let kept = HeaderValue::from_static("public, immutable");
        response.headers_mut().insert(CACHE_CONTROL, kept);
    }
    Ok(response)
}
