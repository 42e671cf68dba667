//! Tests of a Pod's status.

use serde_json::{Value, json};

use super::*;
use crate::kubelet::pods::state::{BackoffEntry, Failed, Restarted, WorkerState};
use crate::kubelet::pods::view::{self, Sandbox, View};
use crate::kubelet::testing;

fn container(name: &str, attempt: u32, exit: Option<i32>) -> Container {
    view::testing::container(name, "s", attempt, exit)
}

fn pod(spec: Value) -> Pod {
    testing::pod(json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": spec}))
}

fn report(pod: &Pod, containers: &[Container], memory: &WorkerState) -> PodStatus {
    let sandbox =
        Sandbox { id: "s".into(), ready: true, ips: vec!["10.42.0.2".into()], ..Default::default() };
    let mut containers = containers.to_vec();
    containers.sort_by_key(|c| std::cmp::Reverse(c.status.created_at));
    let view = View { sandboxes: vec![sandbox], containers, reset: None };
    let now = Timestamp::from_second(5).expect("time");
    status(&Input { pod, view: &view, memory, now }, &Host { ip: "172.20.0.3".into() })
}

#[test]
fn a_refused_pod_says_nothing_of_containers() {
    let pod = pod(json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}]}));
    let memory = WorkerState { failed: Some(Failed::new("NodePorts", "taken")), ..WorkerState::default() };
    let now = Timestamp::from_second(5).expect("time");
    let refused = |pod: &Pod| {
        status(
            &Input { pod, view: &View::default(), memory: &memory, now },
            &Host { ip: "172.20.0.3".into() },
        )
    };
    let status = refused(&pod);
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("NodePorts")));
    assert_eq!((status.container_statuses, status.init_container_statuses), (None, None));
    let before = report(&pod, &[container("a", 0, None)], &WorkerState::default());
    let ran = Pod { status: Some(before), ..pod };
    assert!(refused(&ran).container_statuses.is_some(), "what ran before is still told of");
}

fn condition(status: &PodStatus, kind: &str) -> String {
    let conditions = status.conditions.as_deref().unwrap_or_default();
    conditions.iter().find(|c| c.type_ == kind).map(|c| c.status.clone()).unwrap_or_default()
}

#[test]
fn phases() {
    let check = |policy: &str, exits: &[Option<Option<i32>>], expect: &str| {
        let names = ["a", "b"];
        let specs: Vec<Value> = names[..exits.len()].iter().map(|name| json!({ "name": name })).collect();
        let pod = pod(json!({"restartPolicy": policy, "containers": specs}));
        let made = names.iter().zip(exits).filter_map(|(name, exit)| Some(container(name, 0, (*exit)?)));
        let status = report(&pod, &made.collect::<Vec<_>>(), &WorkerState::default());
        assert_eq!(status.phase.as_deref(), Some(expect), "{policy} {exits:?}");
    };
    check("Always", &[None], "Pending");
    check("Always", &[Some(None), None], "Pending");
    check("Always", &[Some(None), Some(Some(1))], "Running");
    check("Always", &[Some(Some(0))], "Running");
    check("OnFailure", &[Some(Some(0)), Some(Some(1))], "Running");
    check("OnFailure", &[Some(Some(0)), Some(Some(0))], "Succeeded");
    check("Never", &[Some(Some(0)), Some(Some(1))], "Failed");
    check("Never", &[Some(None), Some(Some(1))], "Running");
}

#[test]
fn waiting_reasons() {
    let check = |spec: Value, containers: &[Container], memory: &WorkerState, expect: &str| {
        let status = report(&pod(spec), containers, memory);
        let all = status.container_statuses.unwrap_or_default();
        let waiting = all[0].state.as_ref().and_then(|state| state.waiting.clone()).unwrap_or_default();
        assert_eq!(waiting.reason.as_deref().unwrap_or_default(), expect);
    };
    let plain = json!({"containers": [{"name": "a"}]});
    check(plain.clone(), &[], &WorkerState::default(), "ContainerCreating");
    let init = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
    check(init.clone(), &[container("i", 0, None)], &WorkerState::default(), "PodInitializing");
    let first = report(&pod(init), &[], &WorkerState::default()).init_container_statuses.unwrap_or_default();
    let waiting = first[0].state.as_ref().and_then(|state| state.waiting.clone()).unwrap_or_default();
    assert_eq!(waiting.reason.as_deref(), Some("PodInitializing"), "the first init container waits so too");
    let mut memory = WorkerState::default();
    let now = Timestamp::UNIX_EPOCH;
    let pull = crate::kubelet::pods::state::PULL;
    memory.slot_mut("a").image =
        Image::Failed(BackoffEntry::after(None, pull, "ErrImagePull", "no".into(), now));
    check(plain.clone(), &[], &memory, "ErrImagePull");
    let mut memory = WorkerState::default();
    memory.slot_mut("a").restarted = Some(Restarted { attempt: 0, level: 1 });
    check(plain, &[container("a", 1, Some(1))], &memory, "CrashLoopBackOff");
}

