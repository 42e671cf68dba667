//! Creates an object.

use rand::RngExt as _;
use serde_json::Value;

use api::meta::{ObjectExt, format_time};
use api::status::{ApiError, Reason};

use super::super::context::RequestContext;
use super::write::{self, Admit, Decision, Write, Written};
use super::{Answer, RequestBody};

/// How often a generated name that is taken is replaced by another.
const ATTEMPTS: usize = 8;
/// Letters and digits of generated names: no vowels, so that no words come out, and nothing that looks like another.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;
const LONGEST_BASE: usize = 63 - SUFFIX;

/// Creates the object in the body; under a generated name if it asks for one.
pub async fn create(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    if !context.info.name.is_empty() || (context.resource.namespaced && context.info.namespace.is_empty()) {
        return Err(ApiError::method_not_allowed());
    }
    let dry_run = context.params.dry_run()?;
    let (mut object, warnings) = context.decode(body)?;
    settle(context, &mut object)?;
    let written = if object.name().is_empty() && !object.generate_name().is_empty() {
        create_generated(context, &object, dry_run).await?
    } else {
        create_named(context, object, dry_run).await?
    };
    write::answer(context, written, warnings)
}

async fn create_named(
    context: &RequestContext<'_>,
    object: Value,
    dry_run: bool,
) -> Result<Written, ApiError> {
    let key = context.collection().key(&context.info.namespace, object.name());
    let name = object.name().to_owned();
    let mut object = Some(object);
    // Decided twice only where another server may be first with an address that was given out.
    let once = context.engine.store.alone();
    let write = Write { key, admit: Admit::Object, tracks: true, fresh: true, dry_run };
    write::write(context, write, |old| match (old, if once { object.take() } else { object.clone() }) {
        (None, Some(object)) => Ok(Decision::Put(object)),
        _ => Err(ApiError::already_exists(&context.resource.group, &context.resource.plural, &name)),
    })
    .await
}

/// Tries names until one is free.
async fn create_generated(
    context: &RequestContext<'_>,
    object: &Value,
    dry_run: bool,
) -> Result<Written, ApiError> {
    let mut name = String::new();
    for _ in 0..ATTEMPTS {
        let mut object = object.clone();
        name = generated_name(object.generate_name());
        object.meta_mut().insert("name".to_owned(), name.as_str().into());
        match create_named(context, object, dry_run).await {
            Err(ApiError { reason: Reason::AlreadyExists, .. }) => {}
            done => return done,
        }
    }
    Err(ApiError::generate_name_conflict(&context.resource.group, &context.resource.plural, &name))
}

/// Makes a defaulted object one that may be created: sets what the server sets and what the path says, runs the strategy. Fails if
/// the object says that it is somewhere else, or that it stands already.
pub fn settle(context: &RequestContext<'_>, object: &mut Value) -> Result<(), ApiError> {
    if !object.resource_version().is_empty() && object.resource_version() != "0" {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let namespace = object.namespace();
    if context.resource.namespaced && !namespace.is_empty() && namespace != context.info.namespace {
        return Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    let now = format_time(context.engine.clock.now());
    let meta = object.meta_mut();
    for field in
        ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"]
    {
        meta.remove(field);
    }
    if context.resource.namespaced {
        meta.insert("namespace".to_owned(), context.info.namespace.as_str().into());
    } else {
        meta.remove("namespace");
    }
    meta.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".to_owned(), now.into());
    context.resource.prepare_create(object);
    Ok(())
}

fn generated_name(base: &str) -> String {
    let mut end = base.len().min(LONGEST_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    let mut random = rand::rng();
    name.extend((0..SUFFIX).map(|_| char::from(LETTERS[random.random_range(0..LETTERS.len())])));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_fit_a_label() {
        let name = generated_name("web-");
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert_eq!(generated_name(&"a".repeat(200)).len(), 63);
    }
}
