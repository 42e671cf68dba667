//! Replaces an object.

use serde_json::Value;

use api::meta::{ObjectExt, format_time};
use api::status::ApiError;
use api::validate::FieldError;

use super::super::context::RequestContext;
use super::super::projection;
use super::write::{self, Admit, Decision, Write};
use super::{Answer, RequestBody, create};

/// Replaces an object, or what a subresource shows of it, by the body.
pub async fn update(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    context.check_single()?;
    let dry_run = context.params.dry_run()?;
    let (object, warnings) = context.decode(body)?;
    let write = Write { key: context.key(), admit: Admit::Object, tracks: true, fresh: false, dry_run };
    let written = write::write(context, write, |old| match old {
        Some(old) => {
            let new = successor(context, old, object.clone())?;
            check_uid(context, old, &new)?;
            Ok(Decision::Put(new))
        }
        None if creates(context) => first(context, object.clone()).map(Decision::Put),
        None => Err(context.not_found()),
    });
    write::answer(context, written.await?, warnings)
}

fn creates(context: &RequestContext<'_>) -> bool {
    context.handler.is_none() && context.resource.created_by_update
}

/// The object of an update that creates it.
pub fn first(context: &RequestContext<'_>, mut object: Value) -> Result<Value, ApiError> {
    check_names(context, &mut object)?;
    if !object.uid().is_empty() || !matches!(object.resource_version(), "" | "0") {
        return Err(context.not_found());
    }
    create::settle(context, &mut object)?;
    Ok(object)
}

/// Makes `new` what may replace `old`: checks preconditions, carries over what only the server sets, runs the strategy. Both are
/// in the request's version. Fails if the object is not the one that the URL names, or not the one that `new` is meant to replace.
pub fn successor(context: &RequestContext<'_>, old: &Value, mut new: Value) -> Result<Value, ApiError> {
    check_names(context, &mut new)?;
    check_preconditions(context, old, &new)?;
    let managers = new.meta_mut().remove("managedFields");
    carry_over(old, &mut new);
    projection::apply(context.resource, context.part(), &mut new, old);
    if context.part().is_some() {
        context.resource.strategy().stamp(&mut new, old, &format_time(context.engine.clock.now()));
    }
    if let Some(managers) = managers {
        new.meta_mut().insert("managedFields".to_owned(), managers);
    }
    Ok(new)
}

/// The object must be the one that the URL names.
fn check_names(context: &RequestContext<'_>, new: &mut Value) -> Result<(), ApiError> {
    let (name, namespace) = (new.name(), new.namespace());
    if name.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            context.info.name
        )));
    }
    if name != context.info.name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            context.info.name
        )));
    }
    if !context.resource.namespaced {
        new.meta_mut().remove("namespace");
        return Ok(());
    }
    if namespace.is_empty() {
        new.meta_mut().insert("namespace".to_owned(), context.info.namespace.as_str().into());
        return Ok(());
    }
    if namespace != context.info.namespace {
        return Err(ApiError::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            context.info.namespace
        )));
    }
    Ok(())
}

/// A `resourceVersion` in the object says which state it is meant to replace.
fn check_preconditions(context: &RequestContext<'_>, old: &Value, new: &Value) -> Result<(), ApiError> {
    let version = new.resource_version();
    if matches!(version, "" | "0") && context.resource.conditional_update {
        let why = "must be specified for an update";
        let error = FieldError::invalid("metadata.resourceVersion", 0, why);
        return Err(context.invalid(new.name(), vec![error]));
    }
    if !version.is_empty() && version != "0" && version != old.resource_version() {
        return Err(context.modified());
    }
    Ok(())
}

/// A `uid` in what replaces an object says which one is meant. One in a patch would change it, which validation refuses.
pub fn check_uid(context: &RequestContext<'_>, old: &Value, new: &Value) -> Result<(), ApiError> {
    let uid = new.uid();
    if !uid.is_empty() && uid != old.uid() {
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: {}, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: \
             UID in precondition: {uid}, UID in object meta: {}",
            context.key(),
            old.uid()
        );
        return Err(context.conflict(&why));
    }
    Ok(())
}

/// What clients may leave out, or may not change.
fn carry_over(old: &Value, new: &mut Value) {
    const FIXED: [&str; 3] = ["resourceVersion", "creationTimestamp", "generation"];
    let meta = new.meta_mut();
    meta.remove("selfLink");
    meta.remove("managedFields");
    for field in FIXED {
        match old.meta().and_then(|meta| meta.get(field)) {
            Some(value) => meta.insert(field.to_owned(), value.clone()),
            None => meta.remove(field),
        };
    }
    // Who says another uid in a patch is refused by validation.
    if let Some(uid) = old.meta().and_then(|meta| meta.get("uid")) {
        let said = meta.entry("uid").or_insert(Value::Null);
        if said.as_str().is_none_or(str::is_empty) {
            *said = uid.clone();
        }
    }
    // That an object is being deleted does not go away. Who says it of one that is not is refused by validation.
    let standing = |field: &str| old.meta().and_then(|meta| meta.get(field)).cloned();
    if let Some(then) = standing("deletionTimestamp") {
        meta.insert("deletionTimestamp".to_owned(), then);
    }
    if let Some(grace) = standing("deletionGracePeriodSeconds") {
        meta.entry("deletionGracePeriodSeconds").or_insert(grace);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_server_sets_what_it_set() {
        let old = json!({"metadata": {"name": "a", "uid": "u", "creationTimestamp": "t", "generation": 3}});
        let mut new = json!({"metadata": {"name": "a", "generation": 7, "managedFields": []}});
        carry_over(&old, &mut new);
        assert_eq!(new, old);
    }
}
