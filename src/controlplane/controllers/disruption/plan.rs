//! How many Pods of a budget may be disrupted: a pure function of what is observed.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use client::typed::{controller_of, is_ready, scaled, selects};

/// How long an eviction may take before the Pod counts again (upstream's DeletionTimeout).
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);
const CONDITION: &str = "DisruptionAllowed";

/// By the uid of a Pod's controller: the uid of what is scaled and its size, or why that cannot be said.
pub(super) type Scales = BTreeMap<String, Result<(String, i32), String>>;

/// What a budget's status is to be.
#[derive(Debug)]
pub(super) struct Planned {
    pub status: PodDisruptionBudgetStatus,
    /// Pods that were evicted and are still there.
    pub not_deleted: Vec<String>,
    /// Why the number of expected Pods is not known: then nothing may be disrupted.
    pub failure: Option<String>,
    pub look_again: Option<SignedDuration>,
}

/// Returns the Pods a budget guards. A budget without a selector guards none, an empty selector guards all.
pub(super) fn matching(budget: &PodDisruptionBudget, pods: Vec<Arc<Pod>>) -> Vec<Arc<Pod>> {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let Some(selector) = selector else { return Vec::new() };
    pods.into_iter().filter(|pod| selects(selector, pod.metadata.labels.as_ref())).collect()
}

/// How many Pods there should be and how many of them must stay.
fn counts(budget: &PodDisruptionBudget, pods: &[Arc<Pod>], scales: &Scales) -> Result<(i32, i32), String> {
    let Some(spec) = &budget.spec else { return Ok((0, 0)) };
    let there = i32::try_from(pods.len()).unwrap_or(i32::MAX);
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(unavailable), _) => {
            let expected = expected(pods, scales)?;
            Ok((expected, (expected - scaled(unavailable, expected, true)).max(0)))
        }
        (None, Some(IntOrString::Int(available))) => Ok((there, *available)),
        (None, Some(available)) => {
            let expected = expected(pods, scales)?;
            Ok((expected, scaled(available, expected, true)))
        }
        (None, None) => Ok((there, 0)),
    }
}

/// The sum of what the Pods' controllers want, each counted once. Pods that nobody controls count for nothing.
fn expected(pods: &[Arc<Pod>], scales: &Scales) -> Result<i32, String> {
    let mut wanted: BTreeMap<&str, i32> = BTreeMap::new();
    for owner in pods.iter().filter_map(|pod| controller_of(&pod.metadata)) {
        if let Some(scale) = scales.get(&owner.uid) {
            let (uid, replicas) = scale.as_ref().map_err(Clone::clone)?;
            wanted.insert(uid, *replicas);
        }
    }
    Ok(wanted.values().sum())
}

/// Sorts out the Pods that were evicted lately: those that still may go, and those that did not.
fn disrupted(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Vec<String>) {
    let (mut going, mut stayed) = (BTreeMap::new(), Vec::new());
    let noted = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref());
    for (name, at) in noted.into_iter().flatten() {
        let there = pods.iter().find(|pod| pod.name_any() == *name);
        let Some(_) = there.filter(|pod| pod.metadata.deletion_timestamp.is_none()) else { continue };
        if at.0 + DELETION_TIMEOUT < now {
            stayed.push(name.clone());
        } else {
            going.insert(name.clone(), at.clone());
        }
    }
    (going, stayed)
}

