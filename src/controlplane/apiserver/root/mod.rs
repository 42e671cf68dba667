//! Paths that are not resources: discovery, OpenAPI, version, health.

mod aggregated;
pub mod backup;
mod discovery;
mod documents;
mod health;
mod openid;

use http::header::ACCEPT;
use http::request::Parts;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use api::status::ApiError;
use rt::Stop;
use storage::Store;

use super::auth::Tokens;
use super::registry::Snapshot;
use super::request::RequestInfo;
use super::verbs::Answer;
use super::wire;
use config::BuildInfo;

pub use documents::Documents;

/// What the documents tell of, beside the resources.
pub struct Told<'a> {
    pub store: &'a dyn Store,
    pub tokens: &'a Tokens,
    pub build: BuildInfo,
    /// Cancelled once this server is about to go.
    pub leaving: &'a Stop,
}

/// Answers a path that is not a resource.
pub fn answer(parts: &Parts, info: &RequestInfo, snapshot: &Snapshot, told: &Told<'_>) -> Answer {
    let path = info.path.as_str();
    let path = if path.len() > 1 { path.trim_end_matches('/') } else { path };
    let documents = &snapshot.documents;
    let discovery = documents.discovery(&snapshot.table, &snapshot.remotes);
    let accept = parts.headers.get(ACCEPT).and_then(|header| header.to_str().ok());
    let found = discovery.find(path, wire::wants_aggregated_discovery(accept));
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Err(if found.is_some() { ApiError::method_not_allowed() } else { ApiError::unknown_path() });
    }
    if let Some(document) = found {
        return Ok(document.answer(parts));
    }
    match path {
        "/" => Ok(wire::json(StatusCode::OK, discovery.paths())),
        "/version" => Ok(wire::json(StatusCode::OK, &version(told.build))),
        "/openapi/v2" => {
            documents.openapi_v2(&snapshot.table, &snapshot.remotes, accept.unwrap_or_default(), parts)
        }
        _ if path.starts_with("/openapi/v3") => {
            documents.openapi_v3(&snapshot.table, &snapshot.remotes, path, parts)
        }
        _ => openid::answer(path, told.tokens)
            .or_else(|| health::answer(path, parts, told))
            .ok_or_else(ApiError::unknown_path),
    }
}

/// The Kubernetes version whose API this is, as it is told.
pub const GIT_VERSION: &str = "v1.36.0+minik";

/// The Kubernetes version whose API this is.
fn version(build: BuildInfo) -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": build.commit,
        "gitTreeState": "clean",
        "buildDate": build.date,
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("linux/{}", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
    })
}
