//! Tests of a Pod's plan.

use serde_json::{Value, json};

use super::*;
use crate::kubelet::pods::admission::Refusal;
use crate::kubelet::pods::state::{Failed, Restarted};
use crate::kubelet::pods::view::Sandbox;
use crate::kubelet::pods::view::testing::container;
use crate::kubelet::testing;

fn sandbox(id: &str, ready: bool) -> Sandbox {
    Sandbox { id: id.into(), ready, ips: vec!["10.42.0.2".into()], ..Default::default() }
}

fn view(sandboxes: &[Sandbox], containers: &[Container]) -> View {
    View { sandboxes: sandboxes.to_vec(), containers: containers.to_vec(), reset: None }
}

fn pod(spec: Value) -> Pod {
    testing::pod(json!({"metadata": {"name": "web", "namespace": "shop", "uid": "u"}, "spec": spec}))
}

fn ready(names: &[&str]) -> WorkerState {
    let mut memory = WorkerState { volumes_ready: true, ..WorkerState::default() };
    for name in names {
        memory.slot_mut(name).image = Image::Ready("sha256:1".into());
    }
    memory
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("time")
}

fn keys(pod: &Pod, view: &View, memory: &WorkerState) -> Vec<String> {
    plan(&Input { pod, view, memory, now: at(3) }).ops.iter().map(|action| action.key().to_string()).collect()
}

/// Names and attempts of what a plan starts.
fn starts_of(plan: &Plan) -> Vec<(String, u32)> {
    let start = |action: &Action| match action {
        Action::Start(start) => Some((start.container.clone(), start.attempt)),
        _ => None,
    };
    plan.ops.iter().filter_map(start).collect()
}

#[test]
fn everything_starts_side_by_side() {
    let pod = pod(json!({"containers": [{"name": "a"}, {"name": "b"}]}));
    let nothing = View::default();
    assert_eq!(keys(&pod, &nothing, &WorkerState::default()), ["volumes", "sandbox", "pull a", "pull b"]);
    let one = view(&[sandbox("s", true)], &[]);
    assert_eq!(keys(&pod, &one, &ready(&["a"])), ["start a", "pull b"]);
    let mut busy = ready(&["a"]);
    busy.busy.insert(Key::Pull("b".into()));
    assert_eq!(keys(&pod, &one, &busy), ["start a"]);
}

#[test]
fn init_containers_go_one_by_one_and_sidecars_stay() {
    let pod = pod(json!({
        "initContainers": [{"name": "i1"}, {"name": "side", "restartPolicy": "Always"}, {"name": "i2"}],
        "containers": [{"name": "a"}]
    }));
    let all = ready(&["i1", "side", "i2", "a"]);
    let check = |containers: &[Container], memory: &WorkerState, expect: &[&str]| {
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
        assert_eq!(
            (starts_of(&plan).contains(&("a".to_owned(), 2)), plan.wake),
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
    memory.busy.insert(Key::Start("a".into()));
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
    let memory = WorkerState::default();
    let check = |sandbox: &Sandbox, containers: &[Container], memory: &WorkerState, expect: &[&str]| {
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
    let gone = WorkerState { gone: true, ..WorkerState::default() };
    check(&down, &[a_ended, side_ended], &gone, &["cleanup"]);
}

#[test]
fn a_dead_sandbox_is_replaced() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let memory = ready(&["a"]);
    let ended = container("a", "s", 0, Some(255));
    let check = |sandboxes: &[Sandbox], memory: &WorkerState, expect: &[&str]| {
        assert_eq!(keys(&pod, &view(sandboxes, std::slice::from_ref(&ended)), memory), expect);
    };
    check(&[sandbox("s", false)], &memory, &["stop-sandbox s"]);
    let mut stopped = memory.clone();
    stopped.stopped_sandboxes.insert("s".into());
    check(&[sandbox("s", false)], &stopped, &["sandbox"]);
    // In the new sandbox the container is new, and its count goes on.
    let both = view(&[sandbox("t", true), sandbox("s", false)], &[ended]);
    let plan = plan(&Input { pod: &pod, view: &both, memory: &stopped, now: at(3) });
    assert_eq!((plan.ops.len(), starts_of(&plan)), (1, vec![("a".to_owned(), 1)]));
}

#[test]
fn a_changed_image_and_a_failed_probe_stop_the_container() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "web:2"}]}));
    let mut old = container("a", "s", 0, None);
    old.status.annotations.insert("io.kubernetes.container.hash".into(), "other".into());
    let running = view(&[sandbox("s", true)], &[old]);
    assert_eq!(keys(&pod, &running, &ready(&[])), ["stop a-0 30"]);
    let mut condemned = ready(&[]);
    let verdict = crate::kubelet::pods::state::Verdict { message: "x".into(), grace: Some(3) };
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

