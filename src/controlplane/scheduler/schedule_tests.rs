//! Tests of scheduling over made-up nodes.

use std::sync::Arc;

use serde_json::{Value, from_value, json};

use super::*;
use crate::profile::Profile;

fn node(name: &str, rest: Value) -> Value {
    let mut value = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}}});
    json_patch::merge(&mut value, &rest);
    value
}

fn pod(name: &str, on: &str, rest: Value) -> Value {
    let mut value = json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": on, "containers": [{"name": "c"}]}});
    json_patch::merge(&mut value, &rest);
    value
}

fn cluster(nodes: &[Value], pods: &[Value]) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for node in nodes {
        snapshot.put_node(Arc::new(from_value(node.clone()).unwrap()));
    }
    for pod in pods {
        let on = pod["spec"]["nodeName"].as_str().unwrap();
        snapshot.put_pod(Arc::new(from_value(pod.clone()).unwrap()), on);
    }
    snapshot
}

#[track_caller]
fn check(nodes: &[Value], pods: &[Value], rest: Value, expect: Result<&str, &str>) {
    let incoming = PodInfo::new(Arc::new(from_value(pod("new", "", rest)).unwrap()));
    let got = schedule(&incoming, &cluster(nodes, pods), |_| 0).map_err(|why| {
        let text = why.to_string();
        text.split(" preemption:").next().unwrap_or_default().to_owned()
    });
    assert_eq!(got.as_deref().map_err(String::as_str), expect);
}

fn spec(spec: Value) -> Value {
    json!({ "spec": spec })
}

fn cpu(amount: &str) -> Value {
    spec(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]}))
}

#[test]
fn nodes_themselves_rule_pods_out() {
    let two = [node("n1", json!({})), node("n2", json!({"metadata": {"labels": {"disk": "ssd"}}}))];
    check(&[], &[], json!({}), Err("no nodes available to schedule pods"));
    check(&two, &[], spec(json!({"nodeSelector": {"disk": "ssd"}})), Ok("n2"));
    let none = "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector.";
    check(&two, &[], spec(json!({"nodeSelector": {"disk": "hdd"}})), Err(none));
    let affinity = |operator: &str, values: Value| {
        spec(json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": operator, "values": values}]}]}}}}))
    };
    check(&two, &[], affinity("In", json!(["ssd"])), Ok("n2"));
    check(&two, &[], affinity("NotIn", json!(["ssd"])), Ok("n1"));
    check(&two, &[], affinity("DoesNotExist", json!([])), Ok("n1"));
    let cordoned = [node("n1", json!({"spec": {"unschedulable": true}})), node("n2", json!({}))];
    check(&cordoned, &[], json!({}), Ok("n2"));
    check(&cordoned[..1], &[], json!({}), Err("0/1 nodes are available: 1 node(s) were unschedulable."));
}

#[test]
fn reasons_are_counted_as_upstream_words_them() {
    let taint = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
    let three = [node("n1", taint), node("n2", json!({})), node("n3", json!({}))];
    let text = "0/3 nodes are available: 1 node(s) had untolerated taint {k: v}, 2 Insufficient cpu.";
    check(&three, &[], cpu("5"), Err(text));
    let tolerant = spec(json!({"tolerations": [{"key": "k", "operator": "Exists"}]}));
    check(&three[..1], &[], tolerant, Ok("n1"));
    let incoming = PodInfo::new(Arc::new(from_value(pod("new", "", cpu("1500m"))).unwrap()));
    let full = [pod("a", "n2", cpu("1")), pod("b", "n3", cpu("1"))];
    let why = schedule(&incoming, &cluster(&three, &full), |_| 0).unwrap_err();
    let text = "0/3 nodes are available: 1 node(s) had untolerated taint {k: v}, 2 Insufficient cpu. preemption: \
                0/3 nodes are available: 1 Preemption is not helpful for scheduling, 2 No preemption victims \
                found for incoming pod.";
    assert_eq!(why.to_string(), text);
}

#[test]
fn resources_and_ports_run_out() {
    let one = [node("n1", json!({"status": {"allocatable": {"pods": "2"}}}))];
    check(&one, &[pod("a", "n1", cpu("1500m"))], cpu("500m"), Ok("n1"));
    check(
        &one,
        &[pod("a", "n1", cpu("1501m"))],
        cpu("500m"),
        Err("0/1 nodes are available: 1 Insufficient cpu."),
    );
    let two = [pod("a", "n1", json!({})), pod("b", "n1", json!({}))];
    check(&one, &two, json!({}), Err("0/1 nodes are available: 1 Too many pods."));
    let gpu = spec(json!({"containers": [{"name": "c", "resources": {"requests": {"x.dev/gpu": "1"}}}]}));
    check(&one, &[], gpu, Err("0/1 nodes are available: 1 Insufficient x.dev/gpu."));
    let port = |ip: &str| {
        spec(
            json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]}]}),
        )
    };
    let clash = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.";
    check(&one, &[pod("a", "n1", port(""))], port("10.0.0.1"), Err(clash));
    check(&one, &[pod("a", "n1", port("10.0.0.2"))], port("10.0.0.1"), Ok("n1"));
}

