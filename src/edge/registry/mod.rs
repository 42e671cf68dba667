//! A registry of images: the OCI distribution API (1.1), served over plain HTTP from files of its own.
//!
//! ```text
//! /v2/                                    /v2/_catalog                      /v2/NAME/tags/list
//! /v2/NAME/blobs/DIGEST                   HEAD GET (ranges) DELETE
//! /v2/NAME/blobs/uploads/[ID]             POST (whole, in parts, mounted from another name) GET PATCH PUT DELETE
//! /v2/NAME/manifests/TAG-or-DIGEST        HEAD GET PUT DELETE               /v2/NAME/referrers/DIGEST
//! ```
//!
//! It asks nobody who they are: it is for one machine, and listens where only that machine and its clusters are.

mod blobs;
mod error;
mod lists;
mod manifests;
mod path;
mod store;

use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, header};
use tokio::net::TcpListener;

use error::Refusal;
use path::Target;
use rt::Tasks;
pub use store::Store;

/// The version of the API, as Docker asks for it.
const VERSION: (&str, &str) = ("docker-distribution-api-version", "registry/2.0");

/// Serves a store until `tasks` stop. Fails when its folder cannot be used.
pub fn serve(listener: TcpListener, dir: &Path, tasks: &Tasks) -> std::io::Result<()> {
    let store = Arc::new(Store::open(dir)?);
    let stop = tasks.stop();
    tasks.spawn(async move {
        let stopped = async move { stop.cancelled().await };
        if let Err(error) = axum::serve(listener, router(store)).with_graceful_shutdown(stopped).await {
            tracing::error!(%error, "the registry ended");
        }
    });
    Ok(())
}

fn router(store: Arc<Store>) -> Router {
    Router::new().fallback(answer).with_state(store)
}

async fn answer(State(store): State<Arc<Store>>, request: Request) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    let mut response = route(&store, request).await.unwrap_or_else(IntoResponse::into_response);
    tracing::debug!(line, status = response.status().as_u16(), "answered");
    response.headers_mut().insert(VERSION.0, http::HeaderValue::from_static(VERSION.1));
    response
}

async fn route(store: &Arc<Store>, request: Request) -> Result<Response, Refusal> {
    let Some(target) = path::parse(request.uri().path())? else {
        return Err(Refusal::not_found());
    };
    let method = request.method().clone();
    match target {
        Target::Version => match method {
            Method::GET | Method::HEAD => Ok(json(StatusCode::OK, "{}".to_owned())),
            _ => Err(Refusal::method()),
        },
        Target::Catalog if method == Method::GET => lists::catalog(store, request.uri()),
        Target::Tags(name) if method == Method::GET => lists::tags(store, &name, request.uri()),
        Target::Referrers(name, digest) if method == Method::GET => {
            lists::referrers(store, &name, &digest, request.uri())
        }
        Target::Blob(name, digest) => {
            let asked = (method, request.headers().clone());
            blobs::blob(store, &name, &digest, asked).await
        }
        Target::Uploads(name) if method == Method::POST => blobs::begin(store, &name, request).await,
        Target::Upload(name, id) => blobs::upload(store, &name, &id, request).await,
        Target::Manifest(name, reference) => manifests::manifest(store, &name, &reference, request).await,
        _ => Err(Refusal::method()),
    }
}

fn json(status: StatusCode, text: String) -> Response {
    typed(status, "application/json", text)
}

fn typed(status: StatusCode, media_type: &str, body: impl Into<Body>) -> Response {
    let response = Response::builder().status(status).header(header::CONTENT_TYPE, media_type);
    response.body(body.into()).unwrap_or_else(|_| StatusCode::INTERNAL_SERVER_ERROR.into_response())
}

/// The value of a word in a query.
fn query(uri: &http::Uri, key: &str) -> Option<String> {
    let pairs = form_urlencoded::parse(uri.query()?.as_bytes());
    pairs.into_iter().find(|(name, _)| name == key).map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests;
