//! Changes an object by a patch.

use http::header::CONTENT_TYPE;
use serde_json::Value;

use api::patch;
use api::schema::FieldValidation;
use api::status::ApiError;
use api::validate::FieldError;

use super::super::context::RequestContext;
use super::patch_flaws::flaws;
use super::write::{self, Admit, Decision, Write};
use super::{Answer, RequestBody, apply, update};

/// The patch formats there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Merge,
    Strategic,
}

const FORMATS: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    apply::MEDIA_TYPE,
];

/// A decoded patch.
pub struct Patch {
    format: Format,
    document: Value,
    /// What strict readers would not have of it.
    flaws: Vec<String>,
}

impl Patch {
    /// Reads a patch from the request; 415 for a format that there is not.
    pub fn read(body: &RequestBody<'_>) -> Result<Self, ApiError> {
        let format = match media_type(body) {
            "application/json-patch+json" => Format::Json,
            "application/merge-patch+json" => Format::Merge,
            "application/strategic-merge-patch+json" => Format::Strategic,
            _ => return Err(ApiError::unsupported_media_type(&FORMATS)),
        };
        let document: Value = serde_json::from_slice(&body.bytes)
            .map_err(|error| ApiError::bad_request(format!("error decoding patch: {error}")))?;
        let array = format == Format::Json;
        if document.is_array() != array || document.is_object() == array {
            let what = if array { "an array of operations" } else { "an object" };
            return Err(ApiError::bad_request(format!("error decoding patch: it is not {what}")));
        }
        let flaws = flaws(&body.bytes, array);
        Ok(Self { format, document, flaws })
    }

    /// The object that comes of it.
    pub fn apply(&self, context: &RequestContext<'_>, object: &Value) -> Result<Value, ApiError> {
        match self.format {
            Format::Json => patch::json(object, &self.document),
            Format::Merge => patch::merge(object, &self.document),
            Format::Strategic if context.schema()?.open => {
                let without = FORMATS.into_iter().filter(|format| !format.contains("strategic"));
                Err(ApiError::unsupported_media_type(&without.collect::<Vec<_>>()))
            }
            Format::Strategic => patch::strategic(object, &self.document, context.schema()?),
        }
    }
}

/// Whether a request applies a configuration.
pub fn applies(body: &RequestBody<'_>) -> bool {
    media_type(body) == apply::MEDIA_TYPE
}

/// The media type of a request's body.
fn media_type<'a>(body: &RequestBody<'a>) -> &'a str {
    let content_type = body.headers.get(CONTENT_TYPE).and_then(|header| header.to_str().ok());
    content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

/// What came of a patch, as an object of its kind, with what strict readers would not have of either. That it is none is what is
/// wrong with the patch.
fn completed(
    context: &RequestContext<'_>,
    patch: &Patch,
    patched: &Value,
) -> Result<(Value, Vec<String>), ApiError> {
    const STRICT: &str = "strict decoding error: ";
    let wrong = |why: String| {
        let error = FieldError::invalid("patch", patched.to_string(), why);
        ApiError::invalid("", "", "", vec![error])
    };
    let validation = context.field_validation()?;
    let flaws = if validation == FieldValidation::Ignore { &[] } else { &patch.flaws[..] };
    let strict = |more: Option<&str>| {
        let all: Vec<&str> = flaws.iter().map(String::as_str).chain(more).collect();
        wrong(format!("{STRICT}{}", all.join(", ")))
    };
    match context.complete(patched) {
        Ok(_) if validation == FieldValidation::Strict && !flaws.is_empty() => Err(strict(None)),
        Ok((object, warnings)) => Ok((object, flaws.iter().cloned().chain(warnings).collect())),
        Err(error) => Err(match error.message.split_once(STRICT) {
            Some((_, unknown)) => strict(Some(unknown)),
            // Asked again without strictness: what is no object of the kind at all.
            None if context.schema()?.convert(patched, FieldValidation::Ignore).is_err() => {
                wrong(error.message)
            }
            None => error,
        }),
    }
}

/// Changes an object, or what a subresource shows of it, by a patch. Without a `resourceVersion` in the patch, it is applied
/// to whatever stands when it is written.
pub async fn patch(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    context.check_single()?;
    if applies(body) {
        return apply::apply(context, body).await;
    }
    let dry_run = context.params.dry_run()?;
    if context.params.get("force").is_some() {
        let error = FieldError::forbidden("force", "may not be specified for non-apply patch");
        return Err(ApiError::invalid("meta.k8s.io", context.options_kind(), "", vec![error]));
    }
    let patch = Patch::read(body)?;
    let mut warnings = Vec::new();
    let write = Write { key: context.key(), admit: Admit::Object, tracks: true, fresh: false, dry_run };
    let written = write::write(context, write, |old| {
        let old = old.ok_or_else(|| context.not_found())?;
        let (new, said) = completed(context, &patch, &patch.apply(context, old)?)?;
        warnings = said;
        Ok(Decision::Put(update::successor(context, old, new)?))
    });
    let written = written.await?;
    write::answer(context, written, warnings)
}
