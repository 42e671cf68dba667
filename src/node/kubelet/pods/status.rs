//! A Pod's status: a pure function of what is observed.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus, VolumeMount,
    VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::action::Key;
use super::plan::Input;
use super::resize;
use super::state::{Image, Slot, mounted_image};
use super::view::{Container, nanoseconds};
use crate::cri::api::ContainerState as RuntimeState;
use crate::kubelet::container::qos;
use crate::kubelet::{ephemeral, spec};

/// An init container that keeps running beside the others.
pub fn is_sidecar(container: &Spec) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn policy(pod: &Pod) -> &str {
    spec(pod).restart_policy.as_deref().unwrap_or("Always")
}

/// Whether a container that ended with `code` is started again.
pub fn restarts(pod: &Pod, container: &Spec, code: i32) -> bool {
    let init = spec(pod).init_containers.iter().flatten().any(|init| init.name == container.name);
    if is_sidecar(container) && init {
        return true;
    }
    if rule(container, code).is_some() {
        return true;
    }
    match container.restart_policy.as_deref().unwrap_or_else(|| policy(pod)) {
        "Never" => false,
        "OnFailure" => code != 0,
        // A finished init container is finished, whatever the policy.
        _ => !init || code != 0,
    }
}

/// What a rule may do beside restarting its own container: all of the Pod start anew, init containers first.
const RESTART_ALL: &str = "RestartAllContainers";

/// What the container's own rules do at an exit code; only its own policy gives it rules.
fn rule(container: &Spec, code: i32) -> Option<&str> {
    container.restart_policy.as_ref()?;
    let rules = container.restart_policy_rules.iter().flatten();
    let matching = rules.into_iter().find(|rule| {
        let Some(codes) = &rule.exit_codes else { return false };
        let listed = codes.values.iter().flatten().any(|value| *value == code);
        if codes.operator == "In" { listed } else { !listed }
    })?;
    Some(matching.action.as_str()).filter(|action| ["Restart", RESTART_ALL].contains(action))
}

/// When a container ended last whose rules then restart all containers of the Pod.
pub fn reset(pod: &Pod, containers: &[Container]) -> Option<i64> {
    let spec = spec(pod);
    let all = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let resets = |ended: &&Container| {
        let definition = all().find(|definition| definition.name == ended.name());
        ended.is_exited() && definition.is_some_and(|own| rule(own, ended.exit_code()) == Some(RESTART_ALL))
    };
    containers.iter().filter(resets).map(|ended| ended.status.finished_at).max()
}

/// Whether nothing of the Pod's own work is left: every container ended for good, or its initialization failed for
/// good. Sidecars may still run.
pub fn is_over(input: &Input<'_>) -> bool {
    let Input { pod, view, .. } = *input;
    let containers = &spec(pod).containers;
    let for_good = |container: &Spec| {
        view.fresh(&container.name)
            .is_some_and(|last| last.is_exited() && !restarts(pod, container, last.exit_code()))
    };
    init_failed(input) || (!containers.is_empty() && containers.iter().all(for_good))
}

fn init_failed(input: &Input<'_>) -> bool {
    let Input { pod, view, .. } = *input;
    spec(pod).init_containers.iter().flatten().filter(|container| !is_sidecar(container)).any(|container| {
        view.fresh(&container.name).is_some_and(|last| {
            last.is_exited() && last.exit_code() != 0 && !restarts(pod, container, last.exit_code())
        })
    })
}

