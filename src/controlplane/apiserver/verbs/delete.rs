//! Deletes an object.

use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::Value;

use api::meta::ObjectExt;
use api::status::{self, ApiError};

use super::super::context::RequestContext;
use super::super::wire;
use super::delete_plan::{DeleteOptions, End, Plan, plan};
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
    answer(context, deleted, &options)
}

fn answer(
    context: &RequestContext<'_>,
    deleted: Deleted,
    options: &DeleteOptions,
) -> Result<Response<Body>, ApiError> {
    let resource = context.resource;
    match deleted {
        Deleted::Marked(object) => {
            let code = if options.cascades { StatusCode::ACCEPTED } else { StatusCode::OK };
            context.answer_object(code, &object)
        }
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
    let mut ends = false;
    let written = write::write(context, write, |old| {
        let old = old.ok_or_else(|| context.not_found())?;
        options.check_preconditions(old, context.resource)?;
        let end = match context.resource.grace_period(old, options.grace) {
            Some(seconds) => End::Graceful(seconds),
            None if context.resource.waits_for_content() => End::Emptied,
            None => End::Plain,
        };
        let held = context.resource.strategy().prepare_delete(old);
        let settled = options.for_object(old, context.resource);
        let plan = plan(held.as_ref().unwrap_or(old), &settled, end, context.engine.clock.now());
        ends = false;
        Ok(match plan {
            Plan::Pending => Decision::Keep,
            Plan::Mark(new) => Decision::Put(new),
            // Who watches sees that it has no time left before it is gone. Rule: `updateForGracefulDeletionAndFinalizers`.
            Plan::Remove(Some(new)) if !dry_run && new != *old => {
                ends = true;
                Decision::Put(new)
            }
            Plan::Remove(shown) => Decision::Remove(shown),
        })
    });
    match written.await?.outcome {
        Outcome::Removed(shown) => shown.object(context).map(Deleted::Gone),
        Outcome::Created(shown) | Outcome::Stands(shown) => {
            let object = shown.object(context)?;
            if ends { end(context, object).await } else { Ok(Deleted::Marked(object)) }
        }
    }
}

/// Removes an object that has no time left. Whoever removes it first does it for all.
async fn end(context: &RequestContext<'_>, marked: Value) -> Result<Deleted, ApiError> {
    let (key, admit) = (context.key(), Admit::Nothing);
    let write = Write { key, admit, tracks: false, fresh: false, dry_run: false };
    let written = write::write(context, write, |old| {
        let old = old.filter(|old| old.uid() == marked.uid()).ok_or_else(|| context.not_found())?;
        let held = old.finalizers().next().is_some();
        Ok(if held { Decision::Keep } else { Decision::Remove(None) })
    });
    match written.await.map(|written| written.outcome) {
        Ok(Outcome::Removed(shown)) => shown.object(context).map(Deleted::Gone),
        Ok(Outcome::Created(shown) | Outcome::Stands(shown)) => shown.object(context).map(Deleted::Marked),
        Err(error) if error.code == 404 => Ok(Deleted::Gone(marked)),
        Err(error) => Err(error),
    }
}
