use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::Value;

use crate::api::meta::ObjectExt;
use crate::api::status::{self, ApiError};
use crate::controlplane::storage::{Entry, StorageError};

use super::super::admission::Operation;
use super::super::context::RequestContext;
use super::super::{convert, wire};
use super::delete_plan::{DeleteOptions, Plan, plan};
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
    let deleted = delete_object(context, &context.info.name, &options, dry_run).await?;
    answer(context, deleted)
}

fn answer(context: &RequestContext<'_>, deleted: Deleted) -> Result<Response<Body>, ApiError> {
    let resource = context.resource;
    match deleted {
        Deleted::Marked(object) => context.answer_object(StatusCode::OK, &object),
        Deleted::Gone(object) if resource.shown_when_gone => context.answer_object(StatusCode::OK, &object),
        Deleted::Gone(object) => {
            let status = status::deleted(&resource.group, &resource.plural, object.name(), object.uid());
            Ok(wire::json(StatusCode::OK, &status))
        }
    }
}

/// Deletes the object `name` of the request's collection.
pub async fn delete_object(
    context: &RequestContext<'_>,
    name: &str,
    options: &DeleteOptions,
    dry_run: bool,
) -> Result<Deleted, ApiError> {
    let key = context.collection().key(&context.info.namespace, name);
    let store = context.engine.store.as_ref();
    let mut current = store.get(&key).await?;
    loop {
        let entry = current.ok_or_else(|| context.not_found_named(name))?;
        let old = convert::read(context.resource, &entry.data)?;
        if let Some(why) = options.broken_precondition(&old) {
            return Err(ApiError::conflict(&context.resource.group, &context.resource.plural, name, &why));
        }
        let mut attributes = context.attributes(Operation::Delete, None, Some(&old), dry_run);
        attributes.name = name;
        let _admitted = context.engine.admission.validate(&attributes).await?;
        let settled = options.for_object(&old, context.resource.orphans_dependents());
        let written = match plan(
            &old,
            &settled,
            context.resource.grace_period(&old, options.grace),
            context.engine.clock.now(),
        ) {
            Plan::Pending => return Ok(Deleted::Marked(old)),
            Plan::Mark(new) if dry_run => return Ok(Deleted::Marked(new)),
            Plan::Remove if dry_run => return Ok(Deleted::Gone(old)),
            Plan::Mark(new) => {
                let payload = context.payload(new)?;
                store.update_if(key.clone(), entry.revision, payload).await.map(|entry| (entry, false))
            }
            Plan::Remove => store.delete_if(key.clone(), entry.revision).await.map(|entry| (entry, true)),
        };
        current = match written {
            Ok((entry, gone)) => return shown(context, &entry, gone),
            Err(StorageError::Conflict(standing)) => standing,
            Err(error) => return Err(error.into()),
        };
    }
}

fn shown(context: &RequestContext<'_>, entry: &Entry, gone: bool) -> Result<Deleted, ApiError> {
    let object = convert::read(context.resource, &entry.data)?;
    Ok(if gone { Deleted::Gone(object) } else { Deleted::Marked(object) })
}
