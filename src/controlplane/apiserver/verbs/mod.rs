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
mod watch_frames;
mod write;

pub(super) use pod::bind;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Response};

use crate::api::status::ApiError;
use crate::api::table::IncludeObject;

use super::call::Call;
use super::wire::Params;

/// What an engine verb answers.
pub(super) type Answer = Result<Response<Body>, ApiError>;

/// The request's headers and body, for verbs that read them.
pub(super) struct Sent<'a> {
    pub headers: &'a HeaderMap,
    pub body: Bytes,
}

/// Which part of an object a table row carries, from `includeObject`.
pub(super) fn included(params: &Params<'_>) -> IncludeObject {
    params.get("includeObject").and_then(IncludeObject::parse).unwrap_or_default()
}

/// Carries out a request on a stored resource or one of its generic subresources.
pub(super) async fn run(call: &Call<'_>, sent: Sent<'_>) -> Answer {
    match (call.info.verb, call.info.subresource.as_str()) {
        ("get", "scale") => scale::get(call).await,
        ("update", "scale") => scale::update(call, &sent).await,
        ("patch", "scale") => scale::patch(call, &sent).await,
        ("create", "binding") => pod::bind(call, &sent).await,
        ("create", "eviction") => pod::evict(call, &sent).await,
        ("get", _) => read::get(call).await,
        ("list", "") => list::list(call).await,
        ("watch", "") => watch::watch(call).await,
        ("create", "") => create::create(call, &sent).await,
        ("update", _) => update::update(call, &sent).await,
        ("patch", _) => patch::patch(call, &sent).await,
        ("delete", "") => delete::delete(call, &sent).await,
        ("deletecollection", "") => collection::delete_collection(call, &sent).await,
        (verb, _) => Err(ApiError::method_not_supported(&call.resource.group, &call.resource.plural, verb)),
    }
}
