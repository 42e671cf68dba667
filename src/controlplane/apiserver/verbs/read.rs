//! Reads one object.

use http::StatusCode;

use api::status::ApiError;

use super::super::context::RequestContext;
use super::Answer;

/// Answers one object: its stored bytes.
pub async fn get(context: &RequestContext<'_>) -> Answer {
    context.check_single()?;
    let store = context.engine.store.as_ref();
    if let Some(text) = context.params.text("resourceVersion") {
        let asked: u64 = text
            .parse()
            .map_err(|_| ApiError::bad_request(format!("invalid resource version \"{text}\"")))?;
        let current = store.revision();
        if asked > current {
            return Err(ApiError::too_large_resource_version(asked, current));
        }
    }
    let entry = context.stored().await?;
    let entry = context.converted(entry).await?;
    context.answer_entry(StatusCode::OK, &entry)
}
