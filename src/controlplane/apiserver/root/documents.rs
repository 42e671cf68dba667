//! The documents about resources: made when first asked for, kept as long as the resources stay as they are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::body::Body;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, LOCATION, VARY};
use http::request::Parts;
use http::{Response, StatusCode};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::{aggregated, discovery, health, openid};
use crate::aggregation::Remotes;
use crate::verbs::Answer;
use crate::wire;
use api::openapi;
use api::resources::{Resource, Table};
use api::status::ApiError;

const JSON: &str = "application/json";
/// Older clients ask for the first of these.
const PROTOBUF: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];
/// What the OpenAPI documents of built-in types are made from.
const SCHEMA_VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "/v1.36/described");

fn hash_of(bytes: &[u8]) -> String {
    hex::encode_upper(&digest(&SHA256, bytes).as_ref()[..16])
}

/// A document that is made once and answered with its hash as ETag.
pub struct Document {
    body: Bytes,
    /// The same packed; made when somebody takes it so, and only of what is long.
    packed: OnceLock<Option<Bytes>>,
    etag: HeaderValue,
    content_type: HeaderValue,
}

impl Document {
    fn new(value: &Value, content_type: &'static str) -> Self {
        Self::encoded(value.to_string().into(), content_type)
    }

    fn encoded(body: Bytes, content_type: &'static str) -> Self {
        let etag = HeaderValue::from_str(&format!("\"{}\"", hash_of(&body)));
        let etag = etag.expect("hexadecimal digits in quotes");
        Self { body, packed: OnceLock::new(), etag, content_type: HeaderValue::from_static(content_type) }
    }

    /// Answers it, or only that it has not changed.
    pub fn answer(&self, parts: &Parts) -> Response<Body> {
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
        if let Some(packed) = self.packed(parts).filter(|_| !same) {
            wire::gzip::mark(response.headers_mut());
            *response.body_mut() = Body::from(packed);
        }
        response
    }

    fn packed(&self, parts: &Parts) -> Option<Bytes> {
        if self.body.len() < wire::gzip::SHORTEST || !wire::gzip::accepted(&parts.headers) {
            return None;
        }
        self.packed.get_or_init(|| wire::gzip::pack(&self.body).ok()).clone()
    }
}

/// The discovery documents.
pub struct Discovery {
    plain: BTreeMap<String, Document>,
    aggregated: BTreeMap<&'static str, Document>,
    paths: Value,
}

impl Discovery {
    fn new(table: &Table, remotes: &Remotes) -> Self {
        let rows: Vec<Arc<Resource>> = table.iter().cloned().collect();
        let plain: BTreeMap<String, Document> = discovery::documents(&rows, remotes)
            .into_iter()
            .map(|(path, value)| (path, Document::new(&value, JSON)))
            .collect();
        let aggregated = ["/api", "/apis"].map(|path| {
            (
                path,
                Document::new(
                    &aggregated::document(&rows, remotes, path == "/api"),
                    aggregated::CONTENT_TYPE,
                ),
            )
        });
        let mut paths: Vec<&str> = plain.keys().map(String::as_str).collect();
        paths.extend(health::PATHS);
        paths.extend(openid::PATHS);
        paths.extend([config::backup::PATH, "/metrics", "/openapi/v2", "/openapi/v3", "/version"]);
        paths.sort_unstable();
        let paths = json!({"paths": paths});
        Self { plain, aggregated: aggregated.into(), paths }
    }

    /// The document at a path, in the aggregated form if that is wanted and there is one.
    pub fn find(&self, path: &str, aggregated: bool) -> Option<&Document> {
        let plain = self.plain.get(path)?;
        Some(self.aggregated.get(path).filter(|_| aggregated).unwrap_or(plain))
    }

    /// All paths there are.
    pub fn paths(&self) -> &Value {
        &self.paths
    }
}

/// This server's document, and what other servers told: their paths, and the types that are not known here.
fn openapi_v2(table: &Table, remotes: &Remotes) -> Value {
    let mut document = openapi::document_v2(table);
    for (told, _) in remotes.iter().filter_map(|remote| remote.told.openapi_v2.as_ref()) {
        for part in ["paths", "definitions"] {
            let Some(all) = document[part].as_object_mut() else { continue };
            for (name, value) in told[part].as_object().into_iter().flatten() {
                all.entry(name).or_insert_with(|| value.clone());
            }
        }
    }
    document
}