fn between(kind: &str, app: &str) -> Value {
    spec(json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": app}}}]}}}))
}

#[test]
fn pods_keep_together_and_apart() {
    let two = [node("n1", json!({})), node("n2", json!({}))];
    let on_two = [pod("a", "n2", json!({}))];
    check(&two, &on_two, between("podAffinity", "web"), Ok("n2"));
    check(&two, &on_two, between("podAntiAffinity", "web"), Ok("n1"));
    check(&two, &[], between("podAffinity", "web"), Ok("n1"));
    let alone = "0/2 nodes are available: 2 node(s) didn't match pod affinity rules.";
    check(&two, &on_two, between("podAffinity", "db"), Err(alone));
    let hermit = [pod("a", "n1", between("podAntiAffinity", "web"))];
    check(&two, &hermit, json!({}), Ok("n2"));
    let text = "0/1 nodes are available: 1 node(s) didn't satisfy existing pods anti-affinity rules.";
    check(&two[..1], &hermit, json!({}), Err(text));
}

#[test]
fn constraints_spread() {
    let two = [node("n1", json!({})), node("n2", json!({}))];
    let hard =
        spec(json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "web"}}}]}));
    check(&two, &[pod("a", "n1", json!({}))], hard.clone(), Ok("n2"));
    let unlabelled = [node("n1", json!({"metadata": {"labels": {"kubernetes.io/hostname": null}}}))];
    let text = "0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label).";
    check(&unlabelled, &[], hard, Err(text));
}

#[test]
fn replicas_of_one_controller_spread_by_themselves() {
    let three = [node("n1", json!({})), node("n2", json!({})), node("n3", json!({}))];
    let owned = json!({"metadata": {"ownerReferences":
        [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true}]}});
    let placed = [pod("a", "n1", owned.clone()), pod("b", "n3", owned.clone())];
    check(&three, &placed, owned, Ok("n2"));
}

#[test]
fn scores_prefer_empty_willing_nodes() {
    let two = [node("n1", json!({})), node("n2", json!({}))];
    check(&two, &[pod("a", "n1", cpu("1"))], cpu("100m"), Ok("n2"));
    let shy = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
    check(&[node("n1", shy), node("n2", json!({}))], &[], json!({}), Ok("n2"));
    let wish =
        spec(json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
        {"weight": 5, "preference": {"matchExpressions":
            [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}]}}]}}}));
    check(&two, &[], wish, Ok("n2"));
    let images =
        json!({"status": {"images": [{"names": ["docker.io/library/big:1"], "sizeBytes": 900_000_000}]}});
    let image = spec(json!({"containers": [{"name": "c", "image": "big:1"}]}));
    check(&[node("n1", json!({})), node("n2", images)], &[], image, Ok("n2"));
}

#[test]
fn a_profile_decides_what_counts() {
    let tainted = json!({"spec": {"taints": [{"key": "own", "effect": "NoSchedule"}]}});
    let nodes = [node("n1", json!({})), node("n2", tainted), node("n3", json!({}))];
    let busy = pod("busy", "n3", cpu("1"));
    let snapshot = cluster(&nodes, &[busy]);
    let place = |profile: Profile| {
        let incoming = PodInfo::new(Arc::new(from_value(pod("new", "", cpu("500m"))).unwrap()));
        let incoming = PodInfo { profile: Arc::new(profile), ..incoming };
        schedule(&incoming, &snapshot, |_| 0)
    };
    assert_eq!(place(Profile::default()).as_deref(), Ok("n1"), "the emptiest");
    let fit = vec![("NodeResourcesFit", 1.0)];
    let fullest = Profile { scores: Some(fit), fullest: true, ..Profile::default() };
    assert_eq!(place(fullest).as_deref(), Ok("n3"));
    let blind = Profile { filters: Some(vec!["NodeName"]), scores: Some(vec![]), ..Profile::default() };
    let only = cluster(&nodes[1..2], &[]);
    let incoming = PodInfo::new(Arc::new(from_value(pod("new", "", json!({}))).unwrap()));
    assert!(schedule(&incoming, &only, |_| 0).is_err(), "it is tainted");
    let incoming = PodInfo { profile: Arc::new(blind), ..incoming };
    assert_eq!(schedule(&incoming, &only, |_| 0).as_deref(), Ok("n2"));
}
