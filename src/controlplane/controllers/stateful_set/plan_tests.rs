//! Tests of the StatefulSets' plan.

use serde_json::{Value, from_value, json};

use super::*;

fn revision(name: &str) -> Revision {
    let template = from_value(json!({"spec": {"containers": [{"name": "c", "image": name}]}})).unwrap();
    Revision { name: name.to_owned(), template }
}

fn set(spec: Value, status: Value) -> StatefulSet {
    let mut all = json!({"replicas": 3, "serviceName": "s", "selector": {}, "template": {}});
    json_patch::merge(&mut all, &spec);
    from_value(json!({"metadata": {"name": "web", "namespace": "ns", "uid": "s", "generation": 4},
        "spec": all, "status": status}))
    .unwrap()
}

/// `number revision state`, where the state is `ready`, `starting`, `failed` or `leaving`.
fn pod(text: &str) -> Arc<Pod> {
    let words: Vec<&str> = text.split(' ').collect();
    let [number, revision, state] = words[..] else { panic!("{text}") };
    let ready = if matches!(state, "ready" | "leaving") { "True" } else { "False" };
    let phase = if state == "failed" { "Failed" } else { "Running" };
    let mut value = json!({"metadata": {"name": format!("web-{number}"), "uid": number,
        "labels": {REVISION_LABEL: revision}}, "spec": {"containers": []},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready,
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    if state == "leaving" {
        value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    Arc::new(from_value(value).unwrap())
}

fn told(ops: &[Op]) -> String {
    let one = |op: &Op| match op {
        Op::Create(pod, number) => {
            Some(format!("+{number}:{}", pod.labels().get(REVISION_LABEL).cloned().unwrap_or_default()))
        }
        Op::Claims(..) => None,
        Op::Renew(pod) => Some(format!("!{}", pod.uid().unwrap_or_default())),
        Op::Delete(pod) => Some(format!("-{}", pod.uid().unwrap_or_default())),
    };
    ops.iter().filter_map(one).collect::<Vec<_>>().join(" ")
}

fn check_status(spec: Value, status: Value, pods: &[&str], expect: &str) {
    let set = set(spec.clone(), status);
    let (old, new) = (revision("old"), revision("new"));
    let all: Vec<_> = pods.iter().map(|text| pod(text)).collect();
    let now = "2026-01-01T00:00:10Z".parse().unwrap();
    let seen = Seen::new(&set, set.spec.as_ref().unwrap(), (&old, &new), &all, now);
    assert_eq!(told(&seen.plan()), expect, "{spec} {pods:?}");
}

fn check(spec: Value, pods: &[&str], expect: &str) {
    check_status(spec, Value::Null, pods, expect);
}

#[test]
fn one_after_the_other_or_all_at_once() {
    check(json!({}), &[], "+0:new");
    check(json!({}), &["0 new starting"], "");
    check(json!({}), &["0 new ready"], "+1:new");
    check(json!({"minReadySeconds": 60}), &["0 new ready"], "");
    check(json!({}), &["0 new ready", "2 new ready"], "+1:new");
    check(json!({"podManagementPolicy": "Parallel"}), &["1 new starting"], "+0:new +2:new");
    check(json!({"ordinals": {"start": 5}}), &["5 new ready"], "+6:new");
    check(json!({}), &["0 new failed", "1 new ready"], "!0");
    check(json!({}), &["0 new leaving", "1 new ready"], "");
}

#[test]
fn the_highest_goes_first() {
    let all = ["0 new ready", "1 new ready", "2 new ready"];
    check(json!({"replicas": 1}), &all, "-2");
    check(json!({"replicas": 1}), &["0 new ready", "1 new ready", "2 new leaving"], "");
    check(json!({"replicas": 1}), &["0 new starting", "1 new ready", "2 new ready"], "");
    check(json!({"replicas": 1, "podManagementPolicy": "Parallel"}), &all, "-2 -1");
    check(json!({"replicas": 1}), &["0 new ready", "1 new ready", "2 new starting"], "-2");
}

#[test]
fn updates_go_down_to_the_partition() {
    let all = ["0 old ready", "1 old ready", "2 old ready"];
    check(json!({}), &all, "-2");
    check(json!({"updateStrategy": {"type": "OnDelete"}}), &all, "");
    check(json!({}), &["0 old ready", "1 old ready", "2 new starting"], "");
    check(json!({}), &["0 old ready", "1 old ready", "2 new ready"], "-1");
    let partition = |n: i32| json!({"updateStrategy": {"rollingUpdate": {"partition": n}}});
    check(partition(2), &["0 old ready", "1 old ready", "2 new ready"], "");
    check(partition(2), &["0 old ready", "2 new ready"], "+1:old");
    check(partition(0), &["0 old ready", "2 new ready"], "+1:new");
    let two = json!({"replicas": 4, "podManagementPolicy": "Parallel", "updateStrategy": {"rollingUpdate": {"maxUnavailable": 2}}});
    check(two.clone(), &["0 old ready", "1 old ready", "2 old ready", "3 old ready"], "-3 -2");
    check(two, &["0 old ready", "1 old ready", "2 old ready", "3 new starting"], "-2");
    check_status(json!({}), json!({"currentReplicas": 2}), &["1 old ready", "2 new ready"], "+0:old");
}

#[test]
fn the_status_counts_revisions_and_moves_on_when_all_are_new() {
    let (old, new) = (revision("old"), revision("new"));
    let now = "2026-01-01T00:00:10Z".parse().unwrap();
    let check = |pods: &[&str], expect: (i32, Option<i32>, Option<i32>, &str)| {
        let set = set(json!({}), Value::Null);
        let all: Vec<_> = pods.iter().map(|text| pod(text)).collect();
        let seen = Seen::new(&set, set.spec.as_ref().unwrap(), (&old, &new), &all, now);
        let s = seen.status();
        let got =
            (s.replicas, s.current_replicas, s.updated_replicas, s.current_revision.as_deref().unwrap());
        assert_eq!(got, expect, "{pods:?}");
    };
    check(&["0 old ready", "1 old ready", "2 new starting"], (3, Some(2), Some(1), "old"));
    check(&["0 new ready", "1 new ready", "2 new ready"], (3, Some(3), Some(3), "new"));
    check(&["0 new ready", "1 new ready", "2 new leaving"], (3, None, Some(2), "old"));
}