#[test]
fn containers_start_one_after_the_other_s_hook() {
    let pod = pod(json!({"containers": [
        {"name": "a", "lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}, {"name": "b"}]}));
    let all = ready(&["a", "b"]);
    let up = |containers: &[Container]| view(&[sandbox("s", true)], containers);
    assert_eq!(keys(&pod, &up(&[]), &all), ["start a"], "b waits for a");
    let a = container("a", "s", 0, None);
    let mut hooked = all.clone();
    hooked.hooked.insert("a-0".into());
    assert_eq!(keys(&pod, &up(std::slice::from_ref(&a)), &hooked), ["post-start a-0"]);
    let mut starting = all.clone();
    starting.busy.insert(Key::Start("a".into()));
    assert_eq!(
        keys(&pod, &up(std::slice::from_ref(&a)), &starting),
        [""; 0],
        "seen to run before its start ended"
    );
    assert_eq!(keys(&pod, &up(&[a]), &all), ["start b"]);
    // A container that cannot be started holds up nobody.
    let mut failing = ready(&["b"]);
    let pull = crate::kubelet::pods::state::PULL;
    failing.slot_mut("a").image =
        Image::Failed(BackoffEntry::after(None, pull, "ErrImagePull", "no".into(), at(3)));
    assert_eq!(keys(&pod, &up(&[]), &failing), ["start b"]);
}

#[test]
fn a_hanging_hook_does_not_keep_a_deleted_pod() {
    let mut pod = pod(json!({"containers": [
        {"name": "a", "lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}]}));
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1)));
    pod.metadata.deletion_grace_period_seconds = Some(1);
    let mut memory = ready(&[]);
    memory.hooked.insert("a-0".into());
    memory.busy.insert(Key::PostStart("a-0".into()));
    let view = view(&[sandbox("s", true)], &[container("a", "s", 0, None)]);
    assert_eq!(keys(&pod, &view, &memory), ["stop a-0 1"]);
}

#[test]
fn pre_stop_runs_once_and_within_the_time_given() {
    let mut pod = pod(json!({
        "initContainers": [{"name": "side", "restartPolicy": "Always"}],
        "containers": [{"name": "a", "lifecycle": {"preStop": {"exec": {"command": ["x"]}}}}]}));
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(1)));
    pod.metadata.deletion_grace_period_seconds = Some(30);
    let view = view(&[sandbox("s", true)], &[container("a", "s", 0, None), container("side", "s", 0, None)]);
    let mut memory = WorkerState { ending_since: Some(at(1)), ..ready(&[]) };
    assert_eq!(keys(&pod, &view, &memory), ["pre-stop a-0"]);
    memory.busy.insert(Key::PreStop("a-0".into()));
    assert_eq!(keys(&pod, &view, &memory), [""; 0]);
    memory.pre_stopped.insert("a-0".into());
    assert_eq!(keys(&pod, &view, &memory), ["stop a-0 30"]);
    memory.busy.insert(Key::Stop("a-0".into(), 30));
    // Shortened: stopped at once, without the hook again; the sidecar's turn comes with the end of the shared time.
    pod.metadata.deletion_grace_period_seconds = Some(1);
    assert_eq!(keys(&pod, &view, &memory), ["stop a-0 1", "stop side-0 1"]);
}

#[test]
fn what_failed_is_tried_again_later() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let mut memory = ready(&["a"]);
    let verdict = crate::kubelet::pods::state::Verdict { message: "x".into(), grace: Some(3) };
    memory.condemned.insert("a-0".into(), verdict);
    memory.fail(Key::Stop("a-0".into(), 3), "deadline".into(), at(3));
    let view = view(&[sandbox("s", true)], &[container("a", "s", 0, None)]);
    let planned = |now: i64| plan(&Input { pod: &pod, view: &view, memory: &memory, now: at(now) });
    assert_eq!((planned(3).ops.len(), planned(3).wake), (0, Some(at(4))));
    assert_eq!(planned(4).ops.len(), 1, "the verdict still stands");
}

#[test]
fn dead_sandboxes_go_when_nothing_of_them_is_kept() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let sandboxes = [sandbox("t", true), sandbox("s", false)];
    let kept = [container("a", "t", 1, None), container("a", "s", 0, Some(1))];
    assert_eq!(keys(&pod, &view(&sandboxes, &kept), &ready(&[])), [""; 0]);
    let mut memory = ready(&[]);
    assert_eq!(keys(&pod, &view(&sandboxes, &kept[..1]), &memory), ["remove-sandbox s"]);
    memory.removed.insert("s".into());
    assert_eq!(keys(&pod, &view(&sandboxes, &kept[..1]), &memory), [""; 0]);
}

#[test]
fn ephemeral_containers_start_once_beside_the_others() {
    let pod = pod(json!({"containers": [{"name": "a"}],
        "ephemeralContainers": [{"name": "debug", "targetContainerName": "a"}]}));
    let a = container("a", "s", 0, None);
    let debugging = view(&[sandbox("s", true)], std::slice::from_ref(&a));
    assert_eq!(keys(&pod, &debugging, &ready(&[])), ["pull debug"]);
    let plan = plan(&Input { pod: &pod, view: &debugging, memory: &ready(&["debug"]), now: at(3) });
    let Some(Action::Start(start)) = plan.ops.first() else { panic!("{plan:?}") };
    assert_eq!((start.container.as_str(), start.target.as_deref()), ("debug", Some("a-0")));
    let ended = view(&[sandbox("s", true)], &[a, container("debug", "s", 0, Some(1))]);
    assert_eq!(keys(&pod, &ended, &ready(&["debug"])), [""; 0]);
}

#[test]
fn resources_change_in_place_or_by_a_restart() {
    let check = |policy: Value, expect: &[&str]| {
        let pod = pod(json!({"containers": [{"name": "a", "resizePolicy": policy,
            "resources": {"limits": {"cpu": "200m"}}}]}));
        let mut a = container("a", "s", 0, None);
        a.status.annotations.insert("io.minik.container.resources".into(), "cpu=100/100 memory=/".into());
        assert_eq!(keys(&pod, &view(&[sandbox("s", true)], &[a]), &ready(&[])), expect, "{policy}");
    };
    check(json!([]), &["resize a-0"]);
    check(json!([{"resourceName": "memory", "restartPolicy": "RestartContainer"}]), &["resize a-0"]);
    check(json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]), &["stop a-0 30"]);
}

#[test]
fn a_resize_waits_for_room() {
    let pod = pod(json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "200m"}}}]}));
    let mut a = container("a", "s", 0, None);
    a.status.annotations.insert("io.minik.container.resources".into(), "cpu=100/100 memory=/".into());
    let view = view(&[sandbox("s", true)], &[a]);
    let mut memory = ready(&[]);
    memory.no_room = Some(Refusal { reason: "Deferred".into(), message: "cpu".into() });
    assert_eq!(keys(&pod, &view, &memory), [""; 0]);
    let told = |memory: &WorkerState| {
        let input = Input { pod: &pod, view: &view, memory, now: at(3) };
        let status = status::status(&input, &status::Host { ip: "10.0.0.1".into() });
        let conditions = status.conditions.unwrap_or_default();
        let resize = conditions.into_iter().find(|condition| condition.type_.starts_with("PodResize"));
        resize.map(|condition| (condition.type_, condition.reason.unwrap_or_default()))
    };
    assert_eq!(told(&memory), Some(("PodResizePending".to_owned(), "Deferred".to_owned())));
    memory.no_room = None;
    assert_eq!(told(&memory), Some(("PodResizeInProgress".to_owned(), String::new())));
}