pub fn is_terminal(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// The Pod's phase, by upstream's counting of its containers.
pub fn phase(input: &Input<'_>) -> String {
    let Input { pod, view, memory, .. } = *input;
    for before in [memory.reported.as_ref(), pod.status.as_ref()].into_iter().flatten() {
        if let Some(phase) = before.phase.as_ref().filter(|phase| is_terminal(phase)) {
            return phase.clone();
        }
    }
    // As long as something of it runs, the Pod takes room: it has not failed before.
    if memory.failed.is_some() && is_quiet(input) {
        return "Failed".to_owned();
    }
    let spec = spec(pod);
    let regular = spec.init_containers.iter().flatten().filter(|container| !is_sidecar(container));
    let init_pending = regular
        .filter_map(|container| view.latest(&container.name))
        .filter(|last| last.is_exited() && last.exit_code() == 0)
        .count()
        < spec.init_containers.iter().flatten().filter(|container| !is_sidecar(container)).count();
    let (mut waiting, mut running, mut stopped, mut succeeded) = (0, 0, 0, 0);
    for container in &spec.containers {
        match view.latest(&container.name) {
            Some(c) if c.is_running() => running += 1,
            Some(c) if c.is_exited() => {
                stopped += 1;
                succeeded += usize::from(c.exit_code() == 0);
            }
            _ => waiting += 1,
        }
    }
    if has_ended(input) {
        let fine = waiting == 0 && stopped == succeeded && !init_failed(input);
        return if fine { "Succeeded" } else { "Failed" }.to_owned();
    }
    let phase =
        if waiting > 0 || (init_pending && running == 0 && stopped == 0) { "Pending" } else { "Running" };
    phase.to_owned()
}

/// Whether nothing of the Pod runs, and nothing of it will: it is over, or deleted, and its last container has ended.
fn has_ended(input: &Input<'_>) -> bool {
    let deleted = input.pod.metadata.deletion_timestamp.is_some() || input.memory.gone;
    (deleted || is_over(input)) && is_quiet(input)
}

/// Whether nothing of the Pod runs, or is just being started.
fn is_quiet(input: &Input<'_>) -> bool {
    let starting = input.memory.busy.iter().any(|key| matches!(key, Key::Start(_)));
    input.view.alive().next().is_none() && !starting
}

/// What a node says of itself in every Pod's status.
#[derive(Clone, Debug)]
pub struct Host {
    pub ip: String,
}

/// The status to report now.
pub fn status(input: &Input<'_>, host: &Host) -> PodStatus {
    let Input { pod, view, memory, .. } = *input;
    let spec = spec(pod);
    let phase = phase(input);
    let init_done = spec.init_containers.iter().flatten().all(|container| is_initialized(input, container));
    let mut containers: Vec<ContainerStatus> =
        spec.containers.iter().map(|container| container_status(input, container, &phase)).collect();
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    if is_terminal(&phase) && init_done {
        containers.iter_mut().for_each(lost);
    }
    let init: Vec<ContainerStatus> = spec
        .init_containers
        .iter()
        .flatten()
        .map(|container| container_status(input, container, &phase))
        .collect();
    let mut beside: Vec<ContainerStatus> = ephemeral(pod)
        .iter()
        .map(|(container, _)| ContainerStatus { started: None, ..container_status(input, container, &phase) })
        .collect();
    beside.sort_by(|a, b| a.name.cmp(&b.name));
    let conditions = conditions(input, &phase, init_done, &containers, &init);
    let own = spec.host_network == Some(true);
    let ips: Vec<String> = match view.sandboxes.first() {
        Some(_) if own => vec![host.ip.clone()],
        Some(sandbox) => sandbox.ips.clone(),
        None => Vec::new(),
    };
    let failed = memory.failed.clone().filter(|_| is_terminal(&phase));
    let (reason, message) = failed.map(|failed| (failed.reason, failed.message)).unzip();
    let before = pod.status.as_ref();
    let told = before.is_some_and(|status| status.container_statuses.is_some());
    // A Pod that was refused has nothing to say of containers: they wait for nothing.
    let refused = memory.failed.is_some() && view.sandboxes.is_empty() && !told;
    PodStatus {
        phase: Some(phase),
        reason: reason.or_else(|| before.and_then(|status| status.reason.clone())),
        message: message.or_else(|| before.and_then(|status| status.message.clone())),
        conditions: Some(conditions),
        container_statuses: Some(containers).filter(|_| !refused),
        init_container_statuses: Some(init).filter(|init| !init.is_empty() && !refused),
        ephemeral_container_statuses: Some(beside).filter(|beside| !beside.is_empty()),
        host_ip: Some(host.ip.clone()),
        host_ips: Some(vec![HostIP { ip: host.ip.clone() }]),
        pod_ip: ips.first().cloned(),
        pod_ips: Some(ips.into_iter().map(|ip| PodIP { ip }).collect::<Vec<_>>())
            .filter(|ips| !ips.is_empty()),
        qos_class: Some(qos(spec).name().to_owned()),
        start_time: memory.start_time.map(Time),
        observed_generation: pod.metadata.generation,
        ..Default::default()
    }
}

/// Whether an init container stands in the way no more.
fn is_initialized(input: &Input<'_>, container: &Spec) -> bool {
    let Input { pod, view, memory, .. } = *input;
    let main = |c: &Spec| view.fresh(&c.name).is_some();
    match view.fresh(&container.name) {
        Some(c) if is_sidecar(container) => {
            memory.started.contains(c.id()) || spec(pod).containers.iter().any(main)
        }
        Some(c) if c.is_exited() => c.exit_code() == 0,
        Some(_) => false,
        // Removed long ago, when the containers after it had started.
        None => spec(pod).containers.iter().any(main),
    }
}

fn time(nanos: i64) -> Option<Time> {
    (nanos > 0).then(|| Time(whole_second(nanoseconds(nanos))))
}

/// Kubernetes' times have seconds; comparing statuses needs the same.
pub fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn terminated(container: &Container) -> ContainerState {
    let status = &container.status;
    let reason = match (status.reason.as_str(), status.exit_code) {
        ("", 0) => "Completed",
        ("", _) | ("Unknown", _) => "Error",
        (reason, _) => reason,
    };
    let message = container.message.clone().or_else(|| Some(status.message.clone()));
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: status.exit_code,
            reason: Some(reason.to_owned()),
            message: message.filter(|message| !message.is_empty()),
            // One that never started began, as upstream has it, in 1970.
            started_at: Some(Time(whole_second(nanoseconds(status.started_at)))),
            finished_at: time(status.finished_at),
            container_id: Some(format!("containerd://{}", status.id)),
            signal: None,
        }),
        ..Default::default()
    }
}

