//! Deletes a collection.

use futures::stream::{self, StreamExt as _};
use http::StatusCode;
use serde_json::{Map, Value};

use api::status::{ApiError, Reason};

use super::super::context::RequestContext;
use super::super::key;
use super::super::request::RequestInfo;
use super::super::selection::Selection;
use super::super::wire;
use super::delete::{Deleted, delete_object};
use super::delete_plan::DeleteOptions;
use super::list_plan::ListOptions;
use super::{Answer, RequestBody, list};

/// Deletes at once, so that one storage transaction takes several.
const AT_ONCE: usize = 16;

/// Deletes what matches the selectors; returns what was deleted, as a list.
pub async fn delete_collection(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    if context.resource.namespaced && context.info.namespace.is_empty() {
        return Err(ApiError::method_not_allowed());
    }
    let body = wire::decode_options(body.headers, &body.bytes)?;
    let (options, dry_run) = DeleteOptions::read(body.as_ref(), &context.params)?;
    let wanted = ListOptions::read(&context.params)?;
    let selection = Selection::read(context.resource, &context.params, context.only_name())?;
    let (_, listing) = list::fetch(context, &selection, &wanted.snapshot()?, wanted.limit).await?;
    let revision = listing.revision;
    let mut deletes = Vec::with_capacity(listing.entries.len());
    for entry in &listing.entries {
        deletes.push(delete_named(context, key::name_of(&entry.key), &options, dry_run));
    }
    let results: Vec<Result<Deleted, ApiError>> = stream::iter(deletes).buffered(AT_ONCE).collect().await;
    let mut items: Vec<Value> = Vec::with_capacity(results.len());
    for result in results {
        match result {
            Ok(Deleted::Gone(object) | Deleted::Marked(object)) => items.push(object),
            // Somebody else was faster: it is gone all the same.
            Err(ApiError { reason: Reason::NotFound, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    let mut meta = Map::new();
    meta.insert("resourceVersion".to_owned(), revision.to_string().into());
    let encoder = context.encoder();
    Ok(wire::raw(StatusCode::OK, encoder.content_type(), encoder.objects(items, meta)?))
}

/// Deletes one object of the collection.
async fn delete_named(
    context: &RequestContext<'_>,
    name: &str,
    options: &DeleteOptions,
    dry_run: bool,
) -> Result<Deleted, ApiError> {
    let info = RequestInfo { name: name.to_owned(), ..context.info.clone() };
    let context = RequestContext { info: &info, params: context.params.clone(), ..*context };
    delete_object(&context, options, dry_run).await
}
