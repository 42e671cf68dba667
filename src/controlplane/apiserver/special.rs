//! The few requests that are not the generic verbs on stored objects: reviews, tokens, and streams to nodes.

use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::{Value, json};

use api::meta::ObjectExt;
use api::resources::{Handler, Review, Stream};
use api::status::ApiError;

use super::admission::Operation;
use super::context::RequestContext;
use super::request::RequestInfo;
use super::reservation::Reservations;
use super::verbs::{self, Answer, RequestBody};
use super::wire;

/// Passes a stream on.
pub async fn stream(context: &RequestContext<'_>, stream: Stream, request: Request<Body>) -> Answer {
    admit(context, request.uri().query().unwrap_or_default()).await?;
    match &context.engine.streams {
        Some(streams) => streams.answer(stream, context.info, request).await,
        None => Err(ApiError::service_unavailable("this server has no way to nodes")),
    }
}

/// Asks admission about a connection; what it is shown are the options in the query.
async fn admit(context: &RequestContext<'_>, query: &str) -> Result<(), ApiError> {
    let Some(sub) = context.resource.subresource(&context.info.subresource) else { return Ok(()) };
    // Logs are read, not connected to.
    if !sub.kind.kind.ends_with("Options") {
        return Ok(());
    }
    let mut options = json!({"apiVersion": sub.kind.api_version(), "kind": sub.kind.kind});
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        match name.as_ref() {
            "stdin" | "stdout" | "stderr" | "tty" => {
                options[name.as_ref()] = matches!(value.as_ref(), "true" | "1").into();
            }
            "command" => match options.get_mut("command").and_then(Value::as_array_mut) {
                Some(words) => words.push(value.into_owned().into()),
                None => options["command"] = json!([value]),
            },
            "container" | "path" => options[name.as_ref()] = value.into_owned().into(),
            _ => {}
        }
    }
    let attributes = context.attributes(Operation::Connect, Some(options), None, false);
    context.engine.admission.validate(&attributes, &mut Reservations::default()).await
}

/// Answers a question: nothing is stored.
pub async fn review(context: &RequestContext<'_>, review: Review, body: &RequestBody<'_>) -> Answer {
    if review == Review::Binding {
        return bind(context, body).await;
    }
    let (object, warnings) = context.decode(body)?;
    let answer = context.engine.reviews.answer(review, context.user, context.info, object).await?;
    let mut response = context.answer_object(StatusCode::CREATED, &answer)?;
    wire::warn(&mut response, &warnings);
    Ok(response)
}

/// Issues a token for the ServiceAccount of the path.
pub async fn token(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    let (object, warnings) = context.decode(body)?;
    let answer = context.engine.reviews.token_request(context.user, context.info, object).await?;
    let mut response = context.answer_object(StatusCode::CREATED, &answer)?;
    wire::warn(&mut response, &warnings);
    Ok(response)
}

/// The old way to bind: the Pod is named in the body.
async fn bind(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    let (binding, _) = context.decode(body)?;
    let pods = context.table.find("", "v1", "pods").ok_or_else(ApiError::unknown_path)?;
    let info = RequestInfo {
        resource: "pods".to_owned(),
        subresource: Handler::Binding.name().to_owned(),
        name: binding.name().to_owned(),
        ..context.info.clone()
    };
    let handler = Some(Handler::Binding);
    let context =
        RequestContext { info: &info, resource: pods, handler, params: context.params.clone(), ..*context };
    verbs::bind(&context, body).await
}
