use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Spec, Pod};

use super::memory::{Image, Memory, Trouble, later};
use super::status::{self, is_sidecar};
use super::view::{Container, View};
use crate::node::kubelet::container::definition_hash;
use crate::node::kubelet::spec;

/// What a plan is made from.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub pod: &'a Pod,
    pub view: &'a View,
    pub memory: &'a Memory,
    pub now: Timestamp,
}

/// One thing to do. Those that take time run beside the worker and are `busy` under their key meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Volumes,
    Sandbox {
        attempt: u32,
    },
    Pull {
        container: String,
    },
    Start {
        container: String,
        attempt: u32,
    },
    Stop {
        container: String,
        id: String,
        grace: i64,
        message: String,
    },
    StopSandbox {
        id: String,
    },
    RemoveContainer {
        id: String,
    },
    /// Writes the last status and deletes the Pod from the API server.
    Finish,
    /// Removes everything the node has of the Pod.
    Cleanup,
}

impl Op {
    /// Two actions with one key are the same action.
    pub fn key(&self) -> String {
        match self {
            Self::Volumes => "volumes".into(),
            Self::Sandbox { .. } => "sandbox".into(),
            Self::Pull { container } => format!("pull {container}"),
            Self::Start { container, .. } => format!("start {container}"),
            Self::Stop { id, grace, .. } => format!("stop {id} {grace}"),
            Self::StopSandbox { id } => format!("stop-sandbox {id}"),
            Self::RemoveContainer { id } => format!("remove {id}"),
            Self::Finish => "finish".into(),
            Self::Cleanup => "cleanup".into(),
        }
    }
}

/// What to do now, and when to look again at the latest.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub ops: Vec<Op>,
    pub wake: Option<Timestamp>,
    /// Containers held back after a crash, for the BackOff event.
    pub backing_off: Vec<String>,
}

impl Plan {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// True when the trouble's time has come (or there is none); otherwise wakes then.
    fn due(&mut self, trouble: Option<&Trouble>, now: Timestamp) -> bool {
        match trouble {
            Some(trouble) if trouble.retry_at > now => {
                self.wake_at(trouble.retry_at);
                false
            }
            _ => true,
        }
    }
}

/// The difference between what the Pod asks for and what there is, as actions.
pub fn plan(input: &Input<'_>) -> Plan {
    let mut plan = Plan::default();
    let Input { pod, memory, .. } = *input;
    if memory.gone || pod.metadata.deletion_timestamp.is_some() {
        terminate(input, &mut plan);
    } else if memory.failed.is_some() || status::is_terminal(&status::phase(input)) {
        stop_all(input, spec(pod).termination_grace_period_seconds.unwrap_or(30), &mut plan);
    } else {
        run(input, &mut plan);
    }
    plan.ops.retain(|op| !memory.is_busy(&op.key()));
    plan
}

/// Seconds its containers get to end, at least one so that the stop signal is seen.
fn grace(input: &Input<'_>) -> i64 {
    let metadata = &input.pod.metadata;
    let asked = metadata.deletion_grace_period_seconds;
    let full = asked.or(spec(input.pod).termination_grace_period_seconds).unwrap_or(30);
    full.max(1)
}

fn terminate(input: &Input<'_>, plan: &mut Plan) {
    if !stop_all(input, grace(input), plan) {
        return;
    }
    if input.memory.gone {
        plan.ops.push(Op::Cleanup);
    } else if !input.memory.finished {
        plan.ops.push(Op::Finish);
    }
}

