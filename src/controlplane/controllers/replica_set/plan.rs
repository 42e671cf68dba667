//! What to do for one ReplicaSet: a pure function of what is observed.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::super::rank;
use client::typed::{is_active, is_available, is_ready, is_terminal, selects_map};

/// At most this many Pods are created or deleted at once (upstream's BurstReplicas).
const BURST: usize = 500;

/// The Pods a ReplicaSet controls.
pub(super) struct Seen {
    pub active: Vec<Arc<Pod>>,
    pub terminating: usize,
}

/// Sorts the Pods a ReplicaSet controls.
pub(super) fn observe(owned: &[Arc<Pod>]) -> Seen {
    let leaving = |pod: &&Arc<Pod>| pod.metadata.deletion_timestamp.is_some() && !is_terminal(pod);
    Seen {
        active: owned.iter().filter(|pod| is_active(pod)).cloned().collect(),
        terminating: owned.iter().filter(leaving).count(),
    }
}

#[derive(Debug)]
pub(super) enum Plan {
    Enough,
    Create(usize),
    Delete(Vec<Arc<Pod>>),
}

fn wanted(set: &ReplicaSet) -> usize {
    let replicas = set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    usize::try_from(replicas).unwrap_or_default()
}

/// What brings the number of active Pods to the wanted one.
pub(super) fn plan(set: &ReplicaSet, seen: &Seen, related: &[Arc<Pod>]) -> Plan {
    let (have, want) = (seen.active.len(), wanted(set));
    match have.cmp(&want) {
        std::cmp::Ordering::Equal => Plan::Enough,
        std::cmp::Ordering::Less => Plan::Create((want - have).min(BURST)),
        std::cmp::Ordering::Greater => {
            Plan::Delete(rank::first_to_go(&seen.active, related, (have - want).min(BURST)))
        }
    }
}

fn some(count: usize) -> Option<i32> {
    i32::try_from(count).ok().filter(|count| *count > 0)
}

/// The status these Pods make, and the condition `ReplicaFailure` when the last operation failed.
pub(super) fn status(
    set: &ReplicaSet,
    seen: &Seen,
    failure: Option<(&str, &str)>,
    now: Timestamp,
) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let labels = spec.template.and_then(|template| template.metadata).and_then(|meta| meta.labels);
    let min_ready = spec.min_ready_seconds.unwrap_or_default();
    let count = |test: &dyn Fn(&Pod) -> bool| seen.active.iter().filter(|pod| test(pod)).count();
    let labels = labels.unwrap_or_default();
    let old = set.status.as_ref();
    ReplicaSetStatus {
        replicas: i32::try_from(seen.active.len()).unwrap_or(i32::MAX),
        fully_labeled_replicas: some(count(&|pod| selects_map(&labels, pod.metadata.labels.as_ref()))),
        ready_replicas: some(count(&is_ready)),
        available_replicas: some(count(&|pod| is_available(pod, min_ready, now))),
        terminating_replicas: Some(i32::try_from(seen.terminating).unwrap_or(i32::MAX)),
        observed_generation: set.metadata.generation,
        conditions: conditions(old.and_then(|status| status.conditions.as_ref()), failure, now),
    }
}

fn conditions(
    old: Option<&Vec<ReplicaSetCondition>>,
    failure: Option<(&str, &str)>,
    now: Timestamp,
) -> Option<Vec<ReplicaSetCondition>> {
    const FAILURE: &str = "ReplicaFailure";
    let mut all: Vec<_> = old.into_iter().flatten().cloned().collect();
    let known = all.iter().any(|condition| condition.type_ == FAILURE);
    match failure {
        None => all.retain(|condition| condition.type_ != FAILURE),
        Some(_) if known => {}
        Some((reason, message)) => all.push(ReplicaSetCondition {
            type_: FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()),
            last_transition_time: Some(Time(now)),
        }),
    }
    Some(all).filter(|all| !all.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn pod(name: &str, rest: Value) -> Arc<Pod> {
        let mut value = json!({"metadata": {"name": name, "labels": {"a": "b"}}});
        json_patch::merge(&mut value, &rest);
        Arc::new(from_value(value).unwrap())
    }

    fn ready(since: &str) -> Value {
        json!({"status": {"phase": "Running", "conditions":
            [{"type": "Ready", "status": "True", "lastTransitionTime": since}]}})
    }

    fn set(replicas: i32, min_ready: i32) -> ReplicaSet {
        from_value(json!({"metadata": {"name": "web", "generation": 2}, "spec": {
            "replicas": replicas, "minReadySeconds": min_ready, "selector": {},
            "template": {"metadata": {"labels": {"a": "b"}}}}}))
        .unwrap()
    }

    #[test]
    fn the_number_is_made_right() {
        let pods = [
            pod("a", json!({})),
            pod("b", json!({"status": {"phase": "Failed"}})),
            pod("c", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})),
        ];
        let seen = observe(&pods);
        assert_eq!((seen.active.len(), seen.terminating), (1, 1));
        assert!(matches!(plan(&set(3, 0), &seen, &[]), Plan::Create(2)));
        assert!(matches!(plan(&set(1, 0), &seen, &[]), Plan::Enough));
        assert!(matches!(plan(&set(0, 0), &seen, &[]), Plan::Delete(pods) if pods.len() == 1));
        assert!(matches!(plan(&set(2000, 0), &seen, &[]), Plan::Create(500)));
    }

    #[test]
    fn availability_needs_the_minimum_ready_time() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let pods = [pod("a", ready("2026-01-01T00:00:00Z")), pod("b", ready("2026-01-01T00:00:55Z"))];
        let status = status(&set(2, 10), &observe(&pods), Some(("FailedCreate", "no")), now);
        assert_eq!(status.ready_replicas, Some(2));
        assert_eq!(status.available_replicas, Some(1));
        assert_eq!(status.fully_labeled_replicas, Some(2));
        assert_eq!(status.observed_generation, Some(2));
        assert_eq!(status.conditions.unwrap()[0].type_, "ReplicaFailure");
    }
}
