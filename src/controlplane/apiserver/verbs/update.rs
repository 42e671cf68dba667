use http::StatusCode;
use serde_json::Value;

use crate::api::meta::ObjectExt;
use crate::api::status::ApiError;

use super::super::context::RequestContext;
use super::write::{self, Attempt, Step};
use super::{Answer, RequestBody, create};

/// Replaces an object, or what a subresource shows of it, by the body.
pub async fn update(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    context.check_single()?;
    let dry_run = context.params.dry_run()?;
    let (object, mut warnings) = context.decode(body)?;
    if may_create(context) && context.engine.store.get(&context.key()).await?.is_none() {
        return create_by_update(context, object, dry_run, warnings).await;
    }
    let mut attempt = Attempt::begin(context, context.key(), dry_run).await?;
    loop {
        let old = attempt.standing(context)?;
        let prepared = write::prepare_update(context, &old, object.clone(), dry_run).await?;
        if let Some(outcome) = attempt.commit(context, settle(&old, prepared.object)).await? {
            if !dry_run {
                prepared.reserved.commit();
            }
            warnings.extend(prepared.warnings);
            return write::answer(context, StatusCode::OK, &outcome, &warnings);
        }
    }
}

fn may_create(context: &RequestContext<'_>) -> bool {
    context.handler.is_none() && context.resource.created_by_update
}

async fn create_by_update(
    context: &RequestContext<'_>,
    object: Value,
    dry_run: bool,
    mut warnings: Vec<String>,
) -> Answer {
    if object.name() != context.info.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            object.name(),
            context.info.name
        )));
    }
    if !object.uid().is_empty() || !matches!(object.resource_version(), "" | "0") {
        return Err(context.not_found());
    }
    let (outcome, said) = create::create_object(context, object, dry_run).await?;
    warnings.extend(said);
    write::answer(context, StatusCode::CREATED, &outcome, &warnings)
}

/// Put the new state, or, if an object that is being deleted has lost its last finalizer, remove it.
pub fn settle(old: &Value, new: Value) -> Step {
    if write::is_over(old, &new) { Step::Remove(new) } else { Step::Put(new) }
}
