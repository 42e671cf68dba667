//! Health endpoints.

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};

use super::super::request::query_flag;
use super::Told;

/// Where health is asked for; single checks stand below each.
pub const PATHS: [&str; 3] = ["/healthz", "/livez", "/readyz"];

/// What is looked at. A server that is about to go is well, and yet not ready for more.
const CHECKS: [&str; 3] = ["ping", "storage", "shutdown"];

/// Answers a health path; `None` if it is not one.
pub fn answer(path: &str, parts: &Parts, told: &Told<'_>) -> Option<Response<Body>> {
    let endpoint = PATHS.iter().find(|endpoint| path.starts_with(**endpoint))?;
    let check = path[endpoint.len()..].trim_start_matches('/');
    let ready = *endpoint == "/readyz";
    let checks = || CHECKS.into_iter().filter(|name| ready || *name != "shutdown");
    let run = |name: &str| match name {
        "storage" => told.store.healthy().err().map(|error| error.to_string()),
        "shutdown" if told.leaving.is_cancelled() => Some("process is shutting down".to_owned()),
        _ => None,
    };
    let verbose = query_flag(parts.uri.query().unwrap_or_default(), "verbose");
    if !check.is_empty() {
        let known = checks().any(|name| name == check) || check == "etcd";
        return known.then(|| match run(if check == "etcd" { "storage" } else { check }) {
            None => text(StatusCode::OK, "ok".to_owned()),
            Some(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}")),
        });
    }
    let failed: Vec<(&str, String)> = checks().filter_map(|name| Some((name, run(name)?))).collect();
    if failed.is_empty() && !verbose {
        return Some(text(StatusCode::OK, "ok".to_owned()));
    }
    let mut report = String::new();
    for name in checks() {
        let failed = failed.iter().find(|(failed, _)| *failed == name);
        let line =
            failed.map_or_else(|| format!("[+]{name} ok\n"), |(_, why)| format!("[-]{name} failed: {why}\n"));
        report.push_str(&line);
    }
    let name = endpoint.trim_start_matches('/');
    let code = if failed.is_empty() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    report.push_str(&format!("{name} check {}\n", if failed.is_empty() { "passed" } else { "failed" }));
    Some(text(code, report))
}

fn text(code: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}
