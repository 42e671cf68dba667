//! Lists: repositories, tags, and what is about something else.

use axum::response::Response;
use http::{StatusCode, Uri, header};
use serde_json::json;

use super::error::Refusal;
use super::path::Digest;
use super::store::Store;
use super::{json, query, typed};

pub(super) fn catalog(store: &Store, uri: &Uri) -> Result<Response, Refusal> {
    let (names, next) = page(store.repositories()?, uri)?;
    Ok(linked(json(StatusCode::OK, json!({"repositories": names}).to_string()), "/v2/_catalog", next))
}

pub(super) fn tags(store: &Store, name: &str, uri: &Uri) -> Result<Response, Refusal> {
    if !store.has_repository(name) {
        return Err(Refusal::no_name(name));
    }
    let (tags, next) = page(store.tags(name)?, uri)?;
    let body = json(StatusCode::OK, json!({"name": name, "tags": tags}).to_string());
    Ok(linked(body, &format!("/v2/{name}/tags/list"), next))
}

/// Manifests whose subject is `digest`, whether or not that is here; of one artifact type, if one is said.
pub(super) fn referrers(store: &Store, name: &str, digest: &Digest, uri: &Uri) -> Result<Response, Refusal> {
    let kind = query(uri, "artifactType");
    let about = store.manifests(name)?.into_iter().filter(|(_, about)| {
        about.subject.as_deref() == Some(digest.as_str()) && (kind.is_none() || about.artifact_type == kind)
    });
    let manifests: Vec<_> = about
        .map(|(digest, about)| {
            let mut descriptor = json!({
                "mediaType": about.media_type,
                "digest": digest.as_str(),
                "size": about.size,
                "artifactType": about.artifact_type,
            });
            if !about.annotations.is_empty() {
                descriptor["annotations"] = json!(about.annotations);
            }
            descriptor
        })
        .collect();
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let body = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
    let mut response = typed(StatusCode::OK, INDEX, body.to_string());
    if kind.is_some() {
        response.headers_mut().insert("oci-filters-applied", http::HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

/// The names behind `last`, at most `n`; and how to ask for more.
fn page(names: Vec<String>, uri: &Uri) -> Result<(Vec<String>, Option<String>), Refusal> {
    let last = query(uri, "last");
    let names = names.into_iter().filter(|name| last.as_ref().is_none_or(|last| name > last));
    let Some(count) = query(uri, "n") else { return Ok((names.collect(), None)) };
    let count: usize =
        count.parse().map_err(|_| Refusal::broken_upload(format!("{count:?} is no number")))?;
    let all: Vec<String> = names.collect();
    let shown: Vec<String> = all.iter().take(count).cloned().collect();
    let next = shown.last().filter(|_| all.len() > count);
    let next = next.map(|last| {
        let encoded: String = form_urlencoded::byte_serialize(last.as_bytes()).collect();
        format!("?n={count}&last={encoded}")
    });
    Ok((shown, next))
}

fn linked(mut response: Response, path: &str, next: Option<String>) -> Response {
    if let Some(next) = next
        && let Ok(value) = format!("<{path}{next}>; rel=\"next\"").parse()
    {
        response.headers_mut().insert(header::LINK, value);
    }
    response
}
