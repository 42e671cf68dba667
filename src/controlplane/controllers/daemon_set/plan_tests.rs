//! Tests of the DaemonSets' plan.

use serde_json::{Value, from_value, json};

use super::*;

fn set(strategy: Value) -> DaemonSet {
    from_value(json!({"metadata": {"name": "d", "namespace": "ns", "uid": "u", "generation": 2},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "updateStrategy": strategy,
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}}}))
    .unwrap()
}

fn node(name: &str) -> Arc<Node> {
    Arc::new(from_value(json!({"metadata": {"name": name}})).unwrap())
}

/// `name node hash state`, where the state is `ready`, `starting`, `failed`, `done` or `leaving`.
fn pod(text: &str) -> Arc<Pod> {
    let mut words = text.split(' ');
    let mut next = || words.next().unwrap();
    let (name, node, hash, state) = (next(), next(), next(), next());
    let ready = if state == "ready" { "True" } else { "False" };
    let phase = match state {
        "failed" => "Failed",
        "done" => "Succeeded",
        _ => "Running",
    };
    let mut value = json!({"metadata": {"name": name, "labels": {REVISION_LABEL: hash}},
        "spec": {"nodeName": node, "containers": []},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready,
            "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    if state == "leaving" {
        value["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    }
    Arc::new(from_value(value).unwrap())
}

fn check(strategy: Value, pods: &[&str], create: &[&str], delete: &[&str]) {
    let set = set(strategy.clone());
    let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
    let nodes = ["n1", "n2", "n3"].map(node);
    let now = "2026-01-02T00:00:00Z".parse().unwrap();
    let seen = Seen::new(&set, "new", &nodes, &pods, now);
    let (managed, rolled) = (seen.manage(), seen.roll());
    let sum = |a: Vec<String>, b: Vec<String>| {
        let mut all: Vec<String> = a.into_iter().chain(b).collect();
        all.sort();
        all.dedup();
        all
    };
    let what = format!("{strategy} {:?}", pods.iter().map(|pod| pod.name_any()).collect::<Vec<_>>());
    assert_eq!(sum(managed.create, rolled.create), create, "created: {what}");
    assert_eq!(sum(managed.delete, rolled.delete), delete, "deleted: {what}");
}

#[test]
fn one_pod_a_node() {
    check(json!({}), &[], &["n1", "n2", "n3"], &[]);
    check(json!({}), &["a n1 new ready", "b n2 new ready"], &["n3"], &[]);
    check(json!({}), &["a n1 new ready", "b n1 new ready", "c n2 new ready", "d n3 new ready"], &[], &["b"]);
    check(json!({}), &["a n1 new leaving", "c n2 new ready", "d n3 new ready"], &[], &[]);
}

#[test]
fn old_pods_are_replaced_within_bounds() {
    let old = ["a n1 old ready", "b n2 old ready", "c n3 old ready"];
    check(json!({"type": "OnDelete"}), &old, &[], &[]);
    check(json!({}), &old, &[], &["a"]);
    check(json!({"rollingUpdate": {"maxUnavailable": 2}}), &old, &[], &["a", "b"]);
    check(json!({"rollingUpdate": {"maxUnavailable": "50%"}}), &old, &[], &["a", "b"]);
    check(json!({}), &["a n1 new starting", "b n2 old ready", "c n3 old ready"], &[], &[]);
    check(json!({}), &["a n1 new ready", "b n2 old ready", "c n3 old ready"], &[], &["b"]);
    // The node whose old Pod has just gone is the one that may be without.
    check(json!({}), &["b n2 old ready", "c n3 old ready"], &["n1"], &[]);
    // What does not work anyway is replaced at once.
    check(json!({}), &["a n1 old starting", "b n2 old starting", "c n3 old ready"], &[], &["a", "b"]);
}

#[test]
fn a_surge_has_two_on_a_node_for_a_while() {
    let surge = || json!({"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}});
    check(surge(), &["a n1 old ready", "b n2 old ready", "c n3 old ready"], &["n1"], &[]);
    let waits = ["a n1 old ready", "x n1 new starting", "b n2 old ready", "c n3 old ready"];
    check(surge(), &waits, &[], &[]);
    let goes_on = ["a n1 old ready", "x n1 new ready", "b n2 old ready", "c n3 old ready"];
    check(surge(), &goes_on, &["n2"], &["a"]);
}

#[test]
fn ended_pods_are_told_and_the_status_counts() {
    let set = set(json!({}));
    let pods = [pod("a n1 new failed"), pod("b n2 old ready"), pod("c n9 old ready")];
    let nodes = ["n1", "n2", "n3"].map(node);
    let now = "2026-01-02T00:00:00Z".parse().unwrap();
    let seen = Seen::new(&set, "new", &nodes, &pods, now);
    let ended = Ended { pod: "a".to_owned(), node: "n1".to_owned(), failed: true };
    assert_eq!(seen.manage().ended, [ended]);
    let status = seen.status();
    assert_eq!(status.desired_number_scheduled, 3);
    assert_eq!(status.current_number_scheduled, 2);
    assert_eq!(status.number_ready, 1);
    assert_eq!(status.updated_number_scheduled, Some(1));
    assert_eq!(status.number_unavailable, Some(2));
    assert_eq!(status.observed_generation, Some(2));
}
