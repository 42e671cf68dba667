//! Deletes an object.

use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::Value;

use api::meta::ObjectExt;
use api::status::{self, ApiError};

use super::super::context::RequestContext;
use super::super::wire;
use super::delete_plan::{DeleteOptions, Plan, plan};
use super::write::{self, Admit, Decision, Outcome, Write};
use super::{Answer, RequestBody};

/// How a delete ended.
pub enum Deleted {
    /// The object is gone; its last state.
    Gone(Value),
    /// The object stands, marked as being deleted.
    Marked(Value),
}

/// Deletes one object, or begins to.
pub async fn delete(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    context.check_single()?;
    let body = wire::decode_options(body.headers, &body.bytes)?;
    let (options, dry_run) = DeleteOptions::read(body.as_ref(), &context.params)?;
    let deleted = delete_object(context, &options, dry_run).await?;
    answer(context, deleted)
}

fn answer(context: &RequestContext<'_>, deleted: Deleted) -> Result<Response<Body>, ApiError> {
    let resource = context.resource;
    match deleted {
        Deleted::Marked(object) => context.answer_object(StatusCode::OK, &object),
        Deleted::Gone(object) if resource.shown_when_gone => context.answer_object(StatusCode::OK, &object),
        Deleted::Gone(object) => {
            let status = status::deleted(&resource.group, &resource.plural, object.name(), object.uid());
            Ok(context.answer_document(StatusCode::OK, &status))
        }
    }
}

/// Deletes the object that the context names.
pub async fn delete_object(
    context: &RequestContext<'_>,
    options: &DeleteOptions,
    dry_run: bool,
) -> Result<Deleted, ApiError> {
    let write = Write { key: context.key(), admit: Admit::Deletion, tracks: false, fresh: false, dry_run };
    let written = write::write(context, write, |old| {
        let old = old.ok_or_else(|| context.not_found())?;
        if let Some(why) = options.broken_precondition(old) {
            return Err(context.conflict(&why));
        }
        let grace = context.resource.grace_period(old, options.grace);
        let held = context.resource.strategy().prepare_delete(old);
        let settled = options.for_object(old, context.resource.orphans_dependents());
        Ok(match plan(held.as_ref().unwrap_or(old), &settled, grace, context.engine.clock.now()) {
            Plan::Pending => Decision::Keep,
            Plan::Mark(new) => Decision::Put(new),
            Plan::Remove => Decision::Remove(None),
        })
    });
    match written.await?.outcome {
        Outcome::Removed(shown) => shown.object(context).map(Deleted::Gone),
        Outcome::Created(shown) | Outcome::Stands(shown) => shown.object(context).map(Deleted::Marked),
    }
}
