//! Tests of a worker against a made-up runtime and API server.

use serde_json::{Value, json};
use tonic::Code;

use super::*;
use crate::kubelet::objects::Objects;
use crate::kubelet::pods::ops::Outcome;
use crate::kubelet::services::Services;
use crate::kubelet::testing::{self, FakeApi, FakeRuntime, Fault, eventually};
use client::events::Recorder;
use rt::{SystemClock, Tasks};

/// A worker with its Pod, a runtime on a socket and an API server, all made up.
struct Bench {
    runtime: FakeRuntime,
    api: FakeApi,
    inbox: mpsc::UnboundedSender<Message>,
    tasks: Tasks,
    ended: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

fn context(dir: &std::path::Path, api: &FakeApi, runtime: &FakeRuntime, tasks: &Tasks) -> Arc<Context> {
    let client = api.client();
    Arc::new(Context {
        config: config::NodeConfig::example(),
        events: Recorder::start(client.clone(), "kubelet", "node", Arc::new(SystemClock), tasks),
        objects: Objects::new(client.clone(), tasks.clone()),
        // Its source is gone at once: there are no Services.
        services: Services::new(crate::network::Source::new().1),
        policies: crate::policy::Policies::none(),
        probes: crate::kubelet::probe::Answers::default(),
        drivers: crate::kubelet::plugins::Drivers::new(dir),
        mirrors: crate::kubelet::statics::Mirrors::default(),
        client,
        runtime: runtime.client(),
        images: crate::images::Arrival::none(),
        tasks: tasks.clone(),
        limits: crate::kubelet::pressure::Limits::new(&config::Arguments::default()),
        pressure: tokio::sync::watch::Sender::new(crate::kubelet::pressure::Pressure::default()),
        node: tokio::sync::watch::Sender::new(Arc::default()),
        dir: dir.to_owned(),
        resolv_conf: String::new(),
        cpu_milli: 1000,
        memory: 1 << 30,
    })
}

impl Bench {
    fn start(uid: &str, mut spec: Value, faults: &[(&str, Fault)]) -> Self {
        for container in spec["containers"].as_array_mut().expect("containers") {
            container["image"] = json!("web:1");
        }
        let dir = tempfile::tempdir().expect("folder");
        let tasks = Tasks::new();
        let (runtime, mut changes) = FakeRuntime::start(dir.path(), &tasks);
        for (method, fault) in faults {
            runtime.fault(method, fault.clone());
        }
        let metadata = json!({"name": uid, "namespace": "test", "uid": uid});
        let api = FakeApi::with(&testing::pod(json!({"metadata": metadata, "spec": spec})));
        let context = context(dir.path(), &api, &runtime, &tasks);
        let (inbox, receiver) = mpsc::unbounded_channel();
        let worker = Worker::new(context, Arc::new(api.pod()), receiver);
        let ended = tasks.spawn(worker.run());
        let wake = inbox.clone();
        tasks.spawn_until_stop(async move {
            while changes.recv().await.is_some() && wake.send(Message::Runtime).is_ok() {}
        });
        Self { runtime, api, inbox, tasks, ended, _dir: dir }
    }

    async fn ready(&self) {
        eventually("the Pod is Ready", || self.api.condition("Ready") == "True").await;
    }

    fn delete(&self, grace: i64) {
        let patch = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z",
            "deletionGracePeriodSeconds": grace}});
        let _ = self.inbox.send(Message::Pod(Arc::new(self.api.change(&patch)), None));
    }

    /// Deletes the Pod and waits until nothing of it is left.
    async fn end(self) {
        self.delete(1);
        eventually("the API server is told of the end", || self.api.is_deleted()).await;
        let _ = self.inbox.send(Message::Gone);
        tokio::time::timeout(Duration::from_secs(10), self.ended)
            .await
            .expect("the worker ends")
            .expect("well");
        assert_eq!(self.runtime.count("RemovePodSandbox"), self.runtime.count("RunPodSandbox"));
        self.tasks.drain(Duration::from_secs(5)).await.expect("nothing outlives the test");
    }
}

fn hooks(post_start: &str, pre_stop: &str) -> Value {
    let exec = |command: &str| json!({"exec": {"command": [command]}});
    json!({"postStart": exec(post_start), "preStop": exec(pre_stop)})
}