/// In a Pod that has ended nothing waits any more: a container that never began counts as failed, in upstream's words.
fn lost(status: &mut ContainerStatus) {
    if status.state.as_ref().is_none_or(|state| state.waiting.is_none()) {
        return;
    }
    let lost = ContainerStateTerminated {
        exit_code: 137,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some("The container could not be located when the pod was terminated".to_owned()),
        ..Default::default()
    };
    status.state = Some(ContainerState { terminated: Some(lost), ..Default::default() });
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let state = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(state), ..Default::default() }
}

fn container_status(input: &Input<'_>, spec: &Spec, phase: &str) -> ContainerStatus {
    let Input { view, memory, .. } = *input;
    let latest = view.latest(&spec.name);
    let slot = memory.slot(&spec.name);
    let mut status = ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        started: Some(false),
        volume_mounts: mounts(spec),
        ..Default::default()
    };
    let Some(container) = latest else {
        if is_terminal(phase)
            && let Some(told) = ended_before(input, spec)
        {
            return told;
        }
        status.state = Some(not_created(input, &slot));
        return status;
    };
    status.restart_count = i32::try_from(container.attempt()).unwrap_or(i32::MAX);
    status.container_id = Some(format!("containerd://{}", container.id()));
    status.image_id = container.status.image_ref.clone();
    status.image = image_name(container).unwrap_or(status.image);
    status.last_state = view.previous(&spec.name).filter(|c| c.is_exited()).map(terminated);
    // One that initializes is ready when it has done so, not while it runs.
    let initializes = input_is_init(input, spec) && !is_sidecar(spec);
    match container.status.state() {
        RuntimeState::ContainerRunning => {
            let started_at = time(container.status.started_at);
            status.state = Some(ContainerState {
                running: Some(ContainerStateRunning { started_at }),
                ..Default::default()
            });
            status.started = Some(memory.started.contains(container.id()));
            status.ready = !initializes && memory.ready.contains(container.id());
            resources(input, spec, container, &mut status);
        }
        RuntimeState::ContainerCreated => {
            status.state = Some(not_created(input, &slot));
        }
        _ => {
            status.state = Some(ended(input, spec, container, &slot, phase));
            if status.state.as_ref().is_some_and(|state| state.waiting.is_some()) {
                status.last_state = Some(terminated(container));
            }
            status.ready = initializes && container.exit_code() == 0;
        }
    }
    status
}

