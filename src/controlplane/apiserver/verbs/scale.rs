//! Reads and writes the Scale of an object.

use std::sync::{Arc, LazyLock};

use http::StatusCode;
use serde_json::{Map, Value, json};

use api::fields::{self, Applied};
use api::meta::ObjectExt;
use api::resources::{Resource, ScalePaths};
use api::status::ApiError;
use api::table::workloads;
use api::validate::FieldError;

use super::super::context::RequestContext;
use super::super::{projection, wire};
use super::patch::{self, Patch};
use super::write::{self, Admit, Decision, Outcome, Write};
use super::{Answer, RequestBody, apply, update};

/// Reads or writes the Scale of an object.
pub async fn run(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    match context.info.verb {
        "get" => get(context).await,
        "update" => update(context, body).await,
        "patch" => patch(context, body).await,
        _ => Err(super::not_supported(context)),
    }
}

/// Answers the Scale of an object.
async fn get(context: &RequestContext<'_>) -> Answer {
    context.check_single()?;
    let paths = &context.resource.scale_paths;
    let entry = context.stored().await?;
    let entry = context.converted(entry).await?;
    answer(context, &scale_of(&context.read(&entry)?, paths))
}

/// The row of Scales: they are nobody's own objects, and shown as objects are.
static SCALES: LazyLock<Arc<Resource>> = LazyLock::new(|| {
    Arc::new(Resource::namespaced(("autoscaling", "v1"), "Scale", "scales").printer(&workloads::SCALES))
});

/// Answers a Scale in the media type that was asked for.
fn answer(context: &RequestContext<'_>, scale: &Value) -> Answer {
    let encoder = context.encoder_of(&SCALES);
    Ok(wire::raw(StatusCode::OK, encoder.content_type(), encoder.object(scale)?))
}

/// Replaces the Scale: the replicas are all that can change.
async fn update(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    let (scale, warnings) = context.decode(body)?;
    rescale(context, &warnings, |_| Ok(scale.clone())).await
}

/// Patches the Scale.
async fn patch(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    if patch::applies(body) {
        return apply(context, body).await;
    }
    let patch = Patch::read(body)?;
    let wanted = |scale: &Value| Ok(context.complete(&patch.apply(context, scale)?)?.0);
    rescale(context, &[], wanted).await
}

/// Applies a Scale: the replicas become the applier's, of the object itself.
async fn apply(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    let (scale, warnings) = apply::read(context, &body.bytes)?;
    check(&scale)?;
    let (manager, api_version, now) = apply::who(context)?;
    let applier = apply::applier(context, &manager, &api_version, &now);
    let paths = &context.resource.scale_paths;
    let config = configuration(context, &scale, paths);
    respond(context, &warnings, false, |old| {
        let Applied { mut object, managed } = fields::apply(&applier, Some(old), &config)?;
        // Who no longer says how many leaves it to the default.
        context.resource.default(&mut object);
        let mut new = update::successor(context, old, object)?;
        managed.write(&mut new);
        Ok(new)
    })
    .await
}

/// What a Scale that is applied says of the object.
fn configuration(context: &RequestContext<'_>, scale: &Value, paths: &ScalePaths) -> Value {
    let mut meta = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        if let Some(value) = scale.meta().and_then(|meta| meta.get(field)) {
            meta.insert(field.to_owned(), value.clone());
        }
    }
    let (kind, version) = (&context.resource.kind, context.resource.api_version());
    let mut config = json!({"apiVersion": version, "kind": kind, "metadata": meta});
    if let Some(replicas) = scale.pointer("/spec/replicas") {
        projection::put(&mut config, &paths.replicas, Some(replicas.clone()));
    }
    config
}

async fn rescale(
    context: &RequestContext<'_>,
    warnings: &[String],
    mut wanted: impl FnMut(&Value) -> Result<Value, ApiError> + Send,
) -> Answer {
    let paths = &context.resource.scale_paths;
    respond(context, warnings, true, |old| {
        let new = scaled(old, &wanted(&scale_of(old, paths))?, paths)?;
        update::check_uid(context, old, &new)?;
        update::successor(context, old, new)
    })
    .await
}