#[test]
fn readiness_and_counts() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut memory = WorkerState::default();
    let containers = [container("a", 1, None), container("a", 0, Some(3))];
    let status = report(&pod, &containers, &memory);
    assert_eq!(condition(&status, "Ready"), "False");
    memory.started.insert("a-1".into());
    memory.ready.insert("a-1".into());
    memory.reported = Some(status.clone());
    let status = report(&pod, &containers, &memory);
    assert_eq!(condition(&status, "Ready"), "True");
    assert_eq!(condition(&status, "PodScheduled"), "True");
    let one = &status.container_statuses.as_ref().expect("one")[0];
    assert_eq!((one.restart_count, one.ready, one.started), (1, true, Some(true)));
    let last = one.last_state.as_ref().and_then(|state| state.terminated.clone()).expect("ended before");
    assert_eq!((last.exit_code, last.reason.as_deref()), (3, Some("Error")));
    assert_eq!(status.pod_ip.as_deref(), Some("10.42.0.2"));
    // A second look at the same facts is no news.
    memory.reported = Some(status.clone());
    assert_eq!(report(&pod, &containers, &memory), status);
}

#[test]
fn what_initializes_is_ready_only_when_it_has() {
    let pod = pod(json!({"initContainers": [{"name": "i"}, {"name": "j"}], "containers": [{"name": "a"}]}));
    let mut memory = WorkerState::default();
    let initializing = |memory: &WorkerState, exit| {
        let status = report(&pod, &[container("i", 3, exit)], memory);
        let of = |kind: &str| {
            let found = status.conditions.iter().flatten().find(|c| c.type_ == kind);
            found.and_then(|c| c.message.clone()).unwrap_or_default()
        };
        (status.init_container_statuses.as_ref().expect("two")[0].ready, of("Initialized"))
    };
    let both = "containers with incomplete status: [i j]".to_owned();
    // It runs, and without a probe nothing else is known of it.
    memory.started.insert("i-3".into());
    memory.ready.insert("i-3".into());
    assert_eq!(initializing(&memory, None), (false, both.clone()));
    assert_eq!(initializing(&memory, Some(1)), (false, both));
    assert_eq!(initializing(&memory, Some(0)), (true, "containers with incomplete status: [j]".to_owned()));
}

#[test]
fn durations_are_go_s() {
    assert_eq!([10, 80, 300].map(go_duration), ["10s", "1m20s", "5m0s"]);
}

#[test]
fn pods_end_in_a_phase() {
    let deleted = |mut pod: Pod| {
        pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        pod
    };
    let check = |pod: &Pod, containers: &[Container], expect: &str| {
        let status = report(pod, containers, &WorkerState::default());
        assert_eq!(status.phase.as_deref(), Some(expect), "{containers:?}");
    };
    let one = json!({"containers": [{"name": "a"}]});
    check(&deleted(pod(one.clone())), &[container("a", 0, None)], "Running");
    check(&deleted(pod(one.clone())), &[container("a", 0, Some(0))], "Succeeded");
    check(&deleted(pod(one.clone())), &[container("a", 0, Some(137))], "Failed");
    check(&deleted(pod(one)), &[], "Failed");
    let job = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}],
        "initContainers": [{"name": "side", "restartPolicy": "Always"}]}));
    let a = container("a", 0, Some(0));
    check(&job, &[container("side", 0, None), a.clone()], "Running");
    check(&job, &[container("side", 0, Some(143)), a], "Succeeded");
}

#[test]
fn containers_may_have_a_policy_of_their_own() {
    let check = |container: Value, code: i32, expect: bool| {
        let pod = pod(json!({"restartPolicy": "Always", "containers": [container]}));
        assert_eq!(restarts(&pod, &spec(&pod).containers[0], code), expect, "{container} {code}");
    };
    check(json!({"name": "a"}), 0, true);
    check(json!({"name": "a", "restartPolicy": "Never"}), 1, false);
    check(json!({"name": "a", "restartPolicy": "OnFailure"}), 0, false);
    let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let own = json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules": rules});
    check(own.clone(), 42, true);
    check(own, 1, false);
}

