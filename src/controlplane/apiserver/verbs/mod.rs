//! The verbs: one implementation each, for every resource in the table.
//!
//! Planning functions (what a list's parameters ask for, what a delete comes to, what a write changes) are synchronous and
//! work on data; the `async` functions around them read and write storage.

mod collection;
mod create;
mod delete;
mod delete_plan;
mod list;
mod list_plan;
mod patch;
mod pod;
mod read;
mod scale;
mod update;
mod watch;
mod watch_encoder;
mod write;

pub(super) use pod::bind;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::api::status::ApiError;
use crate::api::table::IncludeObject;

use super::context::RequestContext;
use super::wire::Params;

/// What an engine verb answers.
pub(super) type Answer = Result<Response<Body>, ApiError>;

/// The request's headers and body, for verbs that read them.
pub(super) struct RequestBody<'a> {
    pub headers: &'a HeaderMap,
    pub bytes: Bytes,
}

/// Which part of an object a table row carries, from `includeObject`.
pub(super) fn included(params: &Params<'_>) -> IncludeObject {
    params.get("includeObject").and_then(IncludeObject::parse).unwrap_or_default()
}

/// Carries out a request on a stored resource or one of its generic subresources.
pub(super) async fn run(context: &RequestContext<'_>, body: RequestBody<'_>) -> Answer {
    match (context.info.verb, context.info.subresource.as_str()) {
        ("get", "scale") => scale::get(context).await,
        ("update", "scale") => scale::update(context, &body).await,
        ("patch", "scale") => scale::patch(context, &body).await,
        ("create", "binding") => pod::bind(context, &body).await,
        ("create", "eviction") => pod::evict(context, &body).await,
        ("get", _) => read::get(context).await,
        ("list", "") => list::list(context).await,
        ("watch", "") => watch::watch(context).await,
        ("create", "") => create::create(context, &body).await,
        ("update", _) => update::update(context, &body).await,
        ("patch", _) => patch::patch(context, &body).await,
        ("delete", "") => delete::delete(context, &body).await,
        ("deletecollection", "") => collection::delete_collection(context, &body).await,
        (verb, _) => {
            Err(ApiError::method_not_supported(&context.resource.group, &context.resource.plural, verb))
        }
    }
}