/// Writes what is made of the object that stands, and answers its Scale. `tracks`: see [`Write`].
async fn respond(
    context: &RequestContext<'_>,
    warnings: &[String],
    tracks: bool,
    mut make: impl FnMut(&Value) -> Result<Value, ApiError> + Send,
) -> Answer {
    context.check_single()?;
    let dry_run = context.params.dry_run()?;
    let paths = &context.resource.scale_paths;
    let write = Write { key: context.key(), admit: Admit::Object, tracks, fresh: false, dry_run };
    let written =
        write::write(context, write, |old| make(old.ok_or_else(|| context.not_found())?).map(Decision::Put));
    let (Outcome::Created(shown) | Outcome::Stands(shown) | Outcome::Removed(shown)) = written.await?.outcome;
    let mut response = answer(context, &scale_of(&shown.object(context)?, paths))?;
    wire::warn(&mut response, warnings);
    Ok(response)
}

/// The object with the replicas of a Scale, and with what the Scale says about which object it is meant for.
fn scaled(old: &Value, scale: &Value, paths: &ScalePaths) -> Result<Value, ApiError> {
    check(scale)?;
    let mut new = old.clone();
    let replicas = scale.int_at("/spec/replicas").unwrap_or(0).into();
    projection::put(&mut new, &paths.replicas, Some(replicas));
    for field in ["resourceVersion", "uid", "name", "namespace"] {
        let said = scale.meta().and_then(|meta| meta.get(field)).and_then(Value::as_str).unwrap_or_default();
        if !said.is_empty() {
            new.meta_mut().insert(field.to_owned(), said.into());
        }
    }
    Ok(new)
}

fn check(scale: &Value) -> Result<(), ApiError> {
    let replicas = scale.int_at("/spec/replicas").unwrap_or(0);
    if replicas >= 0 {
        return Ok(());
    }
    let error = FieldError::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
    Err(ApiError::invalid("autoscaling", "Scale", scale.name(), vec![error]))
}

/// The autoscaling/v1 Scale of an object with replicas.
fn scale_of(object: &Value, paths: &ScalePaths) -> Value {
    let mut meta = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.meta().and_then(|meta| meta.get(field)) {
            meta.insert(field.to_owned(), value.clone());
        }
    }
    let mut status = json!({"replicas": object.int_at(&paths.status_replicas).unwrap_or(0)});
    let selector = paths.selector.as_ref().and_then(|at| object.pointer(at)).unwrap_or(&Value::Null);
    let selector = match paths.selector_is_text {
        true => selector.as_str().unwrap_or_default().to_owned(),
        false => selector_text(selector),
    };
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": object.int_at(&paths.replicas).unwrap_or(0)},
        "status": status,
    })
}

/// A selector as query strings write it. ReplicationControllers have a plain map, the others a LabelSelector.
fn selector_text(selector: &Value) -> String {
    let labels = match selector.get("matchLabels") {
        Some(labels) => labels.as_object(),
        None if selector.get("matchExpressions").is_some() => None,
        None => selector.as_object(),
    };
    let mut terms: Vec<String> = labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some(format!("{key}={}", value.as_str()?)))
        .collect();
    for expression in selector.array_at("/matchExpressions") {
        let key = expression.text("key").unwrap_or_default();
        let values: Vec<&str> = expression.array_at("/values").iter().filter_map(Value::as_str).collect();
        let values = values.join(",");
        match expression.text("operator") {
            Some("In") => terms.push(format!("{key} in ({values})")),
            Some("NotIn") => terms.push(format!("{key} notin ({values})")),
            Some("Exists") => terms.push(key.to_owned()),
            Some("DoesNotExist") => terms.push(format!("!{key}")),
            _ => {}
        }
    }
    terms.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_says_what_autoscalers_ask() {
        let object = json!({
            "metadata": {"name": "a", "namespace": "b", "uid": "u", "labels": {"x": "y"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}, "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]}]}},
            "status": {"replicas": 2},
        });
        let scale = scale_of(&object, &ScalePaths::BUILTIN);
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        assert_eq!(scale["status"], json!({"replicas": 2, "selector": "app=web,tier in (a,b)"}));
        assert_eq!(scale["metadata"], json!({"name": "a", "namespace": "b", "uid": "u"}));
        assert_eq!(selector_text(&json!({"app": "x"})), "app=x");
    }
}