#[test]
fn what_others_wrote_over_our_report_is_dated_anew() {
    let mut pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut memory = WorkerState::default();
    memory.started.insert("a-0".into());
    memory.ready.insert("a-0".into());
    let containers = [container("a", 0, None)];
    let reported = report(&pod, &containers, &memory);
    let mut seen = reported.clone();
    for condition in seen.conditions.iter_mut().flatten().filter(|c| c.type_ == "Ready") {
        condition.status = "False".into();
        condition.last_transition_time = Some(Time(Timestamp::from_second(3).expect("time")));
    }
    for condition in memory.reported.insert(reported).conditions.iter_mut().flatten() {
        condition.last_transition_time = Some(Time(Timestamp::from_second(1).expect("time")));
    }
    memory.reported_at = Some("7".into());
    pod.metadata.resource_version = Some("8".into());
    pod.status = Some(seen);
    let again = report(&pod, &containers, &memory);
    let ready = again.conditions.iter().flatten().find(|c| c.type_ == "Ready").expect("a condition");
    let when = ready.last_transition_time.as_ref().map(|time| time.0.as_second());
    assert_eq!((ready.status.as_str(), when), ("True", Some(5)));
}

#[test]
fn a_pod_has_failed_when_nothing_of_it_runs_any_more() {
    let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    let memory = WorkerState { failed: Some(Failed::new("Evicted", "too much")), ..WorkerState::default() };
    let check = |exit: Option<i32>, phase: &str, reason: Option<&str>| {
        let status = report(&pod, &[container("a", 0, exit), container("b", 0, Some(0))], &memory);
        assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some(phase), reason));
    };
    check(None, "Running", None);
    check(Some(137), "Failed", Some("Evicted"));
    // One that never began is told of as upstream does, and waits for nothing.
    let status = report(&pod, &[container("a", 0, Some(137))], &memory);
    let states: Vec<_> =
        status.container_statuses.into_iter().flatten().filter_map(|c| c.state?.terminated).collect();
    assert_eq!(states.iter().map(|end| end.exit_code).collect::<Vec<_>>(), [137, 137]);
    assert_eq!(states[1].reason.as_deref(), Some("ContainerStatusUnknown"));
}

#[test]
fn containers_wait_for_images_that_volumes_show() {
    let volume = json!({"name": "v", "image": {"reference": "data:1"}});
    let pod = pod(json!({"containers": [{"name": "a"}], "volumes": [volume]}));
    let mut memory = WorkerState::default();
    let trouble = BackoffEntry {
        reason: "ImagePullBackOff".into(),
        message: "Back-off pulling image \"data:1\"".into(),
        failures: 1,
        retry_at: Timestamp::MAX,
    };
    memory.slot_mut("volume/v").image = Image::Failed(trouble);
    let status = report(&pod, &[], &memory);
    let waiting = status.container_statuses.expect("told")[0].state.clone().and_then(|state| state.waiting);
    assert_eq!(waiting.and_then(|waiting| waiting.reason).as_deref(), Some("ImagePullBackOff"));
}

#[test]
fn what_was_told_of_an_ended_pod_stays_when_its_containers_are_removed() {
    let ran = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    let before = report(&ran, &[container("a", 0, Some(3))], &WorkerState::default());
    assert_eq!(before.phase.as_deref(), Some("Failed"));
    let ended = Pod { status: Some(before.clone()), ..ran };
    let after = report(&ended, &[], &WorkerState::default());
    assert_eq!(after.container_statuses, before.container_statuses);
}

#[test]
fn whoever_had_to_make_room_was_disturbed() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let failed = |disrupted: bool| WorkerState {
        failed: Some(Failed { disrupted, ..Failed::new("Evicted", "full") }),
        ..WorkerState::default()
    };
    let ended = [container("a", 0, Some(137))];
    let status = report(&pod, &ended, &failed(true));
    assert_eq!((status.phase.as_deref(), status.reason.as_deref()), (Some("Failed"), Some("Evicted")));
    assert_eq!(condition(&status, "DisruptionTarget"), "True");
    let own = report(&pod, &ended, &failed(false));
    assert_eq!(condition(&own, "DisruptionTarget"), "", "its own limit is its own doing");
}

#[test]
fn mounts_are_told_of_from_the_beginning() {
    let mounts = json!([{"name": "data", "mountPath": "/data"}, {"name": "conf", "mountPath": "/etc/conf", "readOnly": true,
        "recursiveReadOnly": "IfPossible"}]);
    let pod = pod(json!({"containers": [{"name": "a", "volumeMounts": mounts}, {"name": "b"}]}));
    let told = |containers: &[Container]| {
        let status = report(&pod, containers, &WorkerState::default());
        let of = |status: ContainerStatus| serde_json::to_value(status.volume_mounts).expect("JSON");
        status.container_statuses.unwrap_or_default().into_iter().map(of).collect::<Vec<_>>()
    };
    let expect = [
        json!([{"name": "data", "mountPath": "/data"},
            {"name": "conf", "mountPath": "/etc/conf", "readOnly": true, "recursiveReadOnly": "Disabled"}]),
        Value::Null,
    ];
    assert_eq!(told(&[]), expect);
    assert_eq!(told(&[container("a", 0, None)]), expect);
}
