//! The one way in which objects are written.
//!
//! ```text
//! read -> decide (pure) -> admit -> own fields -> validate -> encode -> compare and swap -> settle reservations
//!   ^                                                                          |
//!   '----------------------- somebody else was first -------------------------'
//! ```

use std::sync::Arc;

use axum::body::Body;
use http::{Response, StatusCode};
use serde_json::Value;

use api::meta::ObjectExt;
use api::resources::Verdict;
use api::status::ApiError;
use storage::{Entry, Payload, StorageError, Store, Turn};

use super::super::admission::Operation;
use super::super::context::{RequestContext, from_storage};
use super::super::reservation::Reservations;
use super::super::wire;

/// What a write makes of the state that stands.
pub enum Decision {
    /// This is to stand.
    Put(Value),
    /// Nothing is to stand. The client is shown this, or the last state.
    Remove(Option<Value>),
    /// What stands is as it should be.
    Keep,
}

/// What admission sees of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admit {
    /// The object that is to stand, as created or updated.
    Object,
    /// The object that is to be deleted.
    Deletion,
    /// Nothing: what was asked for is another object, and that one was admitted.
    Nothing,
}

/// A write to one key.
pub struct Write {
    pub key: String,
    pub admit: Admit,
    /// Whether the fields that change become the writer's; else the decision says whose they are.
    pub tracks: bool,
    /// Whether most likely nothing stands, so that reading first would be in vain.
    pub fresh: bool,
    pub dry_run: bool,
}

/// How a write ended.
pub struct Written {
    pub outcome: Outcome,
    /// What the client should know about it.
    pub warnings: Vec<String>,
}

pub enum Outcome {
    Created(Shown),
    /// Replaced, or left as it was.
    Stands(Shown),
    Removed(Shown),
}

/// What a client is shown of a written object.
pub enum Shown {
    Entry(Arc<Entry>),
    /// An object that is not in storage: of a dry run, or removed by the write.
    Object(Value),
}

impl Shown {
    /// In the request's version.
    async fn converted(self, context: &RequestContext<'_>) -> Result<Self, ApiError> {
        Ok(match self {
            Self::Entry(entry) => Self::Entry(context.converted(entry).await?),
            object @ Self::Object(_) => object,
        })
    }

    /// The object, in the request's version.
    pub fn object(self, context: &RequestContext<'_>) -> Result<Value, ApiError> {
        match self {
            Self::Entry(entry) => context.read(&entry),
            Self::Object(object) => Ok(object),
        }
    }
}

/// An object that was admitted, and what is held for it.
struct Admitted {
    decision: Decision,
    warnings: Vec<String>,
    reservations: Reservations,
}

/// Writes what `decide` makes of the state that stands (`None`: nothing does), in the request's version. `decide` is asked again
/// whenever somebody else wrote in between, so it must decide from its argument alone. There is no bound on the rounds and none is
/// needed: each further one means that another writer has succeeded. Fails as `decide`, admission, validation and storage do.
pub async fn write(
    context: &RequestContext<'_>,
    write: Write,
    mut decide: impl FnMut(Option<&Value>) -> Result<Decision, ApiError> + Send,
) -> Result<Written, ApiError> {
    let store = &context.engine.store;
    let mut current = write.dry_run || write.fresh || store.alone();
    let mut seen = match current {
        _ if write.fresh && !write.dry_run => None,
        true => store.get(&write.key).await.map_err(from_storage)?,
        // What this server saw last will do for a proposal: storage says if something else stands.
        false => store.seen(&write.key),
    };
    loop {
        let tried = attempt(context, &write, &mut decide, seen.as_ref()).await;
        if !current && !matches!(tried, Ok((Proposed::Write(_), ..))) {
            current = true;
            let now = store.get(&write.key).await.map_err(from_storage)?;
            let revision = |entry: &Option<Arc<Entry>>| entry.as_ref().map(|entry| entry.revision);
            if revision(&now) != revision(&seen) {
                seen = now;
                continue;
            }
        }
        let (proposed, warnings, reservations) = tried?;
        let outcome = match proposed {
            Proposed::Done(outcome) => outcome,
            Proposed::Write(proposal) => {
                match commit(context, write.key.clone(), proposal, reservations).await? {
                    Ok(outcome) => outcome,
                    Err(standing) => {
                        seen = standing;
                        continue;
                    }
                }
            }
        };
        let outcome = if write.dry_run { outcome } else { converted(context, outcome).await? };
        return Ok(Written { outcome, warnings });
    }
}

