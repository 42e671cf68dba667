use http::header::CONTENT_TYPE;
use serde_json::Value;

use crate::api::patch;
use crate::api::status::ApiError;

use super::super::context::RequestContext;
use super::write::{self, Admit, Decision, Write};
use super::{Answer, RequestBody, update};

/// The patch formats there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Json,
    Merge,
    Strategic,
}

const FORMATS: [&str; 3] =
    ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

/// A decoded patch.
pub struct Patch {
    format: Format,
    document: Value,
}

impl Patch {
    /// Reads a patch from the request; 415 for a format that there is not.
    pub fn read(body: &RequestBody<'_>) -> Result<Self, ApiError> {
        let content_type =
            body.headers.get(CONTENT_TYPE).and_then(|header| header.to_str().ok()).unwrap_or_default();
        let format = match content_type.split(';').next().unwrap_or_default().trim() {
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
        Ok(Self { format, document })
    }

    /// The object that comes of it.
    pub fn apply(&self, context: &RequestContext<'_>, object: &Value) -> Result<Value, ApiError> {
        match self.format {
            Format::Json => patch::json(object, &self.document),
            Format::Merge => patch::merge(object, &self.document),
            Format::Strategic => patch::strategic(object, &self.document, context.schema()?),
        }
    }
}

/// Changes an object, or what a subresource shows of it, by a patch. Without a `resourceVersion` in the patch, it is applied
/// to whatever stands when it is written.
pub async fn patch(context: &RequestContext<'_>, body: &RequestBody<'_>) -> Answer {
    context.check_single()?;
    let dry_run = context.params.dry_run()?;
    let patch = Patch::read(body)?;
    let mut warnings = Vec::new();
    let write = Write { key: context.key(), admit: Admit::Object, fresh: false, dry_run };
    let written = write::write(context, write, |old| {
        let old = old.ok_or_else(|| context.not_found())?;
        let (new, said) = context.complete(&patch.apply(context, old)?)?;
        warnings = said;
        Ok(Decision::Put(update::successor(context, old, new)?))
    });
    let written = written.await?;
    write::answer(context, written, warnings)
}