/// What is mounted where. Nothing below a read-only mount is read-only with it: the runtime cannot, and `IfPossible` asks for
/// no more.
fn mounts(spec: &Spec) -> Option<Vec<VolumeMountStatus>> {
    let of = |mount: &VolumeMount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only,
        recursive_read_only: mount.read_only.filter(|only| *only).map(|_| "Disabled".to_owned()),
        ..Default::default()
    };
    Some(spec.volume_mounts.as_ref()?.iter().map(of).collect())
}

/// What was told of a container that had ended, and that somebody removed after its Pod had.
fn ended_before(input: &Input<'_>, spec: &Spec) -> Option<ContainerStatus> {
    let of = |status: &PodStatus| {
        let lists = [
            &status.container_statuses,
            &status.init_container_statuses,
            &status.ephemeral_container_statuses,
        ];
        let mut all = lists.into_iter().flatten().flatten();
        let ended = |told: &&ContainerStatus| told.state.as_ref().is_some_and(|s| s.terminated.is_some());
        all.find(|told| told.name == spec.name).filter(ended).cloned()
    };
    input.memory.reported.as_ref().and_then(of).or_else(|| input.pod.status.as_ref().and_then(of))
}

/// The resources the container has: those asked for once they were given, before that what was told last.
fn resources(input: &Input<'_>, spec: &Spec, container: &Container, status: &mut ContainerStatus) {
    status.allocated_resources = spec.resources.as_ref().and_then(|resources| resources.requests.clone());
    status.resources = if resize::is_settled(input.memory, spec, container) {
        spec.resources.clone().filter(|resources| resources.limits.is_some() || resources.requests.is_some())
    } else {
        let told = input.pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        told.filter(|told| told.name == spec.name).find_map(|told| told.resources.clone())
    };
}

fn input_is_init(input: &Input<'_>, container: &Spec) -> bool {
    spec(input.pod).init_containers.iter().flatten().any(|init| init.name == container.name)
}

/// Whether the Pod initializes first: then every container that is not there yet waits for that, as upstream has it.
fn has_init(input: &Input<'_>) -> bool {
    spec(input.pod).init_containers.as_ref().is_some_and(|init| !init.is_empty())
}

fn image_name(container: &Container) -> Option<String> {
    let image = container.status.image.as_ref()?;
    let name = if image.user_specified_image.is_empty() { &image.image } else { &image.user_specified_image };
    Some(name.clone()).filter(|name| !name.is_empty())
}

/// Why there is no container yet.
fn not_created(input: &Input<'_>, slot: &Slot) -> ContainerState {
    if let Image::Failed(trouble) = &slot.image {
        return waiting(&trouble.reason, Some(trouble.message.clone()));
    }
    if let Some(trouble) = &slot.trouble {
        return waiting(&trouble.reason, Some(trouble.message.clone()));
    }
    // Nothing starts before the images are there that volumes show.
    let volumes = spec(input.pod).volumes.iter().flatten();
    let missing = volumes.filter_map(|volume| input.memory.slots.get(&mounted_image(&volume.name)));
    if let Some(trouble) = missing.filter_map(|slot| slot.image.trouble()).next() {
        return waiting(&trouble.reason, Some(trouble.message.clone()));
    }
    waiting(if has_init(input) { "PodInitializing" } else { "ContainerCreating" }, None)
}