#[test]
fn a_rule_restarts_all_containers_init_ones_first() {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [88]}}]);
    let pod = pod(json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}],
        "containers": [{"name": "a"}, {"name": "w", "restartPolicy": "Never", "restartPolicyRules": rules}]}));
    let all = ready(&["i", "a", "w"]);
    let made = |name: &str, attempt: u32, exit: Option<i32>, created: i64, finished: i64| {
        let mut one = container(name, "s", attempt, exit);
        (one.status.created_at, one.status.finished_at) = (created, finished);
        one
    };
    let check = |containers: &[Container], expect: &[&str]| {
        let mut view = view(&[sandbox("s", true)], containers);
        view.containers.sort_by_key(|container| std::cmp::Reverse(container.status.created_at));
        view.reset = status::reset(&pod, &view.containers);
        assert_eq!(keys(&pod, &view, &all), expect, "{containers:?}");
        let input = Input { pod: &pod, view: &view, memory: &all, now: at(100) };
        assert_eq!(status::phase(&input), "Running");
    };
    let (i, a) = (made("i", 0, Some(0), 1, 2), made("a", 0, None, 3, 0));
    let other = made("w", 0, Some(1), 4, 10);
    check(&[i.clone(), a.clone(), other], &[]);
    let w = made("w", 0, Some(88), 4, 10);
    check(&[i.clone(), a, w.clone()], &["stop a-0 30"]);
    let ended = made("a", 0, Some(137), 3, 11);
    check(&[i.clone(), ended.clone(), w.clone()], &["start i"]);
    let again = made("i", 1, Some(0), 12, 13);
    check(&[i.clone(), again.clone(), ended.clone(), w.clone()], &["start a"]);
    // Started again: what ended before is of the past.
    let (a2, w2) = (made("a", 1, None, 14, 0), made("w", 1, Some(0), 15, 16));
    check(&[i, again, ended, w, a2, w2], &[]);
}

