//! What to do for a Pod: a pure function of its definition, the runtime's view and what is remembered.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Spec, Pod};

use super::action::{Action, Hook, Key, Start};
use super::end;
use super::resize;
use super::state::{self, BackoffEntry, Image, WorkerState, later};
use super::status::{self, is_sidecar};
use super::view::{Container, View};
use crate::kubelet::container::definition_hash;
use crate::kubelet::{ephemeral, spec};

/// What a plan is made from.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    pub pod: &'a Pod,
    pub view: &'a View,
    pub memory: &'a WorkerState,
    pub now: Timestamp,
}

/// What to do now, and when to look again at the latest.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub ops: Vec<Action>,
    pub wake: Option<Timestamp>,
    /// Containers held back after a crash, for the BackOff event.
    pub backing_off: Vec<String>,
}

impl Plan {
    pub fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }

    /// True when the trouble's time has come (or there is none); otherwise wakes then.
    pub fn due(&mut self, trouble: Option<&BackoffEntry>, now: Timestamp) -> bool {
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
    let Input { memory, now, .. } = *input;
    match end::ending(input) {
        Some(grace) => end::end(input, grace, &mut plan),
        None => run(input, &mut plan),
    }
    let ops = std::mem::take(&mut plan.ops);
    plan.ops = ops
        .into_iter()
        .filter(|action| {
            let key = action.key();
            !memory.is_busy(&key) && plan.due(memory.troubles.get(&key), now)
        })
        .collect();
    plan
}

fn run(input: &Input<'_>, plan: &mut Plan) {
    let Input { pod, view, memory, .. } = *input;
    if past_deadline(input, plan) {
        return;
    }
    condemned(input, plan);
    collect(input, plan);
    resize::plan(input, plan);
    let resetting = restart_all(input, plan);
    // Also for containers taken over from an earlier run: what is written into their volumes must stay current.
    if !memory.volumes_ready && mounted_images(input, plan) {
        plan.ops.push(Action::Volumes);
    }
    let hooks = view.containers.iter().filter(|c| c.is_running() && memory.hooked.contains(c.id()));
    plan.ops.extend(hooks.map(|c| Action::PostStart(hook(input, c))));
    if resetting {
        return;
    }
    let wanted = wanted(input, plan);
    if wanted.is_empty() {
        return;
    }
    let sandbox_ready = sandbox(input, plan);
    let mut waits = false;
    for wanted in wanted {
        let in_order = !wanted.beside && spec(pod).containers.iter().any(|c| c.name == wanted.name);
        let blocked = in_order && (waits || earlier_hook(input, &wanted.name));
        waits |= begin(input, plan, wanted, sandbox_ready && !blocked) && in_order;
    }
}

/// Fetches the images that the Pod mounts as volumes; true when all are there.
fn mounted_images(input: &Input<'_>, plan: &mut Plan) -> bool {
    let Input { pod, memory, now, .. } = *input;
    let mut all = true;
    for volume in spec(pod).volumes.iter().flatten().filter(|volume| volume.image.is_some()) {
        let slot = state::mounted_image(&volume.name);
        let image = memory.slot(&slot).image;
        if matches!(image, Image::Ready(_)) {
            continue;
        }
        all = false;
        let due = match &image {
            Image::Failed(trouble) => plan.due(Some(trouble), now),
            _ => true,
        };
        if due {
            plan.ops.push(Action::Pull { container: slot });
        }
    }
    all
}

/// Pulls for or starts one container; true when those behind it in the Pod wait for it. Who cannot be started holds up
/// nobody, as upstream has it.
fn begin(input: &Input<'_>, plan: &mut Plan, wanted: Wanted, may_start: bool) -> bool {
    let Input { view, memory, now, .. } = *input;
    let slot = memory.slot(&wanted.name);
    match &slot.image {
        _ if memory.is_busy(&Key::Start(wanted.name.clone())) => true,
        Image::Unknown => {
            plan.ops.push(Action::Pull { container: wanted.name });
            true
        }
        Image::Failed(trouble) => {
            if plan.due(Some(trouble), now) {
                plan.ops.push(Action::Pull { container: wanted.name });
            }
            false
        }
        Image::Ready(image) => {
            if !plan.due(slot.trouble.as_ref(), now) {
                return false;
            }
            if let (true, true, Some(sandbox)) = (may_start, memory.volumes_ready, view.sandbox()) {
                plan.ops.push(Action::Start(Start {
                    container: wanted.name,
                    attempt: wanted.attempt,
                    image: image.clone(),
                    sandbox: sandbox.id.clone(),
                    sandbox_attempt: sandbox.attempt,
                    ips: sandbox.ips.clone(),
                    target: wanted.target,
                }));
            }
            true
        }
    }
}

/// Whether a main container before `name` is being started, or its hook is still running: the next starts after it.
fn earlier_hook(input: &Input<'_>, name: &str) -> bool {
    let Input { pod, view, memory, .. } = *input;
    let mut before = spec(pod).containers.iter().take_while(|container| container.name != name);
    before.any(|container| {
        // It may run already though its start was not heard of yet.
        let starting = memory.is_busy(&Key::Start(container.name.clone()));
        let current = view.current(&container.name);
        starting || current.is_some_and(|c| c.is_running() && memory.hooked.contains(c.id()))
    })
}