/// One round up to what is proposed to storage: with what there is to say about it, and what is held for it.
async fn attempt(
    context: &RequestContext<'_>,
    write: &Write,
    decide: &mut (impl FnMut(Option<&Value>) -> Result<Decision, ApiError> + Send),
    seen: Option<&Arc<Entry>>,
) -> Result<(Proposed, Vec<String>, Reservations), ApiError> {
    let old = match seen {
        Some(entry) => {
            let entry = context.converted(entry.clone()).await?;
            Some(context.read(&entry)?)
        }
        None => None,
    };
    let decision = decide(old.as_ref())?;
    let Admitted { decision, warnings, reservations } = admit(context, write, decision, old.as_ref()).await?;
    let proposed = match write.dry_run {
        true => Proposed::Done(imagined(decision, old).ok_or_else(|| context.not_found())?),
        false => propose(context, stored(context, decision).await?, seen, reservations.turn())?,
    };
    Ok((proposed, warnings, reservations))
}

/// What is to stand, in the version that is stored.
async fn stored(context: &RequestContext<'_>, decision: Decision) -> Result<Decision, ApiError> {
    Ok(match decision {
        Decision::Put(object) => {
            Decision::Put(context.engine.converter.stored(context.resource, object).await?)
        }
        other => other,
    })
}

/// How a write ended, in the request's version.
async fn converted(context: &RequestContext<'_>, outcome: Outcome) -> Result<Outcome, ApiError> {
    Ok(match outcome {
        Outcome::Created(shown) => Outcome::Created(shown.converted(context).await?),
        Outcome::Stands(shown) => Outcome::Stands(shown.converted(context).await?),
        Outcome::Removed(shown) => Outcome::Removed(shown.converted(context).await?),
    })
}

/// Runs what is to stand through admission and validation.
async fn admit(
    context: &RequestContext<'_>,
    write: &Write,
    decision: Decision,
    old: Option<&Value>,
) -> Result<Admitted, ApiError> {
    let nothing =
        |decision| Admitted { decision, warnings: Vec::new(), reservations: Reservations::default() };
    let admission = &context.engine.admission;
    let object = match (write.admit, decision) {
        (Admit::Nothing, decision) => return Ok(nothing(decision)),
        (Admit::Deletion, decision) => {
            let mut admitted = nothing(decision);
            let attributes = context.attributes(Operation::Delete, None, old, write.dry_run);
            admission.validate(&attributes, &mut admitted.reservations).await?;
            admitted.warnings.extend(attributes.warnings.take());
            return Ok(admitted);
        }
        (Admit::Object, Decision::Put(object)) => object,
        (Admit::Object, decision) => return Ok(nothing(decision)),
    };
    let operation = if old.is_some() { Operation::Update } else { Operation::Create };
    let mut attributes = context.attributes(operation, Some(object), old, write.dry_run);
    let mut reservations = admission.mutate(&mut attributes).await?;
    let object = attributes.object.as_mut().ok_or_else(|| ApiError::internal("admission lost the object"))?;
    if old.is_none() {
        context.resource.admitted(object);
    }
    if write.tracks {
        context.track(old, object)?;
    }
    let object = &*object;
    let Verdict { errors, mut warnings } = context.judge(object, old);
    if !errors.is_empty() {
        return Err(context.invalid(object.name(), errors));
    }
    admission.validate(&attributes, &mut reservations).await?;
    warnings.extend(attributes.warnings.take());
    let object = attributes.object.take().ok_or_else(|| ApiError::internal("admission lost the object"))?;
    // An object that is being deleted goes with its last finalizer.
    let over = old.is_some_and(|old| is_over(old, &object, context.resource.waits_for_content()));
    let decision = if over { Decision::Remove(Some(object)) } else { Decision::Put(object) };
    Ok(Admitted { decision, warnings, reservations })
}

/// How a dry run would have ended; `None`: there is nothing to remove or keep.
fn imagined(decision: Decision, old: Option<Value>) -> Option<Outcome> {
    Some(match (decision, old) {
        (Decision::Put(object), None) => Outcome::Created(Shown::Object(object)),
        (Decision::Put(object), Some(_)) => Outcome::Stands(Shown::Object(object)),
        (Decision::Remove(Some(object)), _) => Outcome::Removed(Shown::Object(object)),
        (Decision::Remove(None), old) => Outcome::Removed(Shown::Object(old?)),
        (Decision::Keep, old) => Outcome::Stands(Shown::Object(old?)),
    })
}

/// A write as storage takes it.
enum Proposal {
    Create(Payload),
    Update { seen: u64, payload: Payload },
    Delete { seen: u64, shown: Option<Value> },
}

enum Proposed {
    Write(Proposal),
    /// There is nothing to write.
    Done(Outcome),
}

