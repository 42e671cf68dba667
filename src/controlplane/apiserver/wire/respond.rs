//! Responses, and the warnings on them.

use axum::body::Body;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, WARNING};
use http::{Response, StatusCode};
use serde_json::Value;

use api::status::ApiError;

use super::Format;
use super::encoder::document;

/// An answer of bytes that are encoded already.
pub fn raw(code: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer encoded here, as JSON.
pub fn json(code: StatusCode, value: &Value) -> Response<Body> {
    raw(code, Format::Json.content_type(), value.to_string())
}

/// An answer that is a document of its own and no view of a resource: a Status, a Scale. JSON if the format cannot carry it.
pub fn value(code: StatusCode, format: Format, value: &Value) -> Response<Body> {
    match document(format, value) {
        Ok(bytes) => raw(code, format.content_type(), bytes),
        Err(_) => json(code, value),
    }
}

/// The answer to a request that failed.
pub fn error(format: Format, error: &ApiError) -> Response<Body> {
    let code = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let status = error.to_status();
    let mut response = value(code, format, &status);
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
