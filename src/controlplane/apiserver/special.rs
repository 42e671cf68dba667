//! The few requests that are not the generic verbs on stored objects: reviews, tokens, and streams to nodes.

use axum::body::Body;
use http::{Request, StatusCode};

use crate::api::meta::ObjectExt;
use crate::api::status::ApiError;

use super::call::Call;
use super::request::RequestInfo;
use super::verbs::{self, Answer, Sent};
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
pub async fn stream(call: &Call<'_>, request: Request<Body>) -> Answer {
    match &call.engine.streams {
        Some(streams) => streams.answer(call.info, request).await,
        None => Err(ApiError::service_unavailable("this server has no way to nodes")),
    }
}

/// Answers a request on something that is not stored.
pub async fn run(call: &Call<'_>, sent: Sent<'_>) -> Answer {
    match call.info.resource.as_str() {
        "bindings" => bind(call, &sent).await,
        _ => {
            let (object, warnings) = call.decode(&sent)?;
            let answer = call.engine.reviews.answer(call.user, call.info, object).await?;
            let mut response = call.answer_object(StatusCode::CREATED, &answer)?;
            wire::warn(&mut response, &warnings);
            Ok(response)
        }
    }
}

/// The old way to bind: the Pod is named in the body.
async fn bind(call: &Call<'_>, sent: &Sent<'_>) -> Answer {
    let (binding, _) = call.decode(sent)?;
    let pods = crate::api::resources::table().find("", "v1", "pods").ok_or_else(ApiError::unknown_path)?;
    let info = RequestInfo {
        resource: "pods".to_owned(),
        subresource: "binding".to_owned(),
        name: binding.name().to_owned(),
        ..call.info.clone()
    };
    let call = Call { info: &info, resource: &pods, params: call.params.clone(), ..*call };
    verbs::bind(&call, sent).await
}