/// Stops what lives: containers, then sidecars in reverse order, then sandboxes. True when nothing is left to stop.
fn stop_all(input: &Input<'_>, grace: i64, plan: &mut Plan) -> bool {
    let Input { pod, view, memory, .. } = *input;
    let under_way = |key: &String| key == "sandbox" || key.starts_with("start ");
    if memory.busy.iter().any(under_way) {
        return false;
    }
    let alive: Vec<&Container> = view.alive().collect();
    let sidecars: Vec<&Spec> =
        spec(pod).init_containers.iter().flatten().filter(|container| is_sidecar(container)).collect();
    let is_sidecar = |container: &&Container| sidecars.iter().any(|spec| spec.name == container.name());
    let mut stopping: Vec<&Container> = alive.iter().copied().filter(|c| !is_sidecar(c)).collect();
    if stopping.is_empty() {
        stopping
            .extend(sidecars.iter().rev().find_map(|s| alive.iter().find(|c| c.name() == s.name)).copied());
    }
    if !stopping.is_empty() {
        plan.ops.extend(stopping.iter().map(|c| stop(c, grace, "Stopping container ")));
        return false;
    }
    let ready = view.sandboxes.iter().filter(|s| s.ready && !memory.stopped_sandboxes.contains(&s.id));
    let before = plan.ops.len();
    plan.ops.extend(ready.map(|sandbox| Op::StopSandbox { id: sandbox.id.clone() }));
    plan.ops.len() == before
}

fn stop(container: &Container, grace: i64, text: &str) -> Op {
    let name = container.name().to_owned();
    let message = if text.ends_with(' ') { format!("{text}{name}") } else { text.to_owned() };
    Op::Stop { container: name, id: container.id().to_owned(), grace, message }
}

fn run(input: &Input<'_>, plan: &mut Plan) {
    let Input { memory, now, .. } = *input;
    if past_deadline(input, plan) {
        return;
    }
    condemned(input, plan);
    collect(input, plan);
    // Also for containers taken over from an earlier run: what is written into their volumes must stay current.
    if !memory.volumes_ready && plan.due(memory.volumes_trouble.as_ref(), now) {
        plan.ops.push(Op::Volumes);
    }
    let wanted = wanted(input, plan);
    if wanted.is_empty() {
        return;
    }
    let sandbox_ready = sandbox(input, plan);
    for start in wanted {
        let slot = memory.slot(&start.name);
        let busy = memory.is_busy(&format!("start {}", start.name));
        match &slot.image {
            _ if busy => {}
            Image::Unknown => plan.ops.push(Op::Pull { container: start.name }),
            Image::Failed(trouble) => {
                if plan.due(Some(trouble), now) {
                    plan.ops.push(Op::Pull { container: start.name });
                }
            }
            Image::Ready(_) => {
                if sandbox_ready && memory.volumes_ready && plan.due(slot.trouble.as_ref(), now) {
                    plan.ops.push(Op::Start { container: start.name, attempt: start.attempt });
                }
            }
        }
    }
}

/// The Pod's own time limit. The worker turns it into a failure; here only the time is watched.
fn past_deadline(input: &Input<'_>, plan: &mut Plan) -> bool {
    let (Some(seconds), Some(start)) = (spec(input.pod).active_deadline_seconds, input.memory.start_time)
    else {
        return false;
    };
    let deadline = later(start, SignedDuration::from_secs(seconds));
    plan.wake_at(deadline);
    deadline <= input.now
}

/// Stops containers that a probe or a hook condemned, and those whose definition changed.
fn condemned(input: &Input<'_>, plan: &mut Plan) {
    let Input { pod, view, memory, .. } = *input;
    let default = spec(pod).termination_grace_period_seconds.unwrap_or(30);
    for container in view.containers.iter().filter(|c| c.is_running()) {
        if let Some(verdict) = memory.condemned.get(container.id()) {
            plan.ops.push(stop(container, verdict.grace.unwrap_or(default), &verdict.message));
            continue;
        }
        let definition = spec(pod).containers.iter().find(|spec| spec.name == container.name());
        if let (Some(definition), Some(hash)) = (definition, container.hash())
            && definition_hash(definition) != hash
        {
            let text = format!("Container {} definition changed, will be restarted", container.name());
            plan.ops.push(stop(container, default, &text));
        }
    }
}

