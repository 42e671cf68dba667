//! The verbs: one implementation each, for every resource in the table.
//!
//! Planning functions (what a list's parameters ask for, what a delete comes to, what a write changes) are synchronous and
//! work on data; the `async` functions around them read and write storage.

mod apply;
mod collection;
mod create;
mod delete;
mod delete_plan;
mod list;
mod list_plan;
mod patch;
mod patch_flaws;
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

use api::resources::Handler;
use api::status::ApiError;

use super::context::RequestContext;
use super::special;

/// What an engine verb answers.
pub(super) type Answer = Result<Response<Body>, ApiError>;

/// The request's headers and body, for verbs that read them.
pub(super) struct RequestBody<'a> {
    pub headers: &'a HeaderMap,
    pub bytes: Bytes,
}

/// Carries out a request on a stored resource, or on one of its subresources that is not a stream.
pub(super) async fn run(context: &RequestContext<'_>, body: RequestBody<'_>) -> Answer {
    match context.handler {
        None => on_object(context, &body).await,
        Some(Handler::Part(_)) => on_part(context, &body).await,
        Some(Handler::Scale) => scale::run(context, &body).await,
        Some(Handler::Binding) => pod::bind(context, &body).await,
        Some(Handler::Eviction) => pod::evict(context, &body).await,
        Some(Handler::Token) => special::token(context, &body).await,
        Some(Handler::Stream(_)) => Err(ApiError::internal("a stream is not a verb")),
    }
}

async fn on_object(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    match context.info.verb {
        "get" => read::get(context).await,
        "list" => list::list(context).await,
        "watch" => watch::watch(context).await,
        "create" => create::create(context, body).await,
        "update" => update::update(context, body).await,
        "patch" => patch::patch(context, body).await,
        "delete" => delete::delete(context, body).await,
        "deletecollection" => collection::delete_collection(context, body).await,
        _ => Err(not_supported(context)),
    }
}

async fn on_part(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    match context.info.verb {
        "get" => read::get(context).await,
        "update" => update::update(context, body).await,
        "patch" => patch::patch(context, body).await,
        _ => Err(not_supported(context)),
    }
}

fn not_supported(context: &RequestContext<'_>) -> ApiError {
    ApiError::method_not_supported(&context.resource.group, &context.resource.plural, context.info.verb)
}
