//! What is refused, in the words of the API.

use axum::response::{IntoResponse, Response};
use http::StatusCode;

/// A refusal: status, the API's own code, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    status: StatusCode,
    code: &'static str,
    why: String,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, why: impl Into<String>) -> Self {
        Self { status, code, why: why.into() }
    }

    pub(super) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is nothing at this path")
    }

    pub(super) fn method() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "UNSUPPORTED", "this cannot be done here")
    }

    pub(super) fn name(name: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "NAME_INVALID", format!("{name:?} is no name of a repository"))
    }

    pub(super) fn no_name(name: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NAME_UNKNOWN", format!("there is no repository {name:?}"))
    }

    pub(super) fn digest(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "DIGEST_INVALID", why)
    }

    pub(super) fn no_blob(digest: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", format!("there is no blob {digest}"))
    }

    pub(super) fn no_upload(id: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "BLOB_UPLOAD_UNKNOWN", format!("there is no upload {id}"))
    }

    pub(super) fn busy_upload(id: &str) -> Self {
        Self::new(StatusCode::CONFLICT, "BLOB_UPLOAD_INVALID", format!("upload {id} is being written to"))
    }

    pub(super) fn broken_upload(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BLOB_UPLOAD_INVALID", why)
    }

    pub(super) fn range(why: impl Into<String>) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UPLOAD_INVALID", why)
    }

    pub(super) fn no_manifest(reference: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", format!("there is no manifest {reference}"))
    }

    pub(super) fn manifest(why: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "MANIFEST_INVALID", why)
    }

    /// The manifest speaks of what was not sent before it.
    pub(super) fn incomplete(digest: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "MANIFEST_BLOB_UNKNOWN", format!("{digest} is not here"))
    }

    pub(super) fn too_large(why: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "SIZE_INVALID", why)
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        let full = error.kind() == std::io::ErrorKind::StorageFull;
        let status = if full { StatusCode::INSUFFICIENT_STORAGE } else { StatusCode::INTERNAL_SERVER_ERROR };
        Self::new(status, "UNKNOWN", error.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::json!({"errors": [{"code": self.code, "message": self.why}]});
        super::json(self.status, body.to_string())
    }
}
