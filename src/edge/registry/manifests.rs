//! Manifests: what an image, an index of images or an artifact consists of.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, header};
use serde::Deserialize;

use super::error::Refusal;
use super::path::{Digest, Reference};
use super::store::{About, Store, digest_of_bytes};

/// What a client may send at least, by the specification.
const LARGEST: usize = 4 << 20;
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub(super) async fn manifest(
    store: &Arc<Store>,
    name: &str,
    reference: &Reference,
    request: Request,
) -> Result<Response, Refusal> {
    match *request.method() {
        Method::GET | Method::HEAD => read(store, name, reference, request.method() == Method::HEAD),
        Method::PUT => put(store, name, reference, request).await,
        Method::DELETE => match store.remove_manifest(name, reference)? {
            true => Ok(StatusCode::ACCEPTED.into_response()),
            false => Err(Refusal::no_manifest(reference.as_str())),
        },
        _ => Err(Refusal::method()),
    }
}

fn read(store: &Store, name: &str, reference: &Reference, head: bool) -> Result<Response, Refusal> {
    let missing = || Refusal::no_manifest(reference.as_str());
    let digest = store.resolve(name, reference).ok_or_else(missing)?;
    let about = store.about(name, &digest).ok_or_else(missing)?;
    let content = std::fs::read(store.blob_file(&digest))?;
    Response::builder()
        .header(header::CONTENT_TYPE, about.media_type)
        .header(header::CONTENT_LENGTH, content.len())
        .header(header::ETAG, format!("\"{}\"", digest.as_str()))
        .header("docker-content-digest", digest.as_str())
        .body(if head { Body::empty() } else { Body::from(content) })
        .map_err(|error| std::io::Error::other(error).into())
}

async fn put(
    store: &Store,
    name: &str,
    reference: &Reference,
    request: Request,
) -> Result<Response, Refusal> {
    let said = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let said = said.and_then(|value| value.split(';').next()).map(|value| value.trim().to_owned());
    let content = to_bytes(request.into_body(), LARGEST)
        .await
        .map_err(|_| Refusal::too_large(format!("a manifest has at most {LARGEST} bytes")))?;
    if let Reference::Digest(digest) = reference {
        let actual = digest_of_bytes(&content, digest.algorithm());
        if actual != digest.hex() {
            return Err(Refusal::digest(format!("what came has the digest {}:{actual}", digest.algorithm())));
        }
    }
    let about = describe(&content, said)?;
    for part in &about.parts {
        let digest = Digest::parse(part)?;
        if store.blob(name, &digest).is_none() {
            return Err(Refusal::incomplete(part));
        }
    }
    let digest = store.put_manifest(name, &content, &about, reference)?;
    let mut response = Response::builder()
        .status(StatusCode::CREATED)
        .header(header::LOCATION, format!("/v2/{name}/manifests/{}", digest.as_str()))
        .header(header::CONTENT_LENGTH, 0)
        .header("docker-content-digest", digest.as_str());
    if let Some(subject) = &about.subject {
        response = response.header("oci-subject", subject);
    }
    response.body(Body::empty()).map_err(|error| std::io::Error::other(error).into())
}

#[derive(Deserialize)]
struct Part {
    digest: String,
    /// Layers that are elsewhere need not be sent.
    #[serde(default)]
    urls: Vec<String>,
    #[serde(default, rename = "mediaType")]
    media_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u8,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Part>,
    #[serde(default)]
    layers: Vec<Part>,
    #[serde(default)]
    manifests: Vec<Part>,
    subject: Option<Part>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// What a manifest says of itself. Fails when it is none, or of another kind than was said.
fn describe(content: &[u8], said: Option<String>) -> Result<About, Refusal> {
    let manifest: Manifest =
        serde_json::from_slice(content).map_err(|error| Refusal::manifest(error.to_string()))?;
    if manifest.schema_version != 2 {
        return Err(Refusal::manifest("only manifests of schema version 2 are kept"));
    }
    let own = manifest.media_type.clone();
    if let (Some(own), Some(said)) = (&own, &said)
        && own != said
    {
        return Err(Refusal::manifest(format!("it says {own}, its Content-Type {said}")));
    }
    let is_index = manifest.config.is_none() && !manifest.manifests.is_empty();
    let by_form = if is_index { OCI_INDEX } else { OCI_MANIFEST };
    let media_type = own.or(said).unwrap_or_else(|| by_form.to_owned());
    let config_type = manifest.config.as_ref().map(|config| config.media_type.clone());
    let parts = manifest.config.iter().chain(&manifest.layers).chain(&manifest.manifests);
    Ok(About {
        size: content.len() as u64,
        artifact_type: manifest.artifact_type.or(config_type).filter(|kind| !kind.is_empty()),
        subject: manifest.subject.map(|subject| subject.digest),
        annotations: manifest.annotations.unwrap_or_default(),
        parts: parts.filter(|part| part.urls.is_empty()).map(|part| part.digest.clone()).collect(),
        media_type,
    })
}
