use serde_json::{Value, json};

use super::*;
use crate::node::cri::api;
use crate::node::kubelet::pods::memory::{Memory, Restarted, Trouble};
use crate::node::kubelet::pods::view::{Sandbox, View};
use crate::node::kubelet::testing;

fn container(name: &str, attempt: u32, exit: Option<i32>) -> Container {
    let state = if exit.is_some() { RuntimeState::ContainerExited } else { RuntimeState::ContainerRunning };
    let status = api::ContainerStatus {
        id: format!("{name}-{attempt}"),
        metadata: Some(api::ContainerMetadata { name: name.into(), attempt }),
        state: state.into(),
        created_at: i64::from(attempt) + 1,
        started_at: 1_000_000_000,
        finished_at: if exit.is_some() { 2_000_000_000 } else { 0 },
        exit_code: exit.unwrap_or(0),
        ..Default::default()
    };
    Container { sandbox: "s".into(), status, message: None }
}

fn pod(spec: Value) -> Pod {
    testing::pod(json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": spec}))
}

fn report(pod: &Pod, containers: &[Container], memory: &Memory) -> PodStatus {
    let sandbox =
        Sandbox { id: "s".into(), ready: true, ips: vec!["10.42.0.2".into()], ..Default::default() };
    let mut containers = containers.to_vec();
    containers.sort_by_key(|c| std::cmp::Reverse(c.status.created_at));
    let view = View { sandboxes: vec![sandbox], containers };
    let now = Timestamp::from_second(5).expect("time");
    status(&Input { pod, view: &view, memory, now }, &Host { ip: "172.20.0.3".into() })
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
        let status = report(&pod, &made.collect::<Vec<_>>(), &Memory::default());
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
    let check = |spec: Value, containers: &[Container], memory: &Memory, expect: &str| {
        let status = report(&pod(spec), containers, memory);
        let all = status.container_statuses.unwrap_or_default();
        let waiting = all[0].state.as_ref().and_then(|state| state.waiting.clone()).unwrap_or_default();
        assert_eq!(waiting.reason.as_deref().unwrap_or_default(), expect);
    };
    let plain = json!({"containers": [{"name": "a"}]});
    check(plain.clone(), &[], &Memory::default(), "ContainerCreating");
    let init = json!({"initContainers": [{"name": "i"}], "containers": [{"name": "a"}]});
    check(init.clone(), &[container("i", 0, None)], &Memory::default(), "PodInitializing");
    let first = report(&pod(init), &[], &Memory::default()).init_container_statuses.unwrap_or_default();
    let waiting = first[0].state.as_ref().and_then(|state| state.waiting.clone()).unwrap_or_default();
    assert_eq!(waiting.reason.as_deref(), Some("PodInitializing"), "the first init container waits so too");
    let mut memory = Memory::default();
    let now = Timestamp::UNIX_EPOCH;
    let pull = crate::node::kubelet::pods::memory::PULL;
    memory.slot_mut("a").image = Image::Failed(Trouble::after(None, pull, "ErrImagePull", "no".into(), now));
    check(plain.clone(), &[], &memory, "ErrImagePull");
    let mut memory = Memory::default();
    memory.slot_mut("a").restarted = Some(Restarted { attempt: 0, level: 1 });
    check(plain, &[container("a", 1, Some(1))], &memory, "CrashLoopBackOff");
}

#[test]
fn readiness_and_counts() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut memory = Memory::default();
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
fn durations_are_go_s() {
    assert_eq!([10, 80, 300].map(go_duration), ["10s", "1m20s", "5m0s"]);
}
