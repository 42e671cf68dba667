use serde_json::{Value, json};

use super::*;
use crate::node::cri::api;
use crate::node::kubelet::pods::memory::Restarted;
use crate::node::kubelet::pods::view::Sandbox;
use crate::node::kubelet::testing;

/// A container in the view: name, sandbox, attempt, `running` or its exit code.
fn container(name: &str, sandbox: &str, attempt: u32, exit: Option<i32>) -> Container {
    let state = if exit.is_some() {
        api::ContainerState::ContainerExited
    } else {
        api::ContainerState::ContainerRunning
    };
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
    Container { sandbox: sandbox.into(), status, message: None }
}

fn sandbox(id: &str, ready: bool) -> Sandbox {
    Sandbox { id: id.into(), ready, ips: vec!["10.42.0.2".into()], ..Default::default() }
}

fn view(sandboxes: &[Sandbox], containers: &[Container]) -> View {
    View { sandboxes: sandboxes.to_vec(), containers: containers.to_vec() }
}

fn pod(spec: Value) -> Pod {
    testing::pod(json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": spec}))
}

fn ready(names: &[&str]) -> Memory {
    let mut memory = Memory { volumes_ready: true, ..Memory::default() };
    for name in names {
        memory.slot_mut(name).image = Image::Ready("sha256:1".into());
    }
    memory
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("time")
}

fn keys(pod: &Pod, view: &View, memory: &Memory) -> Vec<String> {
    plan(&Input { pod, view, memory, now: at(3) }).ops.iter().map(Op::key).collect()
}

#[test]
fn everything_starts_side_by_side() {
    let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    let nothing = View::default();
    assert_eq!(keys(&pod, &nothing, &Memory::default()), ["volumes", "sandbox", "pull a", "pull b"]);
    let one = view(&[sandbox("s", true)], &[]);
    assert_eq!(keys(&pod, &one, &ready(&["a"])), ["start a", "pull b"]);
    let mut busy = ready(&["a"]);
    busy.busy.insert("pull b".into());
    assert_eq!(keys(&pod, &one, &busy), ["start a"]);
}

#[test]
fn init_containers_go_one_by_one_and_sidecars_stay() {
    let pod = pod(json!({
        "initContainers": [{"name": "i1"}, {"name": "side", "restartPolicy": "Always"}, {"name": "i2"}],
        "containers": [{"name": "a"}]
    }));
    let all = ready(&["i1", "side", "i2", "a"]);
    let check = |containers: &[Container], memory: &Memory, expect: &[&str]| {
        assert_eq!(keys(&pod, &view(&[sandbox("s", true)], containers), memory), expect, "{containers:?}");
    };
    let i1 = container("i1", "s", 0, Some(0));
    let side = container("side", "s", 0, None);
    check(&[], &all, &["start i1"]);
    check(std::slice::from_ref(&i1), &all, &["start side"]);
    check(&[i1.clone(), side.clone()], &all, &[]);
    let mut started = all.clone();
    started.started.insert("side-0".into());
    check(&[i1.clone(), side.clone()], &started, &["start i2"]);
    let i2 = container("i2", "s", 0, Some(0));
    check(&[i1.clone(), side.clone(), i2.clone()], &started, &["start a"]);
    // Once the others run, a sidecar that ends is started again by itself.
    let ended = container("side", "s", 0, Some(1));
    check(&[i1, ended, i2, container("a", "s", 0, None)], &started, &["start side"]);
}

#[test]
fn a_crash_waits_longer_each_time() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let check = |restarts: u32, now: i64, starts: bool, wake: Option<i64>| {
        let mut memory = ready(&["a"]);
        let last = restarts.checked_sub(1).map(|level| Restarted { attempt: 0, level });
        memory.slot_mut("a").restarted = last;
        let view = view(&[sandbox("s", true)], &[container("a", "s", 1, Some(1))]);
        let plan = plan(&Input { pod: &pod, view: &view, memory: &memory, now: at(now) });
        let start = Op::Start { container: "a".into(), attempt: 2 };
        assert_eq!(
            (plan.ops.contains(&start), plan.wake),
            (starts, wake.map(at)),
            "{restarts} restarts at {now}"
        );
    };
    check(1, 3, false, Some(12));
    check(1, 12, true, None);
    check(3, 12, false, Some(42));
    check(9, 12, false, Some(302));
}