/// What was being written when something changed had been read before.
#[tokio::test]
async fn a_change_while_volumes_are_written_is_not_lost() {
    let (dir, tasks) = (tempfile::tempdir().expect("folder"), Tasks::new());
    let (runtime, _changes) = FakeRuntime::start(dir.path(), &tasks);
    let metadata = json!({"name": "a", "namespace": "test", "uid": "a"});
    let spec = json!({"containers": [{"name": "a", "image": "web:1"}]});
    let api = FakeApi::with(&testing::pod(json!({"metadata": metadata, "spec": spec})));
    let (_inbox, receiver) = mpsc::unbounded_channel();
    let context = context(dir.path(), &api, &runtime, &tasks);
    let mut worker = Worker::new(context, Arc::new(api.pod()), receiver);
    let is_due = |worker: &Worker| worker.refresh_at.is_some_and(|at| at <= Timestamp::now());
    worker.references_changed();
    worker.take(Key::Volumes, Outcome::Volumes(Ok(HashMap::new())));
    assert!(is_due(&worker), "it changed while volumes were prepared");
    worker.outdated = false;
    for outcome in [Ok(()), Err("a volume is not there".to_owned())] {
        worker.memory.busy.insert(Key::Refresh);
        worker.references_changed();
        worker.memory.busy.remove(&Key::Refresh);
        worker.take(Key::Refresh, Outcome::Refreshed(outcome));
        assert!(is_due(&worker), "it changed while they were refreshed");
    }
    worker.refresh();
    worker.memory.busy.remove(&Key::Refresh);
    worker.take(Key::Refresh, Outcome::Refreshed(Ok(())));
    assert!(!is_due(&worker), "once is enough");
    tasks.stop().cancel();
}

#[tokio::test]
async fn a_pod_runs_and_goes() {
    let bench = Bench::start("runs", json!({"containers": [{"name": "a"}]}), &[]);
    bench.ready().await;
    assert_eq!(bench.api.phase(), "Running");
    bench.delete(1);
    eventually("it ended", || bench.api.is_deleted()).await;
    assert_eq!(bench.api.phase(), "Failed", "its container was stopped by a signal");
    let expect =
        ["RunPodSandbox", "CreateContainer a", "StartContainer a", "StopContainer a", "StopPodSandbox"];
    assert_eq!(bench.runtime.calls(), expect);
    bench.end().await;
}

#[tokio::test]
async fn a_hanging_post_start_is_no_hold() {
    let spec = json!({"containers": [{"name": "a", "lifecycle": hooks("hang", "x")}, {"name": "b"}]});
    let bench = Bench::start("hanging", spec, &[]);
    eventually("the hook runs", || bench.runtime.count("ExecSync a hang") == 1).await;
    assert_eq!(bench.runtime.count("CreateContainer b"), 0, "b waits for the hook of a");
    bench.end().await;
}

#[tokio::test]
async fn containers_start_in_order() {
    let spec = json!({"containers": [{"name": "a", "lifecycle": hooks("wait", "x")}, {"name": "b"}]});
    let bench = Bench::start("order", spec, &[]);
    eventually("the hook runs", || bench.runtime.count("ExecSync a wait") == 1).await;
    assert_eq!(bench.runtime.count("CreateContainer b"), 0);
    bench.runtime.release();
    bench.ready().await;
    assert_eq!(bench.runtime.count("StartContainer b"), 1);
    bench.end().await;
}

#[tokio::test]
async fn a_failed_hook_restarts_its_container() {
    let spec = json!({"containers": [{"name": "a", "lifecycle": {"postStart": {"exec": {"command": ["fail"]}}}}],
        "terminationGracePeriodSeconds": 1});
    let bench = Bench::start("fails", spec, &[]);
    eventually("it was stopped", || bench.runtime.count("StopContainer a") >= 1).await;
    bench.end().await;
}

#[tokio::test]
async fn a_stop_that_failed_is_done_again() {
    let faults =
        [("StopContainer", Fault::Fail(Code::Unknown)), ("StopPodSandbox", Fault::Fail(Code::Unknown))];
    let bench = Bench::start("again", json!({"containers": [{"name": "a"}]}), &faults);
    bench.ready().await;
    bench.delete(1);
    eventually("it ended", || bench.api.is_deleted()).await;
    assert_eq!(bench.runtime.count("StopContainer failed"), 1);
    assert_eq!(bench.runtime.count("StopContainer a"), 1);
    bench.end().await;
}

#[tokio::test]
async fn pre_stop_runs_once_though_the_time_is_shortened() {
    let spec = json!({"containers": [{"name": "a", "lifecycle": hooks("x", "hang")}]});
    let bench = Bench::start("shortened", spec, &[]);
    bench.ready().await;
    bench.delete(600);
    eventually("the hook runs", || bench.runtime.count("ExecSync a hang") == 1).await;
    bench.delete(1);
    eventually("it ended", || bench.api.is_deleted()).await;
    assert_eq!(bench.runtime.count("ExecSync a hang"), 1);
    bench.end().await;
}

#[tokio::test]
async fn delays_and_faults_are_survived() {
    let faults = [
        ("ListContainers", Fault::Fail(Code::Unavailable)),
        ("RunPodSandbox", Fault::Delay(Duration::from_millis(50))),
        ("CreateContainer", Fault::Fail(Code::Unknown)),
    ];
    let bench = Bench::start("faults", json!({"containers": [{"name": "a"}]}), &faults);
    bench.api.fail(1);
    bench.ready().await;
    assert_eq!(bench.runtime.count("RunPodSandbox"), 1);
    bench.end().await;
}