/// The hook's target in `container`.
pub fn hook(input: &Input<'_>, container: &Container) -> Hook {
    let ips = input.view.sandboxes.first().map(|sandbox| &sandbox.ips);
    Hook {
        container: container.name().to_owned(),
        id: container.id().to_owned(),
        pod_ip: ips.and_then(|ips| ips.first().cloned()),
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
            let grace = verdict.grace.unwrap_or(default);
            end::stop_alone(input, plan, container, grace, &verdict.message);
            continue;
        }
        let containers = spec(pod).containers.iter().chain(spec(pod).init_containers.iter().flatten());
        let definition = containers.into_iter().find(|spec| spec.name == container.name());
        if let (Some(definition), Some(hash)) = (definition, container.hash())
            && definition_hash(definition) != hash
        {
            let text = format!("Container {} definition changed, will be restarted", container.name());
            end::stop_alone(input, plan, container, default, &text);
        }
    }
}

/// Where a container's rules restart all of the Pod, what is left of the past ends before anything starts, and the one that
/// began it has its pause. True while that is so.
fn restart_all(input: &Input<'_>, plan: &mut Plan) -> bool {
    let Input { pod, view, memory, now } = *input;
    let grace = spec(pod).termination_grace_period_seconds.unwrap_or(30);
    let mut waits = false;
    for old in view.alive().filter(|container| view.is_past(container)) {
        let text = format!("Container {} is restarted with all of its Pod", old.name());
        end::stop_alone(input, plan, old, grace, &text);
        waits = true;
    }
    let ended = view.containers.iter().find(|ended| Some(ended.status.finished_at) == view.reset);
    let begun = view.containers.iter().any(|container| !view.is_past(container));
    if let Some(ended) = ended.filter(|_| !begun && !waits) {
        let (at, _) = memory.restart_at(ended);
        if at > now {
            plan.wake_at(at);
            plan.backing_off.push(ended.name().to_owned());
            waits = true;
        }
    }
    waits
}

/// Ended containers beyond the last one of each name (kept for `logs --previous`) are removed, and so are sandboxes
/// that were replaced, once none of their containers is kept.
fn collect(input: &Input<'_>, plan: &mut Plan) {
    let Input { view, memory, .. } = *input;
    for container in view.containers.iter().filter(|c| !c.is_running() && !memory.removed.contains(c.id())) {
        let newer = view.containers.iter().take_while(|other| other.id() != container.id());
        let newer = newer.filter(|other| other.name() == container.name()).count();
        // One that was never started has no log worth keeping.
        let kept = if container.is_exited() { 2 } else { 1 };
        if newer >= kept {
            plan.ops.push(Action::RemoveContainer {
                id: container.id().to_owned(),
                container: container.name().to_owned(),
                attempt: container.attempt(),
            });
        }
    }
    for old in view.sandboxes.iter().skip(1) {
        let dead = !old.ready || memory.stopped_sandboxes.contains(&old.id);
        let empty = !view.containers.iter().any(|container| container.sandbox == old.id);
        if dead && empty && !memory.removed.contains(&old.id) {
            plan.ops.push(Action::RemoveSandbox { id: old.id.clone() });
        }
    }
}

/// Makes sure of a sandbox; true when there is one.
fn sandbox(input: &Input<'_>, plan: &mut Plan) -> bool {
    let Input { view, memory, .. } = *input;
    if view.sandbox().is_some_and(|sandbox| !memory.stopped_sandboxes.contains(&sandbox.id)) {
        return true;
    }
    // What still runs in a dead sandbox ends before the next sandbox takes over.
    let before = plan.ops.len();
    for leftover in view.alive() {
        let text = "Pod sandbox changed, it will be killed and re-created.";
        end::stop_alone(input, plan, leftover, 1, text);
    }
    if plan.ops.len() > before || view.alive().next().is_some() {
        return false;
    }
    if let Some(old) = view.sandboxes.first().filter(|old| !memory.stopped_sandboxes.contains(&old.id)) {
        plan.ops.push(Action::StopSandbox { id: old.id.clone() });
        return false;
    }
    let attempt = view.sandboxes.first().map_or(0, |sandbox| sandbox.attempt + 1);
    plan.ops.push(Action::Sandbox { attempt });
    false
}

struct Wanted {
    name: String,
    attempt: u32,
    /// Started beside the others, whatever they wait for.
    beside: bool,
    target: Option<String>,
}

/// The containers that should be started now: ephemeral ones at once, init containers one by one, sidecars among them,
/// then the others.
fn wanted(input: &Input<'_>, plan: &mut Plan) -> Vec<Wanted> {
    let Input { pod, view, memory, .. } = *input;
    let spec = spec(pod);
    let mut wanted = wanted_beside(input);
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

/// Ephemeral containers that were not started yet; each is started once. They join a sandbox that is there.
fn wanted_beside(input: &Input<'_>) -> Vec<Wanted> {
    let Input { pod, view, .. } = *input;
    if view.sandbox().is_none() {
        return Vec::new();
    }
    let new = |(container, target): (Spec, Option<String>)| {
        let current = view.latest(&container.name);
        if current.is_some_and(|current| current.is_running() || current.is_exited()) {
            return None;
        }
        let target = target.and_then(|name| view.current(&name)).map(|c| c.id().to_owned());
        let attempt = current.map_or(0, |created| created.attempt() + 1);
        Some(Wanted { name: container.name, attempt, beside: true, target })
    };
    ephemeral(pod).into_iter().filter_map(new).collect()
}

/// Whether a container that does not run starts now; notes when it will otherwise.
fn start(input: &Input<'_>, spec: &Spec, current: Option<&Container>, plan: &mut Plan) -> Option<Wanted> {
    let Input { view, memory, now, .. } = *input;
    let attempt = view.latest(&spec.name).map_or(0, |latest| latest.attempt() + 1);
    let wanted = Wanted { name: spec.name.clone(), attempt, beside: false, target: None };
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