#[test]
fn the_first_restart_is_at_once_and_stays_so_while_it_is_under_way() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let ended = container("a", "s", 0, Some(1));
    let view = view(&[sandbox("s", true)], std::slice::from_ref(&ended));
    let mut memory = ready(&["a"]);
    assert_eq!(keys(&pod, &view, &memory), ["start a"]);
    memory.count_restart(&ended);
    memory.busy.insert("start a".into());
    let plan = plan(&Input { pod: &pod, view: &view, memory: &memory, now: at(3) });
    assert_eq!(plan, Plan::default());
}

#[test]
fn policies_decide_who_starts_again() {
    let check = |policy: &str, exit: i32, expect: &[&str]| {
        let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}));
        let view =
            view(&[sandbox("s", true)], &[container("a", "s", 0, Some(exit)), container("b", "s", 0, None)]);
        assert_eq!(keys(&pod, &view, &ready(&["a"])), expect, "{policy} {exit}");
    };
    check("Always", 0, &["start a"]);
    check("OnFailure", 0, &[]);
    check("OnFailure", 1, &["start a"]);
    check("Never", 1, &[]);
}

#[test]
fn the_end_comes_in_order() {
    let mut pod = pod(json!({
        "initContainers": [{"name": "side", "restartPolicy": "Always"}], "containers": [{"name": "a"}]
    }));
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1)));
    pod.metadata.deletion_grace_period_seconds = Some(5);
    let (a, side) = (container("a", "s", 0, None), container("side", "s", 0, None));
    let (a_ended, side_ended) = (container("a", "s", 0, Some(0)), container("side", "s", 0, Some(0)));
    let memory = Memory::default();
    let check = |sandbox: &Sandbox, containers: &[Container], memory: &Memory, expect: &[&str]| {
        assert_eq!(
            keys(&pod, &view(std::slice::from_ref(sandbox), containers), memory),
            expect,
            "{containers:?}"
        );
    };
    let (up, down) = (sandbox("s", true), sandbox("s", false));
    check(&up, &[a, side.clone()], &memory, &["stop a-0 5"]);
    check(&up, &[a_ended.clone(), side], &memory, &["stop side-0 5"]);
    check(&up, &[a_ended.clone(), side_ended.clone()], &memory, &["stop-sandbox s"]);
    check(&down, &[a_ended.clone(), side_ended.clone()], &memory, &["finish"]);
    let gone = Memory { gone: true, ..Memory::default() };
    check(&down, &[a_ended, side_ended], &gone, &["cleanup"]);
}

#[test]
fn a_dead_sandbox_is_replaced() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let memory = ready(&["a"]);
    let ended = container("a", "s", 0, Some(255));
    let check = |sandboxes: &[Sandbox], memory: &Memory, expect: &[&str]| {
        assert_eq!(keys(&pod, &view(sandboxes, std::slice::from_ref(&ended)), memory), expect);
    };
    check(&[sandbox("s", false)], &memory, &["stop-sandbox s"]);
    let mut stopped = memory.clone();
    stopped.stopped_sandboxes.insert("s".into());
    check(&[sandbox("s", false)], &stopped, &["sandbox"]);
    // In the new sandbox the container is new, and its count goes on.
    let both = view(&[sandbox("t", true), sandbox("s", false)], &[ended]);
    let plan = plan(&Input { pod: &pod, view: &both, memory: &stopped, now: at(3) });
    assert_eq!(plan.ops, [Op::Start { container: "a".into(), attempt: 1 }]);
}

#[test]
fn a_changed_image_and_a_failed_probe_stop_the_container() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "web:2"}]}));
    let mut old = container("a", "s", 0, None);
    old.status.annotations.insert("io.kubernetes.container.hash".into(), "other".into());
    let running = view(&[sandbox("s", true)], &[old]);
    assert_eq!(keys(&pod, &running, &ready(&[])), ["stop a-0 30"]);
    let mut condemned = ready(&[]);
    let verdict = crate::node::kubelet::pods::memory::Verdict { message: "x".into(), grace: Some(3) };
    condemned.condemned.insert("a-0".into(), verdict);
    let running = view(&[sandbox("s", true)], &[container("a", "s", 0, None)]);
    assert_eq!(keys(&pod, &running, &condemned), ["stop a-0 3"]);
}

#[test]
fn old_containers_are_collected() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let containers: Vec<_> = (0..4).rev().map(|n| container("a", "s", n, (n < 3).then_some(1))).collect();
    assert_eq!(
        keys(&pod, &view(&[sandbox("s", true)], &containers), &ready(&[])),
        ["remove a-1", "remove a-0"]
    );
}
