//! The few requests that are not the generic verbs on stored objects: reviews, tokens, and streams to nodes.

use axum::body::Body;
use http::{Request, StatusCode};

use crate::api::meta::ObjectExt;
use crate::api::status::ApiError;

use super::context::RequestContext;
use super::request::RequestInfo;
use super::verbs::{self, Answer, RequestBody};
use super::wire;

/// Subresources whose bytes are passed on to a node.
const STREAMS: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];

/// Whether the request's body or answer is a stream of unknown length.
pub fn is_stream(info: &RequestInfo) -> bool {
    info.verb == "proxy" || STREAMS.contains(&info.subresource.as_str())
}

/// Whether a subresource of a stored resource is answered here.
pub fn is_special(info: &RequestInfo) -> bool {
    info.subresource == "token"
}

/// Passes a stream on.
pub async fn stream(context: &RequestContext<'_>, request: Request<Body>) -> Answer {
    match &context.engine.streams {
        Some(streams) => streams.answer(context.info, request).await,
        None => Err(ApiError::service_unavailable("this server has no way to nodes")),
    }
}

/// Answers a request on something that is not stored.
pub async fn run(context: &RequestContext<'_>, body: RequestBody<'_>) -> Answer {
    match context.info.resource.as_str() {
        "bindings" => bind(context, &body).await,
        _ => {
            let (object, warnings) = context.decode(&body)?;
            let answer = context.engine.reviews.answer(context.user, context.info, object).await?;
            let mut response = context.answer_object(StatusCode::CREATED, &answer)?;
            wire::warn(&mut response, &warnings);
            Ok(response)
        }
    }
}

/// The old way to bind: the Pod is named in the body.
async fn bind(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    let (binding, _) = context.decode(body)?;
    let pods = crate::api::resources::table().find("", "v1", "pods").ok_or_else(ApiError::unknown_path)?;
    let info = RequestInfo {
        resource: "pods".to_owned(),
        subresource: "binding".to_owned(),
        name: binding.name().to_owned(),
        ..context.info.clone()
    };
    let context = RequestContext { info: &info, resource: &pods, params: context.params.clone(), ..*context };
    verbs::bind(&context, body).await
}