/// The state of a container that ended: it stays so, or it waits for its next start.
fn ended(input: &Input<'_>, spec: &Spec, container: &Container, slot: &Slot, phase: &str) -> ContainerState {
    let beside = ephemeral(input.pod).iter().any(|(beside, _)| beside.name == spec.name);
    let memory = input.memory;
    let going =
        beside || input.pod.metadata.deletion_timestamp.is_some() || memory.gone || memory.failed.is_some();
    if going || is_terminal(phase) || !restarts(input.pod, spec, container.exit_code()) {
        return terminated(container);
    }
    if let Image::Failed(trouble) = &slot.image {
        return waiting(&trouble.reason, Some(trouble.message.clone()));
    }
    if let Some(trouble) = &slot.trouble {
        return waiting(&trouble.reason, Some(trouble.message.clone()));
    }
    let (at, delay) = input.memory.restart_at(container);
    if at > input.now && !delay.is_zero() {
        let metadata = &input.pod.metadata;
        let text = format!(
            "back-off {} restarting failed container={} pod={}_{}({})",
            go_duration(delay.as_secs()),
            spec.name,
            metadata.name.as_deref().unwrap_or_default(),
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.uid.as_deref().unwrap_or_default(),
        );
        return waiting("CrashLoopBackOff", Some(text));
    }
    terminated(container)
}

/// Seconds as Go prints a duration: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        _ => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}

fn conditions(
    input: &Input<'_>,
    phase: &str,
    init_done: bool,
    containers: &[ContainerStatus],
    init: &[ContainerStatus],
) -> Vec<PodCondition> {
    let Input { pod, view, .. } = *input;
    let network = view.sandbox().is_some();
    let names = |all: Vec<&str>| format!("[{}]", all.join(" "));
    let done = match phase {
        "Succeeded" => Some("PodCompleted"),
        "Failed" => Some("PodFailed"),
        _ => None,
    };
    let initialized = if init_done {
        verdict("Initialized", true, done.filter(|_| phase == "Succeeded"), None)
    } else {
        let waiting = init.iter().filter(|c| !c.ready).map(|c| c.name.as_str()).collect();
        let text = format!("containers with incomplete status: {}", names(waiting));
        verdict("Initialized", false, Some("ContainersNotInitialized"), Some(text))
    };
    let sidecars: Vec<&str> = spec(pod)
        .init_containers
        .iter()
        .flatten()
        .filter(|c| is_sidecar(c))
        .map(|c| c.name.as_str())
        .collect();
    let unready: Vec<&str> = containers
        .iter()
        .chain(init.iter().filter(|c| sidecars.contains(&c.name.as_str())))
        .filter(|c| !c.ready)
        .map(|c| c.name.as_str())
        .collect();
    let containers_ready = match done {
        Some(reason) => verdict("ContainersReady", false, Some(reason), None),
        None if unready.is_empty() => verdict("ContainersReady", true, None, None),
        None => {
            let text = format!("containers with unready status: {}", names(unready));
            verdict("ContainersReady", false, Some("ContainersNotReady"), Some(text))
        }
    };
    let mut ready = PodCondition { type_: "Ready".into(), ..containers_ready.clone() };
    if ready.status == "True"
        && let Some(text) = closed_gates(pod)
    {
        ready = verdict("Ready", false, Some("ReadinessGatesNotReady"), Some(text));
    }
    let mut ours =
        vec![verdict("PodReadyToStartContainers", network, None, None), initialized, ready, containers_ready];
    if input.memory.shutdown.is_some() {
        let text = "Pod was terminated in response to imminent node shutdown.".to_owned();
        ours.push(verdict("DisruptionTarget", true, Some(BY_KUBELET), Some(text)));
    }
    if let Some(failed) = input.memory.failed.as_ref().filter(|failed| failed.disrupted) {
        ours.push(verdict("DisruptionTarget", true, Some(BY_KUBELET), Some(failed.message.clone())));
    }
    if spec(pod).containers.iter().any(|c| view.latest(&c.name).is_some_and(|last| view.is_past(last))) {
        ours.push(verdict(RESTARTING, true, None, None));
    }
    if resize::is_pending(input) {
        ours.push(match &input.memory.no_room {
            Some(why) => verdict(RESIZE[0], true, Some(&why.reason), Some(why.message.clone())),
            None => verdict(RESIZE[1], true, None, None),
        });
    }
    merge(input, ours, phase)
}

