use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::Value;

use crate::api::meta::ObjectExt;
use crate::api::status::ApiError;
use crate::controlplane::storage::{Entry, StorageError};

use super::super::admission::{Admitted, Operation};
use super::super::allocate::Hold;
use super::super::context::RequestContext;
use super::super::{convert, projection, wire};

/// How a write ended.
pub enum Outcome {
    /// The state that stands in storage.
    Stored(Arc<Entry>),
    /// An object that is not (or no longer) in storage: of a dry run, or removed by the write.
    Object(Value),
}

/// What one attempt of a write wants.
pub enum Step {
    Put(Value),
    /// Remove it; the client is shown this.
    Remove(Value),
}

/// A write to one key that is tried until its decision is about the very state that it is written over. Each further round
/// means that another writer has succeeded, so there is no bound on them.
pub struct Attempt {
    key: String,
    dry_run: bool,
    current: Option<Arc<Entry>>,
}

impl Attempt {
    /// Reads the state that stands.
    pub async fn begin(context: &RequestContext<'_>, key: String, dry_run: bool) -> Result<Self, ApiError> {
        let current = context.engine.store.get(&key).await?;
        Ok(Self { key, dry_run, current })
    }

    /// The object that stands, in the request's version; 404 if there is none.
    pub fn standing(&self, context: &RequestContext<'_>) -> Result<Value, ApiError> {
        let entry = self.current.as_ref().ok_or_else(|| context.not_found())?;
        convert::read(context.resource, &entry.data)
    }

