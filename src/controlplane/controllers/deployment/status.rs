//! What a Deployment says about its rollout: counts, Available, Progressing and ReplicaFailure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus, ReplicaSet};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::arithmetic::Bounds;
use super::plan::{available, replicas};

pub(super) const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const FAILURE: &str = "ReplicaFailure";
const COMPLETE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

type Conditions = Vec<DeploymentCondition>;

/// The condition of a type.
pub(super) fn find<'a>(status: &'a DeploymentStatus, kind: &str) -> Option<&'a DeploymentCondition> {
    status.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

fn new_condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> DeploymentCondition {
    DeploymentCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Puts a condition in; the same status and reason again change nothing, the same status keeps its time.
fn set(conditions: &mut Conditions, mut condition: DeploymentCondition) {
    let old = conditions.iter().position(|old| old.type_ == condition.type_);
    if let Some(at) = old {
        let old = conditions.remove(at);
        if old.status == condition.status && old.reason == condition.reason {
            conditions.insert(at, old);
            return;
        }
        if old.status == condition.status {
            condition.last_transition_time = old.last_transition_time;
        }
    }
    conditions.push(condition);
}

fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment.spec.as_ref()?.progress_deadline_seconds?;
    (seconds != i32::MAX).then(|| SignedDuration::from_secs(seconds.into()))
}

fn some(count: i32) -> Option<i32> {
    Some(count).filter(|count| *count > 0)
}

/// Counts and availability; the other conditions stay as they were.
pub(super) fn counted(
    deployment: &Deployment,
    bounds: Bounds,
    all: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let sum = |of: fn(&ReplicaSet) -> i32| all.iter().map(|set| of(set)).sum::<i32>();
    let actual = |set: &ReplicaSet| set.status.as_ref().map_or(0, |status| status.replicas);
    let ready = |set: &ReplicaSet| set.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0);
    let terminating =
        |set: &ReplicaSet| set.status.as_ref().and_then(|s| s.terminating_replicas).unwrap_or(0);
    let old = deployment.status.clone().unwrap_or_default();
    let up = sum(available);
    let mut conditions = old.conditions.unwrap_or_default();
    let (status, reason, message) = if up >= bounds.min_available() {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut conditions, new_condition(AVAILABLE, status, reason, message.to_owned(), now));
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: some(sum(actual)),
        updated_replicas: some(new.map_or(0, actual)),
        ready_replicas: some(sum(ready)),
        available_replicas: some(up),
        unavailable_replicas: some(sum(replicas) - up),
        terminating_replicas: Some(sum(terminating)),
        collision_count: old.collision_count,
        conditions: Some(conditions),
    }
}

/// Whether the rollout is over: everything is new, and everything is available.
pub(super) fn complete(deployment: &Deployment, bounds: Bounds, status: &DeploymentStatus) -> bool {
    let is_all = |count: Option<i32>| count.unwrap_or_default() == bounds.replicas;
    is_all(status.updated_replicas)
        && is_all(status.replicas)
        && is_all(status.available_replicas)
        && status.observed_generation.unwrap_or_default()
            >= deployment.metadata.generation.unwrap_or_default()
}

fn progressed(before: &DeploymentStatus, now: &DeploymentStatus) -> bool {
    let number = |count: Option<i32>| count.unwrap_or_default();
    let old = |status: &DeploymentStatus| number(status.replicas) - number(status.updated_replicas);
    number(now.updated_replicas) > number(before.updated_replicas)
        || old(now) < old(before)
        || number(now.ready_replicas) > number(before.ready_replicas)
        || number(now.available_replicas) > number(before.available_replicas)
}

fn timed_out(deadline: SignedDuration, status: &DeploymentStatus, now: Timestamp) -> bool {
    let Some(condition) = find(status, PROGRESSING) else { return false };
    match condition.reason.as_deref() {
        Some(COMPLETE) => false,
        Some(TIMED_OUT) => true,
        _ => condition.last_update_time.as_ref().is_some_and(|from| now.duration_since(from.0) > deadline),
    }
}

fn subject(deployment: &Deployment, new: Option<&ReplicaSet>) -> String {
    match new {
        Some(new) => format!("ReplicaSet {:?}", new.name_any()),
        None => format!("Deployment {:?}", deployment.name_any()),
    }
}

