use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::api::status::ApiError;
use crate::controlplane::storage::{Entry, ListQuery, Listing, StorageError};

use super::super::context::RequestContext;
use super::super::convert;
use super::super::selection::Selection;
use super::super::wire::{self, Continue, Joined, Shape};
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
        Err(error) => return expired_page(&snapshot, error),
    };
    let meta = list_meta(&listing, &prefix, selection.is_all());
    answer(context, listing.entries, meta)
}

/// Reads the entries of a collection as of a snapshot. Answers also the prefix that was read.
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
    let listing = store.list(query).await.map_err(|error| match (error, &snapshot.after) {
        (StorageError::Compacted { .. }, Some(_)) => ApiError::expired(CONTINUE_EXPIRED),
        (StorageError::Compacted { .. }, None) => ApiError::expired(LIST_EXPIRED),
        (error, _) => error.into(),
    })?;
    Ok((base, listing))
}

/// A page whose snapshot is gone is answered with a token that goes on from the same place in the current state.
fn expired_page(snapshot: &Snapshot, error: ApiError) -> Answer {
    let Some(after) = snapshot.after.as_ref().filter(|_| error.code == 410) else { return Err(error) };
    let mut status = error.to_status();
    status["metadata"]["continue"] = Continue::new(0, after.clone()).encode().into();
    Ok(wire::json(StatusCode::GONE, &status))
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

/// Answers `entries` as a list, in the form the client accepts.
pub fn answer(context: &RequestContext<'_>, entries: Vec<Arc<Entry>>, meta: Map<String, Value>) -> Answer {
    let resource = context.resource;
    let plain = context.accept.shape == Shape::Plain && !context.accept.yaml && !convert::converts(resource);
    if plain {
        let api_version = resource.api_version();
        let body = Joined::new(head(&resource.list_kind, &api_version, meta), entries);
        return Ok(wire::raw(StatusCode::OK, Body::new(body)));
    }
    match context.accept.shape {
        Shape::Partial => {
            let mut body = Vec::from(&head("PartialObjectMetadataList", "meta.k8s.io/v1", meta)[..]);
            for (n, entry) in entries.iter().enumerate() {
                if n > 0 {
                    body.push(b',');
                }
                body.extend_from_slice(&wire::partial(&entry.data));
            }
            body.extend_from_slice(b"]}");
            Ok(wire::raw(StatusCode::OK, body))
        }
        Shape::Table => {
            let objects = entries.iter().map(|entry| context.read(entry)).collect::<Result<Vec<_>, _>>()?;
            Ok(wire::value(StatusCode::OK, context.accept, &context.table(&objects, Value::Object(meta))))
        }
        Shape::Plain => {
            let objects = entries.iter().map(|entry| context.read(entry)).collect::<Result<Vec<_>, _>>()?;
            let list = serde_json::json!({
                "kind": resource.list_kind,
                "apiVersion": resource.api_version(),
                "metadata": meta,
                "items": objects,
            });
            Ok(wire::value(StatusCode::OK, context.accept, &list))
        }
    }
}

fn head(kind: &str, api_version: &str, meta: Map<String, Value>) -> Bytes {
    let mut head = String::with_capacity(256);
    let meta = Value::Object(meta);
    // Writing to a String cannot fail.
    let _ = write!(head, r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{meta},"items":["#);
    head.into()
}
