use http::StatusCode;

use crate::api::status::ApiError;

use super::super::call::Call;
use super::Answer;

/// Answers one object: its stored bytes.
pub async fn get(call: &Call<'_>) -> Answer {
    call.check_single()?;
    let store = call.engine.store.as_ref();
    if let Some(text) = call.params.text("resourceVersion") {
        let asked: u64 = text
            .parse()
            .map_err(|_| ApiError::bad_request(format!("invalid resource version \"{text}\"")))?;
        let current = store.revision();
        if asked > current {
            return Err(ApiError::too_large_resource_version(asked, current));
        }
    }
    let entry = store.get(&call.key()).await?.ok_or_else(|| call.not_found())?;
    call.answer_entry(StatusCode::OK, &entry)
}