/// The status in the middle of a rollout, with its progress.
pub(super) fn rollout(
    deployment: &Deployment,
    bounds: Bounds,
    all: &[&ReplicaSet],
    new: Option<&ReplicaSet>,
    now: Timestamp,
) -> DeploymentStatus {
    let mut status = counted(deployment, bounds, all, new, now);
    let before = deployment.status.clone().unwrap_or_default();
    let mut conditions = status.conditions.take().unwrap_or_default();
    let known = find(&before, PROGRESSING);
    let was_complete = status.replicas == status.updated_replicas
        && known.is_some_and(|condition| condition.reason.as_deref() == Some(COMPLETE));
    let name = subject(deployment, new);
    match deadline(deployment) {
        None => conditions.retain(|condition| condition.type_ != PROGRESSING),
        Some(_) if was_complete => {}
        Some(limit) => {
            if complete(deployment, bounds, &status) {
                let message = format!("{name} has successfully progressed.");
                set(&mut conditions, new_condition(PROGRESSING, "True", COMPLETE, message, now));
            } else if progressed(&before, &status) {
                let message = format!("{name} is progressing.");
                let mut fresh = new_condition(PROGRESSING, "True", "ReplicaSetUpdated", message, now);
                if let Some(known) = known.filter(|known| known.status == "True") {
                    fresh.last_transition_time = known.last_transition_time.clone();
                }
                // Progress renews the deadline: the condition is written even if its reason stays.
                conditions.retain(|condition| condition.type_ != PROGRESSING);
                conditions.push(fresh);
            } else if timed_out(limit, &before, now) {
                let message = format!("{name} has timed out progressing.");
                set(&mut conditions, new_condition(PROGRESSING, "False", TIMED_OUT, message, now));
            }
        }
    }
    let failure = new.into_iter().chain(all.iter().copied()).find_map(|set| {
        let conditions = set.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().find(|condition| condition.type_ == FAILURE)
    });
    match failure {
        None => conditions.retain(|condition| condition.type_ != FAILURE),
        Some(failure) => set(
            &mut conditions,
            DeploymentCondition {
                type_: FAILURE.to_owned(),
                status: failure.status.clone(),
                reason: failure.reason.clone(),
                message: failure.message.clone(),
                last_update_time: failure.last_transition_time.clone(),
                last_transition_time: failure.last_transition_time.clone(),
            },
        ),
    }
    status.conditions = Some(conditions);
    status
}

/// When to look again whether the deadline has passed; `None` when the rollout waits for nothing.
pub(super) fn next_check(
    deployment: &Deployment,
    bounds: Bounds,
    status: &DeploymentStatus,
    now: Timestamp,
) -> Option<SignedDuration> {
    let limit = deadline(deployment)?;
    let condition = find(status, PROGRESSING)?;
    let settled = condition.reason.as_deref() == Some(TIMED_OUT) || complete(deployment, bounds, status);
    if settled {
        return None;
    }
    let from = condition.last_update_time.as_ref()?.0;
    let left = from.duration_since(now) + limit;
    Some(left.max(SignedDuration::ZERO) + SignedDuration::from_secs(1))
}

/// The status with another Progressing condition; `None` when nothing changes, or when the Deployment
/// has no deadline and thus no such condition.
fn with_progress(
    deployment: &Deployment,
    status: &str,
    reason: &str,
    message: String,
    now: Timestamp,
) -> Option<DeploymentStatus> {
    deadline(deployment)?;
    let before = deployment.status.clone().unwrap_or_default();
    let mut conditions = before.conditions.clone().unwrap_or_default();
    set(&mut conditions, new_condition(PROGRESSING, status, reason, message, now));
    let after = DeploymentStatus { conditions: Some(conditions), ..before.clone() };
    (after != before).then_some(after)
}

/// Says in a status that the new ReplicaSet has been made.
pub(super) fn created(deployment: &Deployment, status: &mut DeploymentStatus, name: &str, now: Timestamp) {
    if deadline(deployment).is_some() {
        let message = format!("Created new replica set {name:?}");
        let fresh = new_condition(PROGRESSING, "True", "NewReplicaSetCreated", message, now);
        set(status.conditions.get_or_insert_default(), fresh);
    }
}

/// The status once a ReplicaSet with the present template was found; only where nothing was said before.
pub(super) fn found(deployment: &Deployment, set: &str, now: Timestamp) -> Option<DeploymentStatus> {
    if deployment.status.as_ref().is_some_and(|status| find(status, PROGRESSING).is_some()) {
        return None;
    }
    with_progress(deployment, "True", "FoundNewReplicaSet", format!("Found new replica set {set:?}"), now)
}

/// The status once the new ReplicaSet could not be made.
pub(super) fn creation_failed(
    deployment: &Deployment,
    message: &str,
    now: Timestamp,
) -> Option<DeploymentStatus> {
    with_progress(deployment, "False", "ReplicaSetCreateError", message.to_owned(), now)
}

/// The status that says that the rollout was paused or resumed, where that is news.
pub(super) fn paused(deployment: &Deployment, now: Timestamp) -> Option<DeploymentStatus> {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or_default();
    let known = deployment.status.as_ref().and_then(|status| find(status, PROGRESSING));
    let reason = known.and_then(|condition| condition.reason.as_deref());
    match reason {
        Some(TIMED_OUT) => None,
        Some(PAUSED) if !wanted => {
            let message = "Deployment is resumed".to_owned();
            with_progress(deployment, "Unknown", "DeploymentResumed", message, now)
        }
        Some(PAUSED) => None,
        _ if wanted => with_progress(deployment, "Unknown", PAUSED, "Deployment is paused".to_owned(), now),
        _ => None,
    }
}