fn condition(
    budget: &PodDisruptionBudget,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Vec<Condition> {
    let old = budget.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut all: Vec<Condition> = old.cloned().collect();
    let before = all.iter().find(|condition| condition.type_ == CONDITION && condition.status == status);
    let since = before.map_or(Time(now), |condition| condition.last_transition_time.clone());
    all.retain(|condition| condition.type_ != CONDITION);
    all.push(Condition {
        type_: CONDITION.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: budget.metadata.generation,
        last_transition_time: since,
    });
    all
}

/// Works out a budget's status from its Pods.
pub(super) fn plan(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scales: &Scales,
    now: Timestamp,
) -> Planned {
    let (going, not_deleted) = disrupted(budget, pods, now);
    let (expected, desired) = match counts(budget, pods, scales) {
        Ok(counts) => counts,
        Err(why) => {
            // Nothing is allowed while it is not known what is needed.
            let mut status = budget.status.clone().unwrap_or_default();
            status.disruptions_allowed = Some(0);
            status.observed_generation = budget.metadata.generation;
            status.conditions = Some(condition(budget, "False", "SyncFailed", &why, now));
            return Planned { status, not_deleted, failure: Some(why), look_again: None };
        }
    };
    let healthy = pods.iter().filter(|pod| {
        pod.metadata.deletion_timestamp.is_none() && !going.contains_key(&pod.name_any()) && is_ready(pod)
    });
    let healthy = i32::try_from(healthy.count()).unwrap_or(i32::MAX);
    let allowed = if expected <= 0 { 0 } else { (healthy - desired).max(0) };
    let (truth, reason) = match allowed {
        0 => ("False", "InsufficientPods"),
        _ => ("True", "SufficientPods"),
    };
    let look_again = going.values().map(|at| (at.0 + DELETION_TIMEOUT).duration_since(now)).min();
    let status = PodDisruptionBudgetStatus {
        conditions: Some(condition(budget, truth, reason, "", now)),
        current_healthy: Some(healthy),
        desired_healthy: Some(desired),
        disrupted_pods: Some(going).filter(|going| !going.is_empty()),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(expected),
        observed_generation: budget.metadata.generation,
    };
    let look_again = look_again.map(|left| left.max(SignedDuration::ZERO) + SignedDuration::from_secs(1));
    Planned { status, not_deleted, failure: None, look_again }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn pod(name: &str, owner: Option<&str>, ready: bool) -> Arc<Pod> {
        let owners = owner.map(|uid| {
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": uid, "uid": uid, "controller": true}])
        });
        let ready = if ready { "True" } else { "False" };
        Arc::new(
            from_value(json!({"metadata": {"name": name, "labels": {"a": "b"}, "ownerReferences": owners},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}}))
            .unwrap(),
        )
    }

    fn budget(spec: Value, status: Value) -> PodDisruptionBudget {
        let mut spec = spec;
        spec["selector"] = json!({"matchLabels": {"a": "b"}});
        from_value(json!({"metadata": {"name": "p", "generation": 3}, "spec": spec, "status": status}))
            .unwrap()
    }

    #[test]
    fn what_may_go() {
        let now: Timestamp = "2026-01-01T00:05:00Z".parse().unwrap();
        let pods = [
            pod("a", Some("rs1"), true),
            pod("b", Some("rs1"), true),
            pod("c", Some("rs1"), false),
            pod("d", None, true),
        ];
        let scales: Scales = [("rs1".to_owned(), Ok(("d1".to_owned(), 4)))].into();
        // expected, desired, healthy, allowed
        let check = |spec: Value, status: Value, expect: [i32; 4]| {
            let planned = plan(&budget(spec.clone(), status), &pods, &scales, now);
            let s = &planned.status;
            let got = [s.expected_pods, s.desired_healthy, s.current_healthy, s.disruptions_allowed];
            assert_eq!(got.map(Option::unwrap), expect, "{spec}");
        };
        check(json!({"minAvailable": 2}), Value::Null, [4, 2, 3, 1]);
        check(json!({"minAvailable": 3}), Value::Null, [4, 3, 3, 0]);
        check(json!({"minAvailable": "50%"}), Value::Null, [4, 2, 3, 1]);
        check(json!({"maxUnavailable": 1}), Value::Null, [4, 3, 3, 0]);
        check(json!({"maxUnavailable": "100%"}), Value::Null, [4, 0, 3, 3]);
        let fresh = json!({"disruptedPods": {"a": "2026-01-01T00:04:30Z"}, "disruptionsAllowed": 0});
        check(json!({"minAvailable": 1}), fresh, [4, 1, 2, 1]);
        let old = json!({"disruptedPods": {"a": "2026-01-01T00:00:00Z"}, "disruptionsAllowed": 0});
        check(json!({"minAvailable": 1}), old.clone(), [4, 1, 3, 2]);
        let planned = plan(&budget(json!({"minAvailable": 1}), old), &pods, &scales, now);
        assert_eq!(planned.not_deleted, ["a"]);
    }

    #[test]
    fn nothing_may_go_while_the_size_is_unknown() {
        let pods = [pod("a", Some("x"), true)];
        let scales: Scales = [("x".to_owned(), Err("no scale".to_owned()))].into();
        let planned =
            plan(&budget(json!({"maxUnavailable": 1}), Value::Null), &pods, &scales, Timestamp::UNIX_EPOCH);
        assert_eq!(planned.status.disruptions_allowed, Some(0));
        assert_eq!(planned.status.conditions.unwrap()[0].reason, "SyncFailed");
        assert_eq!(planned.failure.as_deref(), Some("no scale"));
    }

    #[test]
    fn a_budget_without_selector_guards_nothing() {
        let bare: PodDisruptionBudget = from_value(json!({"metadata": {"name": "p"}, "spec": {}})).unwrap();
        assert!(matching(&bare, vec![pod("a", None, true)]).is_empty());
        let all: PodDisruptionBudget =
            from_value(json!({"metadata": {"name": "p"}, "spec": {"selector": {}}})).unwrap();
        assert_eq!(matching(&all, vec![pod("a", None, true)]).len(), 1);
    }
}