/// True while all containers are restarted together.
const RESTARTING: &str = "AllContainersRestarting";

/// How far a resize is: there while it waits, or while it is done.
const RESIZE: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// Why a Pod was disturbed by its own node.
const BY_KUBELET: &str = "TerminationByKubelet";

fn verdict(kind: &str, holds: bool, reason: Option<&str>, message: Option<String>) -> PodCondition {
    PodCondition {
        type_: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        ..Default::default()
    }
}

/// Conditions that others must set before the Pod counts as ready.
fn closed_gates(pod: &Pod) -> Option<String> {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let open = |kind: &str| conditions.clone().any(|c| c.type_ == kind && c.status == "True");
    let gates = spec(pod).readiness_gates.as_deref().unwrap_or_default();
    let closed = gates.iter().find(|gate| !open(&gate.condition_type))?;
    Some(format!(
        "corresponding condition of pod readiness gate \"{}\" does not exist.",
        closed.condition_type
    ))
}

/// Ours in the Pod's list: times kept where nothing changed, other writers' conditions kept as they are. What this
/// worker reported last counts before what the API server was last seen to say: that may be older.
fn merge(input: &Input<'_>, ours: impl IntoIterator<Item = PodCondition>, phase: &str) -> Vec<PodCondition> {
    let Input { pod, memory, .. } = *input;
    let now = Some(Time(whole_second(input.now)));
    let listed = |status: Option<&PodStatus>| -> Vec<PodCondition> {
        status.iter().flat_map(|status| status.conditions.iter().flatten()).cloned().collect()
    };
    let seen = listed(pod.status.as_ref());
    let reported = listed(memory.reported.as_ref());
    let mut all: Vec<PodCondition> = Vec::new();
    // Somebody wrote after our own last report.
    let overwritten = memory.reported_at.is_some() && memory.reported_at != pod.metadata.resource_version;
    for mut condition in ours {
        let (first, second) = if overwritten { (&seen, &reported) } else { (&reported, &seen) };
        let old = first.iter().chain(second).find(|old| old.type_ == condition.type_);
        let same = old.filter(|old| old.status == condition.status);
        condition.last_transition_time =
            same.and_then(|old| old.last_transition_time.clone()).or_else(|| now.clone());
        condition.observed_generation = pod.metadata.generation;
        all.push(condition);
    }
    let over = |old: &PodCondition| old.reason.as_deref() == Some(BY_KUBELET) && !is_terminal(phase);
    let foreign: Vec<PodCondition> = seen
        .into_iter()
        .filter(|old| {
            !over(old)
                && !RESIZE.contains(&old.type_.as_str())
                && old.type_ != RESTARTING
                && !all.iter().any(|ours| ours.type_ == old.type_)
        })
        .collect();
    if !foreign.iter().any(|condition| condition.type_ == "PodScheduled") {
        let old = reported.into_iter().find(|old| old.type_ == "PodScheduled");
        all.push(old.unwrap_or_else(|| PodCondition {
            last_transition_time: now,
            ..verdict("PodScheduled", true, None, None)
        }));
    }
    all.extend(foreign);
    all
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
