//! Packing long answers for clients that take them so.

use std::io::Write as _;

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Response;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, HeaderMap, HeaderValue, VARY};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use rt::Tasks;

/// Shorter answers are not worth it, as upstream has it.
pub const SHORTEST: usize = 128 * 1024;

/// Whether a client takes packed answers.
pub fn accepted(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|one| {
            let mut parts = one.split(';').map(str::trim);
            parts.next() == Some("gzip") && !parts.any(|part| part == "q=0")
        })
    })
}

/// Packs bytes quickly rather than well, as upstream does.
pub fn pack(bytes: &[u8]) -> std::io::Result<Bytes> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish().map(Bytes::from)
}

/// Says in the headers that an answer is packed.
pub fn mark(headers: &mut HeaderMap) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.remove(CONTENT_LENGTH);
}

/// Packs an answer that is long and known as a whole; others stay as they are.
pub async fn packed(response: Response<Body>, tasks: &Tasks) -> Response<Body> {
    let long = response.body().size_hint().exact().is_some_and(|size| size >= SHORTEST as u64);
    if !long || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let plain = bytes.clone();
    match tasks.spawn_blocking(move || pack(&plain)).await {
        Ok(Ok(packed)) => {
            mark(&mut parts.headers);
            Response::from_parts(parts, Body::from(packed))
        }
        _ => Response::from_parts(parts, Body::from(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn clients_say_what_they_take() {
        let check = |value: &'static str, expect: bool| {
            let headers: HeaderMap =
                [(ACCEPT_ENCODING, HeaderValue::from_static(value))].into_iter().collect();
            assert_eq!(accepted(&headers), expect, "{value}");
        };
        check("gzip", true);
        check("deflate, gzip;q=0.5", true);
        check("gzip;q=0", false);
        check("identity", false);
        assert!(!accepted(&HeaderMap::new()));
    }

    #[tokio::test]
    async fn only_long_answers_are_packed() {
        let tasks = Tasks::new();
        let short = packed(Response::new(Body::from("short")), &tasks).await;
        assert!(!short.headers().contains_key(CONTENT_ENCODING));
        let text = "long ".repeat(SHORTEST);
        let long = packed(Response::new(Body::from(text.clone())), &tasks).await;
        assert_eq!(long.headers()[CONTENT_ENCODING], "gzip");
        let bytes = long.into_body().collect().await.unwrap().to_bytes();
        let mut unpacked = String::new();
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut unpacked).unwrap();
        assert!(unpacked == text && bytes.len() < text.len() / 10);
    }
}