/// Every document about one snapshot of the resources.
#[derive(Default)]
pub struct Documents {
    discovery: OnceLock<Discovery>,
    v2_json: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
    /// Hashes by place.
    v3: OnceLock<BTreeMap<String, String>>,
    v3_documents: Arc<Mutex<MadeDocuments>>,
}

/// Documents of version 3 by place, each with its hash: from one snapshot to the next most of them stay as they are.
type MadeDocuments = BTreeMap<String, (String, Arc<Document>)>;

impl Documents {
    /// The documents of the snapshot that comes next; what does not change with it is not made again.
    pub fn next(&self) -> Self {
        Self { v3_documents: Arc::clone(&self.v3_documents), ..Self::default() }
    }

    pub fn discovery(&self, table: &Table, remotes: &Remotes) -> &Discovery {
        self.discovery.get_or_init(|| Discovery::new(table, remotes))
    }

    /// Answers version 2 in the form that is asked for.
    pub fn openapi_v2(&self, table: &Table, remotes: &Remotes, accept: &str, parts: &Parts) -> Answer {
        // Kept as bytes alone: the values take several times as much.
        let value = || openapi_v2(table, remotes);
        let protobuf = PROTOBUF.iter().any(|form| accept.contains(form));
        let document = match protobuf {
            true => self
                .v2_protobuf
                .get_or_init(|| Document::encoded(openapi::encode_v2(&value()).into(), PROTOBUF[1])),
            false => self.v2_json.get_or_init(|| Document::new(&value(), JSON)),
        };
        Ok(document.answer(parts))
    }

    /// Answers version 3: an index whose links carry a hash, so that what they lead to may be kept for good. A link with an
    /// old hash leads to the one there is now.
    pub fn openapi_v3(&self, table: &Table, remotes: &Remotes, path: &str, parts: &Parts) -> Answer {
        let place = path.strip_prefix("/openapi/v3").unwrap_or_default().trim_matches('/');
        let hashes = self.v3.get_or_init(|| {
            let hash = |text: String| hash_of(format!("{SCHEMA_VERSION} {text}").as_bytes());
            openapi::places(table).into_iter().map(|(place, text)| (place, hash(text))).collect()
        });
        let link = |place: &str, hash: &str| format!("/openapi/v3/{place}?hash={hash}");
        if place.is_empty() {
            let own = hashes.iter().map(|(place, hash)| (place.clone(), link(place, hash)));
            let others = remotes.iter().filter_map(|remote| {
                let place = format!("apis/{}/{}", remote.group, remote.version);
                Some((place, remote.told.openapi_v3.clone()?))
            });
            let paths: serde_json::Map<String, Value> =
                own.chain(others).map(|(place, url)| (place, json!({"serverRelativeURL": url}))).collect();
            return Ok(wire::json(StatusCode::OK, &json!({ "paths": paths })));
        }
        let hash = hashes.get(place).ok_or_else(ApiError::unknown_path)?;
        let asked = parts.uri.query().and_then(|query| query.strip_prefix("hash="));
        if let Some(asked) = asked.filter(|asked| asked != hash) {
            tracing::debug!(asked, "an outdated OpenAPI link");
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
            let url = HeaderValue::from_str(&link(place, hash)).map_err(|_| ApiError::unknown_path())?;
            response.headers_mut().insert(LOCATION, url);
            return Ok(response);
        }
        let mut response = self.v3_document(table, place, hash)?.answer(parts);
        if asked.is_some() {
            let kept = HeaderValue::from_static("public, immutable");
            response.headers_mut().insert(CACHE_CONTROL, kept);
        }
        Ok(response)
    }

    fn v3_document(&self, table: &Table, place: &str, hash: &str) -> Result<Arc<Document>, ApiError> {
        let mut made = self.v3_documents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, document)) = made.get(place).filter(|(made_of, _)| made_of == hash) {
            return Ok(Arc::clone(document));
        }
        // Whose place is gone goes when another one is made.
        made.retain(|place, _| self.v3.get().is_none_or(|hashes| hashes.contains_key(place)));
        let document = openapi::document(table, place).ok_or_else(ApiError::unknown_path)?;
        let document = Arc::new(Document::new(&document, JSON));
        made.insert(place.to_owned(), (hash.to_owned(), Arc::clone(&document)));
        Ok(document)
    }
}