#[tokio::test]
async fn a_runtime_that_hangs_does_not_hold_up_the_status() {
    let faults = [("CreateContainer", Fault::Hang)];
    let bench = Bench::start("hangs", json!({"containers": [{"name": "a"}, {"name": "b"}]}), &faults);
    eventually("it hangs", || bench.runtime.count("CreateContainer hung") == 1).await;
    eventually("the status says so", || bench.api.condition("PodReadyToStartContainers") == "True").await;
    assert_eq!(bench.api.phase(), "Pending");
    // The call's own deadline is minutes away: the rest of the test does not wait for it.
    let _ = std::fs::remove_dir_all("/var/log/pods/test_hangs_hangs");
    sys::cgroups::remove("/kubepods/besteffort/podhangs");
    bench.tasks.stop().cancel();
}

#[tokio::test]
async fn what_others_wrote_over_the_status_is_put_right() {
    let bench = Bench::start("silent", json!({"containers": [{"name": "a"}]}), &[]);
    bench.ready().await;
    let mut conditions = bench.api.pod().status.and_then(|status| status.conditions).unwrap_or_default();
    conditions.iter_mut().filter(|c| c.type_ == "Ready").for_each(|c| c.status = "False".into());
    let pod = bench.api.change(&json!({"status": {"conditions": conditions}}));
    let _ = bench.inbox.send(Message::Pod(Arc::new(pod), None));
    bench.ready().await;
    let writes = bench.api.writes();
    // The same Pod again, as a watch that begins anew tells it: no news.
    let _ = bench.inbox.send(Message::Pod(Arc::new(bench.api.pod()), None));
    let _ = bench.inbox.send(Message::Runtime);
    bench.runtime.exit("a", 0);
    eventually("the container was started again", || bench.runtime.count("StartContainer a") == 2).await;
    assert!(bench.api.writes() <= writes + 4, "reports come from changes only");
    bench.end().await;
}

#[tokio::test]
async fn a_node_that_stops_ends_its_pods_and_says_so() {
    let spec = json!({"containers": [{"name": "a", "lifecycle": hooks("x", "y")}]});
    let bench = Bench::start("stops", spec, &[]);
    bench.ready().await;
    let _ = bench.inbox.send(Message::Shutdown(5));
    tokio::time::timeout(Duration::from_secs(10), bench.ended).await.expect("the worker ends").expect("well");
    assert_eq!(bench.runtime.count("ExecSync a y"), 1, "preStop ran");
    assert_eq!(bench.runtime.count("StopContainer a"), 1);
    assert_eq!(bench.api.condition("DisruptionTarget"), "True");
    assert_eq!((bench.api.condition("Ready").as_str(), bench.api.phase().as_str()), ("False", "Running"));
    assert!(!bench.api.is_deleted(), "it is the node's, and runs again with it");
    let _ = std::fs::remove_dir_all("/var/log/pods/test_stops_stops");
    sys::cgroups::remove("/kubepods/besteffort/podstops");
    bench.tasks.drain(Duration::from_secs(5)).await.expect("nothing outlives the test");
}

/// The runtime tells that a container runs before it answers to who started it: nobody sees it run and not be ready.
#[tokio::test]
async fn what_runs_is_ready_before_its_start_is_answered() {
    let spec = json!({"containers": [{"name": "a"}]});
    let bench = Bench::start("late", spec, &[("StartContainer", Fault::Late(Duration::from_secs(4)))]);
    tokio::time::timeout(Duration::from_secs(3), bench.ready()).await.expect("ready sooner than the answer");
    bench.end().await;
}

/// Whatever was told of a container that still runs stays true for the next agent: no endpoint goes away with the old one.
#[tokio::test]
async fn a_new_agent_keeps_what_was_told() {
    let probe = json!({"exec": {"command": ["hang"]}, "timeoutSeconds": 100});
    let spec = json!({"containers": [{"name": "a", "image": "web:1"}]});
    let bench = Bench::start("kept", spec, &[]);
    bench.ready().await;
    let mut pod = bench.api.pod();
    for container in pod.spec.iter_mut().flat_map(|spec| &mut spec.containers) {
        container.startup_probe = serde_json::from_value(probe.clone()).expect("a probe");
        container.readiness_probe = serde_json::from_value(probe.clone()).expect("a probe");
    }
    let (_inbox, receiver) = mpsc::unbounded_channel();
    let (dir, tasks) = (tempfile::tempdir().expect("folder"), Tasks::new());
    let mut worker =
        Worker::new(context(dir.path(), &bench.api, &bench.runtime, &tasks), Arc::new(pod), receiver);
    worker.observe().await;
    let status = status::status(&worker.input(), &worker.host());
    let told = status.container_statuses.expect("told");
    assert!(told[0].ready && told[0].started == Some(true), "{told:?}");
    tasks.stop().cancel();
    bench.end().await;
}