    /// Takes a decision about the state that stands to storage. `None`: somebody else was first; decide again. A dry run writes
    /// nothing, and so does what would change nothing.
    pub async fn commit(
        &mut self,
        context: &RequestContext<'_>,
        step: Step,
    ) -> Result<Option<Outcome>, ApiError> {
        let Some(seen) = &self.current else { return Err(context.not_found()) };
        let store = context.engine.store.as_ref();
        let written = match step {
            Step::Put(object) | Step::Remove(object) if self.dry_run => {
                return Ok(Some(Outcome::Object(object)));
            }
            Step::Put(object) => {
                let payload = context.payload(object)?;
                if unchanged(seen, &payload.data, payload.revision_at) {
                    return Ok(Some(Outcome::Stored(seen.clone())));
                }
                store.update_if(self.key.clone(), seen.revision, payload).await.map(Outcome::Stored)
            }
            Step::Remove(object) => {
                store.delete_if(self.key.clone(), seen.revision).await.map(|_| Outcome::Object(object))
            }
        };
        match written {
            Ok(outcome) => Ok(Some(outcome)),
            Err(StorageError::Conflict(standing)) => {
                self.current = standing;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// An object that may be written, and what is reserved for it meanwhile.
pub struct Prepared {
    pub object: Value,
    /// What the client should know about it.
    pub warnings: Vec<String>,
    pub reserved: Reserved,
}

/// Addresses, ports and quota that admission holds for a write; given back when this is dropped without [`Reserved::commit`].
pub struct Reserved {
    hold: Hold,
    _admitted: Admitted,
}

impl Reserved {
    /// The write is durable.
    pub fn commit(self) {
        self.hold.commit();
    }
}

/// Runs an object through admission and validation.
pub async fn admit(
    context: &RequestContext<'_>,
    operation: Operation,
    object: Value,
    old: Option<&Value>,
    dry_run: bool,
) -> Result<Prepared, ApiError> {
    let mut attributes = context.attributes(operation, Some(object), old, dry_run);
    let hold = context.engine.admission.mutate(&mut attributes).await?;
    let object = attributes.object.as_ref().ok_or_else(|| ApiError::internal("admission lost the object"))?;
    let errors = context.validate(object, old);
    if !errors.is_empty() {
        return Err(context.invalid(object.name(), errors));
    }
    let warnings = match context.handler {
        None => context.resource.strategy().warnings(object, old),
        Some(_) => Vec::new(),
    };
    let admitted = context.engine.admission.validate(&attributes).await?;
    let object = attributes.object.take().ok_or_else(|| ApiError::internal("admission lost the object"))?;
    Ok(Prepared { object, warnings, reserved: Reserved { hold, _admitted: admitted } })
}

/// Whether the encoded object says what is stored, the revision aside.
fn unchanged(entry: &Entry, data: &[u8], revision_at: Option<usize>) -> bool {
    match (&entry.revision_span, revision_at) {
        (Some(span), Some(at)) => {
            span.start == at && entry.data[..at] == data[..at] && entry.data[span.end..] == data[at..]
        }
        _ => false,
    }
}

/// Answers a write's outcome.
pub fn answer(
    context: &RequestContext<'_>,
    code: StatusCode,
    outcome: &Outcome,
    warnings: &[String],
) -> Result<Response<Body>, ApiError> {
    let mut response = match outcome {
        Outcome::Stored(entry) => context.answer_entry(code, entry)?,
        Outcome::Object(object) => context.answer_object(code, object)?,
    };
    wire::warn(&mut response, warnings);
    Ok(response)
}

/// Makes `new` what may replace `old`: checks preconditions, carries over what only the server sets, runs the strategy and
/// admission. Both are in the request's version.
pub async fn prepare_update(
    context: &RequestContext<'_>,
    old: &Value,
    mut new: Value,
    dry_run: bool,
) -> Result<Prepared, ApiError> {
    check_names(context, &mut new)?;
    check_preconditions(context, old, &new)?;
    carry_over(old, &mut new);
    projection::apply(context.resource, context.part(), &mut new, old);
    admit(context, Operation::Update, new, Some(old), dry_run).await
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

/// A `uid` or `resourceVersion` in the object says which state it is meant to replace.
fn check_preconditions(context: &RequestContext<'_>, old: &Value, new: &Value) -> Result<(), ApiError> {
    let version = new.resource_version();
    if !version.is_empty() && version != "0" && version != old.resource_version() {
        return Err(context.modified());
    }
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
    const FIXED: [&str; 6] = [
        "resourceVersion",
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ];
    let meta = new.meta_mut();
    meta.remove("selfLink");
    meta.remove("managedFields");
    for field in FIXED {
        match old.meta().and_then(|meta| meta.get(field)) {
            Some(value) => meta.insert(field.to_owned(), value.clone()),
            None => meta.remove(field),
        };
    }
}

/// Whether an update that leaves `new` leaves nothing to keep: the object is being deleted, and the last finalizer has gone.
pub fn is_over(old: &Value, new: &Value) -> bool {
    old.deletion_timestamp().is_some()
        && new.finalizers().next().is_none()
        && new.array_at("/spec/finalizers").is_empty()
        && old.deletion_grace_period_seconds().unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_server_sets_what_it_set() {
        let old = json!({"metadata": {"name": "a", "uid": "u", "creationTimestamp": "t", "generation": 3}});
        let mut new = json!({"metadata": {"name": "a", "uid": "other", "deletionTimestamp": "now", "managedFields": []}});
        carry_over(&old, &mut new);
        assert_eq!(new, old);
    }

    #[test]
    fn an_object_is_over_when_the_last_finalizer_goes() {
        let check = |old: Value, new: Value, expect| assert_eq!(is_over(&old, &new), expect, "{old} {new}");
        let deleted = json!({"metadata": {"deletionTimestamp": "t", "deletionGracePeriodSeconds": 0}});
        check(json!({}), json!({}), false);
        check(deleted.clone(), json!({}), true);
        check(deleted.clone(), json!({"metadata": {"finalizers": ["a"]}}), false);
        check(deleted, json!({"spec": {"finalizers": ["kubernetes"]}}), false);
        let graceful = json!({"metadata": {"deletionTimestamp": "t", "deletionGracePeriodSeconds": 30}});
        check(graceful, json!({}), false);
    }
}
