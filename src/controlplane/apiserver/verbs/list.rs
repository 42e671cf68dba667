//! Lists a collection.

use http::StatusCode;
use serde_json::{Map, Value};

use api::status::ApiError;
use storage::{ListQuery, Listing, StorageError};

use super::super::context::{RequestContext, from_storage};
use super::super::selection::Selection;
use super::super::wire::{self, Continue};
use super::Answer;
use super::list_plan::{ListOptions, Snapshot};

const CONTINUE_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start \
    a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
    results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
    deleted between the time the first chunk was returned and now may show up in the list.";
const LIST_EXPIRED: &str = "The resourceVersion for the provided list is too old.";

/// Answers a collection: the stored bytes of the matching objects, joined.
pub async fn list(context: &RequestContext<'_>) -> Answer {
    let options = ListOptions::read(&context.params)?;
    let selection = Selection::read(context.resource, &context.params, context.only_name())?;
    let snapshot = options.snapshot()?;
    let (prefix, listing) = match fetch(context, &selection, &snapshot, options.limit).await {
        Ok(found) => found,
        Err(error) => return expired_page(context, &snapshot, error),
    };
    let meta = list_meta(&listing, &prefix, selection.is_all());
    let encoder = context.encoder();
    Ok(wire::raw(StatusCode::OK, encoder.content_type(), encoder.list(&listing.entries, meta)?))
}

/// Reads the entries of a collection as of a snapshot. Returns also the prefix that was read.
pub async fn fetch(
    context: &RequestContext<'_>,
    selection: &Selection,
    snapshot: &Snapshot,
    limit: usize,
) -> Result<(String, Listing), ApiError> {
    let store = context.engine.store.as_ref();
    let current = store.revision();
    if snapshot.at_least > current {
        return Err(ApiError::too_large_resource_version(snapshot.at_least, current));
    }
    let base = context.collection().prefix(&context.info.namespace);
    let query = ListQuery {
        after: snapshot.after.as_ref().map(|after| format!("{base}{after}")),
        prefix: format!("{base}{}", context.only_name()),
        at: snapshot.at,
        limit,
        filter: selection.filter(),
    };
    let mut listing = store.list(query).await.map_err(|error| match (error, &snapshot.after) {
        (StorageError::Compacted { .. }, Some(_)) => ApiError::expired(CONTINUE_EXPIRED),
        (StorageError::Compacted { .. }, None) => ApiError::expired(LIST_EXPIRED),
        (error, _) => from_storage(error),
    })?;
    listing.entries = context.engine.converter.entries(context.resource, listing.entries).await?;
    Ok((base, listing))
}

/// A page whose snapshot is gone is answered with a token that goes on from the same place in the current state.
fn expired_page(context: &RequestContext<'_>, snapshot: &Snapshot, error: ApiError) -> Answer {
    let Some(after) = snapshot.after.as_ref().filter(|_| error.code == 410) else { return Err(error) };
    let mut status = error.to_status();
    status["metadata"]["continue"] = Continue::new(0, after.clone()).encode().into();
    Ok(context.answer_document(StatusCode::GONE, &status))
}

/// The list's metadata as members of its JSON object.
fn list_meta(listing: &Listing, prefix: &str, count: bool) -> Map<String, Value> {
    let mut meta = Map::new();
    meta.insert("resourceVersion".to_owned(), listing.revision.to_string().into());
    if listing.more
        && let Some(last) = listing.entries.last()
    {
        let after = last.key.strip_prefix(prefix).unwrap_or_default();
        meta.insert("continue".to_owned(), Continue::new(listing.revision, after).encode().into());
        if let Some(remaining) = listing.remaining.filter(|_| count) {
            meta.insert("remainingItemCount".to_owned(), remaining.into());
        }
    }
    meta
}
