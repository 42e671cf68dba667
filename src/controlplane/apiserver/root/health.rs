//! Health endpoints.

use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Response, StatusCode};

use crate::controlplane::storage::Store;

use super::super::request::query_flag;

/// Where health is asked for; single checks stand below each.
pub const PATHS: [&str; 3] = ["/healthz", "/livez", "/readyz"];

const CHECKS: [&str; 2] = ["ping", "storage"];

/// Answers a health path; `None` if it is not one.
pub fn answer(path: &str, parts: &Parts, store: &dyn Store) -> Option<Response<Body>> {
    let endpoint = PATHS.iter().find(|endpoint| path.starts_with(**endpoint))?;
    let check = path[endpoint.len()..].trim_start_matches('/');
    let run = |name: &str| {
        if name == "storage" { store.healthy().err().map(|error| error.to_string()) } else { None }
    };
    let verbose = query_flag(parts.uri.query().unwrap_or_default(), "verbose");
    if !check.is_empty() {
        let known = CHECKS.contains(&check) || check == "etcd";
        return known.then(|| match run(if check == "etcd" { "storage" } else { check }) {
            None => text(StatusCode::OK, "ok".to_owned()),
            Some(why) => text(StatusCode::INTERNAL_SERVER_ERROR, format!("internal server error: {why}")),
        });
    }
    let failed: Vec<(&str, String)> = CHECKS.iter().filter_map(|name| Some((*name, run(name)?))).collect();
    if failed.is_empty() && !verbose {
        return Some(text(StatusCode::OK, "ok".to_owned()));
    }
    let mut report = String::new();
    for name in CHECKS {
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
