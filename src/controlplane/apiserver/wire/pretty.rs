//! JSON for people: a line for each member.

use axum::body::Body;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, Response};
use http_body_util::BodyExt as _;

use super::{Format, Params};
use api::status::ApiError;

/// Clients whose users read what is answered.
const READERS: [&str; 3] = ["curl", "Wget", "Mozilla/5.0"];

/// Whether a request asks for lines: by `pretty`, or, where it says nothing of that, by being a command line's or a browser's.
pub fn wanted(parts: &Parts) -> bool {
    match Params::new(parts.uri.query()).optional_flag("pretty") {
        Some(pretty) => pretty,
        None => reads(&parts.headers),
    }
}

fn reads(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    READERS.iter().any(|reader| agent.starts_with(reader))
}

/// The answer in lines, if it is JSON and whole.
pub async fn lines(response: Response<Body>) -> Result<Response<Body>, ApiError> {
    let json = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == Format::Json.content_type());
    if !json {
        return Ok(response);
    }
    let (mut parts, body) = response.into_parts();
    let bytes = body.collect().await.map_err(ApiError::internal)?.to_bytes();
    parts.headers.remove(CONTENT_LENGTH);
    Ok(Response::from_parts(parts, indented(&bytes).into()))
}

/// JSON without white space, indented by two; what is empty stays on its line.
fn indented(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let (mut depth, mut text, mut escaped) = (0_usize, false, false);
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.resize(out.len() + 2 * depth, b' ');
    };
    for (at, &byte) in json.iter().enumerate() {
        if text {
            out.push(byte);
            text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                if !matches!(json.get(at + 1), Some(b'}' | b']')) {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                if !matches!(out.last(), Some(b'{' | b'[')) {
                    depth = depth.saturating_sub(1);
                    line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            byte => {
                text = byte == b'"';
                out.push(byte);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn lines_say_the_same() {
        let check = |value: Value| {
            let expect = serde_json::to_string_pretty(&value).expect("JSON");
            let text = String::from_utf8(indented(value.to_string().as_bytes())).expect("a text");
            assert_eq!(text, expect);
        };
        check(json!({}));
        check(json!({"a": [], "b": {}, "c": [1, {"d": null}], "e": "x: {\"y\", [\\"}));
        check(json!([[], [1], "\\\"", "\\"]));
    }

    #[test]
    fn who_is_read_to_is_told_in_lines() {
        let check = |uri: &str, agent: &str, expect: bool| {
            let request = http::Request::get(uri).header("user-agent", agent).body(()).expect("a request");
            assert_eq!(wanted(&request.into_parts().0), expect, "{uri} {agent}");
        };
        check("/api", "kubectl/v1.36.0", false);
        check("/api?pretty=true", "kubectl/v1.36.0", true);
        check("/api", "curl/8.0", true);
        check("/api?pretty=false", "curl/8.0", false);
        check("/api?pretty=0", "Mozilla/5.0 (X11)", false);
    }
}