#[test]
fn images_that_volumes_show_are_fetched_first() {
    let volume = json!({"name": "v", "image": {"reference": "data:1"}});
    let pod = pod(json!({"containers": [{"name": "a"}], "volumes": [volume]}));
    let nothing = View::default();
    assert_eq!(keys(&pod, &nothing, &WorkerState::default()), ["pull volume/v", "sandbox", "pull a"]);
    let mut memory = WorkerState::default();
    let trouble = BackoffEntry {
        reason: "ErrImagePull".into(),
        message: "no such host".into(),
        failures: 1,
        retry_at: at(10),
    };
    memory.slot_mut("volume/v").image = Image::Failed(trouble);
    assert_eq!(keys(&pod, &nothing, &memory), ["sandbox", "pull a"], "it waits");
    memory.slot_mut("volume/v").image = Image::Ready("sha256:1".into());
    assert_eq!(keys(&pod, &nothing, &memory), ["volumes", "sandbox", "pull a"]);
}

#[test]
fn what_has_ended_lets_go_of_its_volumes_once() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    let ended = view(&[sandbox("s", false)], &[container("a", "s", 0, Some(0))]);
    assert_eq!(keys(&pod, &ended, &ready(&["a"])), ["release"]);
    let mut memory = ready(&["a"]);
    memory.busy.insert(Key::Refresh);
    assert!(keys(&pod, &ended, &memory).is_empty(), "what is being written is waited for");
    memory = ready(&["a"]);
    memory.released = true;
    assert!(keys(&pod, &ended, &memory).is_empty());
    let mut stopping = ready(&["a"]);
    stopping.shutdown = Some(5);
    let again = testing::pod(json!({"metadata": {"name": "web"}, "spec": {"containers": [{"name": "a"}]}}));
    assert!(keys(&again, &ended, &stopping).is_empty(), "it runs again with its node");
}

#[test]
fn who_is_evicted_gets_little_time() {
    let pod = pod(json!({"terminationGracePeriodSeconds": 600, "containers": [{"name": "a"}]}));
    let running = view(&[sandbox("s", true)], &[container("a", "s", 0, None)]);
    let mut memory = ready(&["a"]);
    memory.failed = Some(Failed { grace: Some(1), ..Failed::new("Evicted", "full") });
    let plan = plan(&Input { pod: &pod, view: &running, memory: &memory, now: at(3) });
    let Some(Action::Stop(stop)) = plan.ops.first() else { panic!("it is stopped: {plan:?}") };
    assert_eq!((stop.grace, stop.kill_at), (1, at(5)), "the stop signal is seen");
}
