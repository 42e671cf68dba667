use http::StatusCode;
use rand::RngExt as _;
use serde_json::Value;

use crate::api::meta::{ObjectExt, format_time};
use crate::api::status::ApiError;
use crate::controlplane::storage::StorageError;

use super::super::admission::Operation;
use super::super::context::RequestContext;
use super::write::{self, Outcome};
use super::{Answer, RequestBody};

/// How often a generated name that is taken is replaced by another.
const ATTEMPTS: usize = 8;
/// Letters and digits of generated names: no vowels, so that no words come out, and nothing that looks like another.
const LETTERS: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;
const LONGEST_BASE: usize = 63 - SUFFIX;

/// Creates the object in the body.
pub async fn create(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    if !context.info.name.is_empty() || (context.resource.namespaced && context.info.namespace.is_empty()) {
        return Err(ApiError::method_not_allowed());
    }
    let dry_run = context.params.dry_run()?;
    let (object, mut warnings) = context.decode(body)?;
    let (outcome, said) = create_object(context, object, dry_run).await?;
    warnings.extend(said);
    write::answer(context, StatusCode::CREATED, &outcome, &warnings)
}

/// Creates a decoded and defaulted object; under a generated name if it asks for one. Answers also what the client should know
/// about it.
pub async fn create_object(
    context: &RequestContext<'_>,
    mut object: Value,
    dry_run: bool,
) -> Result<Created, ApiError> {
    settle_metadata(context, &mut object)?;
    let generated = object.name().is_empty() && !object.generate_name().is_empty();
    if !generated {
        let name = object.name().to_owned();
        return match attempt(context, object, dry_run).await? {
            Some(outcome) => Ok(outcome),
            None => Err(ApiError::already_exists(&context.resource.group, &context.resource.plural, &name)),
        };
    }
    let mut name = String::new();
    for _ in 0..ATTEMPTS {
        let mut object = object.clone();
        name = generated_name(object.generate_name());
        object.meta_mut().insert("name".to_owned(), name.as_str().into());
        if let Some(outcome) = attempt(context, object, dry_run).await? {
            return Ok(outcome);
        }
    }
    Err(ApiError::generate_name_conflict(&context.resource.group, &context.resource.plural, &name))
}

type Created = (Outcome, Vec<String>);

/// One attempt; `None`: the name is taken.
async fn attempt(
    context: &RequestContext<'_>,
    mut object: Value,
    dry_run: bool,
) -> Result<Option<Created>, ApiError> {
    context.resource.prepare_create(&mut object);
    let prepared = write::admit(context, Operation::Create, object, None, dry_run).await?;
    let key = context.collection().key(&context.info.namespace, prepared.object.name());
    if dry_run {
        let taken = context.engine.store.get(&key).await?.is_some();
        return Ok((!taken).then_some((Outcome::Object(prepared.object), prepared.warnings)));
    }
    let payload = context.payload(prepared.object)?;
    match context.engine.store.create(key, payload).await {
        Ok(entry) => {
            prepared.reserved.commit();
            Ok(Some((Outcome::Stored(entry), prepared.warnings)))
        }
        Err(StorageError::Exists(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// What the server sets, and what the request's path says.
fn settle_metadata(context: &RequestContext<'_>, object: &mut Value) -> Result<(), ApiError> {
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
    for field in [
        "resourceVersion",
        "selfLink",
        "managedFields",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
    ] {
        meta.remove(field);
    }
    if context.resource.namespaced {
        meta.insert("namespace".to_owned(), context.info.namespace.as_str().into());
    } else {
        meta.remove("namespace");
    }
    meta.insert("uid".to_owned(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".to_owned(), now.into());
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
