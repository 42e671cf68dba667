//! The whole state as one file, for who keeps backups.

use http::{HeaderValue, StatusCode};

use api::status::ApiError;
use config::backup::{ENTRIES, REVISION};
use storage::Store;

use crate::verbs::Answer;
use crate::wire;

/// Answers with the present state, as the file of an embedded store.
pub async fn answer(store: &dyn Store) -> Answer {
    let folder = tempfile::tempdir().map_err(ApiError::internal)?;
    let path = folder.path().join("store");
    let saved = storage::save(store, path.clone()).await.map_err(ApiError::internal)?;
    let file = tokio::fs::read(path).await.map_err(ApiError::internal)?;
    let mut answer = wire::raw(StatusCode::OK, "application/octet-stream", file);
    answer.headers_mut().insert(REVISION, HeaderValue::from(saved.revision));
    answer.headers_mut().insert(ENTRIES, HeaderValue::from(saved.entries));
    Ok(answer)
}