/// Encodes a decision. What would change nothing is not written.
fn propose(
    context: &RequestContext<'_>,
    decision: Decision,
    seen: Option<&Arc<Entry>>,
    turn: Option<Turn>,
) -> Result<Proposed, ApiError> {
    let payload = |object| Ok::<_, ApiError>(Payload { turn, ..context.payload(object)? });
    Ok(match (decision, seen) {
        (Decision::Put(object), None) => Proposed::Write(Proposal::Create(payload(object)?)),
        (Decision::Put(object), Some(entry)) => {
            let payload = payload(object)?;
            if unchanged(entry, &payload.data, payload.revision_at) {
                return Ok(Proposed::Done(Outcome::Stands(Shown::Entry(entry.clone()))));
            }
            Proposed::Write(Proposal::Update { seen: entry.revision, payload })
        }
        (Decision::Remove(shown), Some(entry)) => {
            Proposed::Write(Proposal::Delete { seen: entry.revision, shown })
        }
        (Decision::Keep, Some(entry)) => Proposed::Done(Outcome::Stands(Shown::Entry(entry.clone()))),
        (Decision::Remove(_) | Decision::Keep, None) => return Err(context.not_found()),
    })
}

/// Takes a proposal to storage. The inner error is the state that stands instead of the one that was seen.
///
/// What is reserved is settled by the outcome of the commit, whatever becomes of the request: its client may go, or its deadline
/// pass, while the write is on its way to the disk.
async fn commit(
    context: &RequestContext<'_>,
    key: String,
    proposal: Proposal,
    reservations: Reservations,
) -> Result<Result<Outcome, Option<Arc<Entry>>>, ApiError> {
    let store = context.engine.store.clone();
    let done = if reservations.is_empty() {
        carry_out(store.as_ref(), key.clone(), proposal).await
    } else {
        let key = key.clone();
        let settled = context.engine.tasks.spawn(async move {
            let done = carry_out(store.as_ref(), key, proposal).await;
            if done.is_ok() {
                reservations.commit();
            }
            done
        });
        settled.await.map_err(ApiError::internal)?
    };
    match done {
        Ok(outcome) => Ok(Ok(outcome)),
        Err(StorageError::Conflict(standing)) => Ok(Err(standing)),
        Err(StorageError::Exists(_)) => {
            Ok(Err(context.engine.store.get(&key).await.map_err(from_storage)?))
        }
        // Another server was first with an address, a port or what a quota has left: admission looks again, or says so.
        Err(StorageError::Taken(_)) => {
            context.engine.admission.caught_up().await;
            Ok(Err(context.engine.store.get(&key).await.map_err(from_storage)?))
        }
        Err(error) => Err(from_storage(error)),
    }
}

async fn carry_out(store: &dyn Store, key: String, proposal: Proposal) -> Result<Outcome, StorageError> {
    Ok(match proposal {
        Proposal::Create(payload) => Outcome::Created(Shown::Entry(store.create(key, payload).await?)),
        Proposal::Update { seen, payload } => {
            Outcome::Stands(Shown::Entry(store.update_if(key, seen, payload).await?))
        }
        Proposal::Delete { seen, shown } => {
            let last = store.delete_if(key, seen).await?;
            Outcome::Removed(shown.map_or(Shown::Entry(last), Shown::Object))
        }
    })
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

/// Whether an update that leaves `new` leaves nothing to keep: the object is being deleted, and the last finalizer has gone.
/// `waits`: those for its content count, too.
fn is_over(old: &Value, new: &Value, waits: bool) -> bool {
    old.deletion_timestamp().is_some()
        && new.finalizers().next().is_none()
        && (!waits || new.array_at("/spec/finalizers").is_empty())
        && old.deletion_grace_period_seconds().unwrap_or(0) == 0
}

/// Answers a write: 201 if it created the object. `warnings`: what there was to say before the write.
pub fn answer(
    context: &RequestContext<'_>,
    written: Written,
    mut warnings: Vec<String>,
) -> Result<Response<Body>, ApiError> {
    let (code, shown) = match written.outcome {
        Outcome::Created(shown) => (StatusCode::CREATED, shown),
        Outcome::Stands(shown) | Outcome::Removed(shown) => (StatusCode::OK, shown),
    };
    let mut response = match shown {
        Shown::Entry(entry) => context.answer_entry(code, &entry)?,
        Shown::Object(object) => context.answer_object(code, &object)?,
    };
    warnings.extend(written.warnings);
    wire::warn(&mut response, &warnings);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_over_when_the_last_finalizer_goes() {
        let check =
            |old: Value, new: Value, expect| assert_eq!(is_over(&old, &new, true), expect, "{old} {new}");
        let deleted = json!({"metadata": {"deletionTimestamp": "t", "deletionGracePeriodSeconds": 0}});
        check(json!({}), json!({}), false);
        check(deleted.clone(), json!({}), true);
        check(deleted.clone(), json!({"metadata": {"finalizers": ["a"]}}), false);
        let full = json!({"spec": {"finalizers": ["kubernetes"]}});
        check(deleted.clone(), full.clone(), false);
        assert!(is_over(&deleted, &full, false), "the member means something else in other kinds");
        let graceful = json!({"metadata": {"deletionTimestamp": "t", "deletionGracePeriodSeconds": 30}});
        check(graceful, json!({}), false);
    }
}
