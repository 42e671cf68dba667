//! Server-side apply of an object.

use serde_json::Value;

use api::fields::{self, Applied, Applier, Writer};
use api::meta::{ObjectExt, format_time};
use api::resources::Part;
use api::status::ApiError;
use api::validate::FieldError;

use super::super::authz::Authorizer;
use super::super::context::RequestContext;
use super::super::rbac::Action;
use super::super::request::RequestInfo;
use super::write::{self, Admit, Decision, Write};
use super::{Answer, RequestBody, update};

/// What a server-side apply is sent as: YAML, of which JSON is a part.
pub const MEDIA_TYPE: &str = "application/apply-patch+yaml";

/// Applies the body: the fields that it has become its manager's, and what the manager no longer says goes. Creates the object if
/// nothing stands. Fails with 409 if others own what would change, unless `force` is set.
pub async fn apply(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    let dry_run = context.params.dry_run()?;
    let (config, warnings) = read(context, &body.bytes)?;
    let (manager, api_version, now) = who(context)?;
    let applier = applier(context, &manager, &api_version, &now);
    let may_create = may_create(context).await;
    let write = Write { key: context.key(), admit: Admit::Object, tracks: false, fresh: false, dry_run };
    let written = write::write(context, write, |old| {
        let Applied { object, managed } = fields::apply(&applier, old, &config)?;
        let (new, _) = context.complete(&object)?;
        let mut new = match old {
            Some(old) => update::successor(context, old, new)?,
            None if context.handler.is_some() => return Err(context.not_found()),
            None => {
                may_create.clone()?;
                first(context, new)?
            }
        };
        managed.write(&mut new);
        Ok(Decision::Put(new))
    });
    write::answer(context, written.await?, warnings)
}

/// The manager, version and time of an apply. Fails if the request does not say who applies.
pub fn who(context: &RequestContext<'_>) -> Result<(String, String, String), ApiError> {
    if context.params.text("fieldManager").is_none() {
        let error = FieldError::required("fieldManager", "is required for apply patch");
        return Err(ApiError::invalid("meta.k8s.io", context.options_kind(), "", vec![error]));
    }
    Ok((context.manager()?, context.resource.api_version(), format_time(context.engine.clock.now())))
}

/// Who applies what, and how.
pub fn applier<'a>(
    context: &'a RequestContext<'_>,
    manager: &'a str,
    api_version: &'a str,
    now: &'a str,
) -> Applier<'a> {
    let subresource = &context.info.subresource;
    Applier {
        writer: Writer { manager, api_version, subresource, now },
        force: context.params.flag("force"),
        types: context.types(),
    }
}

/// The configuration, without what its path does not apply, and what to warn of. It is kept as it was sent: what stands in it is
/// meant, even where it is empty.
pub fn read(context: &RequestContext<'_>, bytes: &[u8]) -> Result<(Value, Vec<String>), ApiError> {
    let bad = |why: String| ApiError::bad_request(format!("error decoding YAML: {why}"));
    let text = std::str::from_utf8(bytes).map_err(|error| bad(error.to_string()))?;
    let mut config: Value = serde_yaml::from_str(text).map_err(|error| bad(error.to_string()))?;
    if !config.is_object() {
        return Err(bad("it is not an object".to_owned()));
    }
    let kind = context.body_kind();
    let (said, expected) = (config.text("apiVersion").unwrap_or_default(), kind.api_version());
    if said != expected {
        return Err(ApiError::bad_request(format!(
            "Incorrect version specified in apply patch. Specified patch version: {said}, expected: {expected}"
        )));
    }
    if config.text("kind") != Some(kind.kind.as_ref()) {
        let said = config.text("kind").unwrap_or_default();
        return Err(ApiError::bad_request(format!(
            "Incorrect kind specified in apply patch. Specified patch kind: {said}, expected: {}",
            kind.kind
        )));
    }
    if config.meta().is_some_and(|meta| meta.contains_key("managedFields")) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let (_, warnings) = context.complete(&config)?;
    if let Some(map) = config.as_object_mut() {
        match context.part() {
            Some(Part::Status) => {
                map.retain(|key, _| matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
            }
            None if context.resource.has_status() && context.resource.strategy().resets_status() => {
                map.remove("status");
            }
            _ => {}
        }
    }
    Ok((config, warnings))
}

/// Who applies to nothing creates, and must be allowed to.
async fn may_create(context: &RequestContext<'_>) -> Result<(), ApiError> {
    let info = RequestInfo { verb: "create", ..context.info.clone() };
    let action = Action::from(&info);
    let decision = context.engine.authorizer.decide(context.user, &action).await;
    if decision.allowed { Ok(()) } else { Err(Authorizer::forbidden(context.user, &action, &decision)) }
}

/// The object of an apply that creates it.
fn first(context: &RequestContext<'_>, object: Value) -> Result<Value, ApiError> {
    if !object.uid().is_empty() {
        return Err(context.conflict(&format!(
            "uid mismatch: the provided object specified uid {}, and no existing object was found",
            object.uid()
        )));
    }
    update::first(context, object)
}