/// Ended containers beyond the last one of each name (kept for `logs --previous`) are removed, and sandboxes with them.
fn collect(input: &Input<'_>, plan: &mut Plan) {
    let Input { view, memory, .. } = *input;
    for container in view.containers.iter().filter(|c| c.is_exited() && !memory.removed.contains(c.id())) {
        let newer = view.containers.iter().take_while(|other| other.id() != container.id());
        if newer.filter(|other| other.name() == container.name()).count() >= 2 {
            plan.ops.push(Op::RemoveContainer { id: container.id().to_owned() });
        }
    }
}

/// Makes sure of a sandbox; true when there is one.
fn sandbox(input: &Input<'_>, plan: &mut Plan) -> bool {
    let Input { view, memory, now, .. } = *input;
    if view.sandbox().is_some_and(|sandbox| !memory.stopped_sandboxes.contains(&sandbox.id)) {
        return true;
    }
    // What still runs in a dead sandbox ends before the next sandbox takes over.
    let mut leftovers =
        view.alive().map(|c| stop(c, 1, "Pod sandbox changed, it will be killed and re-created."));
    let before = plan.ops.len();
    plan.ops.extend(leftovers.by_ref());
    if plan.ops.len() > before {
        return false;
    }
    if let Some(old) = view.sandboxes.first().filter(|old| !memory.stopped_sandboxes.contains(&old.id)) {
        plan.ops.push(Op::StopSandbox { id: old.id.clone() });
        return false;
    }
    if plan.due(memory.sandbox_trouble.as_ref(), now) {
        let attempt = view.sandboxes.first().map_or(0, |sandbox| sandbox.attempt + 1);
        plan.ops.push(Op::Sandbox { attempt });
    }
    false
}

struct Wanted {
    name: String,
    attempt: u32,
}

/// The containers that should be started now: init containers one by one, sidecars among them, then the others.
fn wanted(input: &Input<'_>, plan: &mut Plan) -> Vec<Wanted> {
    let Input { pod, view, memory, .. } = *input;
    let spec = spec(pod);
    let mut wanted = Vec::new();
    let initialized = spec.containers.iter().any(|container| view.current(&container.name).is_some());
    for container in spec.init_containers.iter().flatten() {
        let sidecar = is_sidecar(container);
        if initialized && !sidecar {
            continue;
        }
        match view.current(&container.name) {
            Some(running) if running.is_running() => {
                let passed = sidecar && memory.started.contains(running.id());
                if !passed && !initialized {
                    return wanted;
                }
            }
            Some(done) if !sidecar && done.is_exited() && done.exit_code() == 0 => {}
            current => {
                wanted.extend(start(input, container, current, plan));
                if !initialized {
                    return wanted;
                }
            }
        }
    }
    for container in &spec.containers {
        let current = view.current(&container.name);
        if current.is_some_and(Container::is_running) {
            continue;
        }
        wanted.extend(start(input, container, current, plan));
    }
    wanted
}

/// Whether a container that does not run starts now; notes when it will otherwise.
fn start(input: &Input<'_>, spec: &Spec, current: Option<&Container>, plan: &mut Plan) -> Option<Wanted> {
    let Input { view, memory, now, .. } = *input;
    let attempt = view.latest(&spec.name).map_or(0, |latest| latest.attempt() + 1);
    let wanted = Wanted { name: spec.name.clone(), attempt };
    // A container that was created and never started is replaced; its sandbox's end would keep it forever.
    let Some(ended) = current.filter(|container| container.is_exited()) else { return Some(wanted) };
    if !status::restarts(input.pod, spec, ended.exit_code()) {
        return None;
    }
    let (at, delay) = memory.restart_at(ended);
    if at > now {
        plan.wake_at(at);
        plan.backing_off.push(spec.name.clone());
        tracing::debug!(container = spec.name, ?delay, "back-off before the next start");
        return None;
    }
    Some(wanted)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
