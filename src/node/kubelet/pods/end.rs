//! How containers end, and in which order.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Spec, Pod};

use super::action::{Action, Key, Stop};
use super::plan::{Input, Plan, hook};
use super::state::later;
use super::status::{self, is_sidecar};
use super::view::Container;
use crate::kubelet::spec;

/// Whoever is stopped sees its stop signal this long before it is killed, as upstream has it.
const LEAST: SignedDuration = SignedDuration::from_secs(2);

/// Whether the whole Pod is to end, and the seconds its containers share for that.
pub fn ending(input: &Input<'_>) -> Option<i64> {
    let Input { pod, memory, .. } = *input;
    let own = spec(pod).termination_grace_period_seconds.unwrap_or(30);
    if memory.gone || pod.metadata.deletion_timestamp.is_some() {
        // At least one, so that the stop signal is seen.
        return Some(pod.metadata.deletion_grace_period_seconds.unwrap_or(own).max(1));
    }
    if let Some(seconds) = memory.shutdown {
        return Some(own.min(seconds).max(1));
    }
    if let Some(failed) = &memory.failed {
        return Some(failed.grace.unwrap_or(own));
    }
    let over = status::is_over(input) || status::is_terminal(&status::phase(input));
    over.then_some(own)
}

/// Ends the Pod, and takes leave of it once nothing of it runs.
pub fn end(input: &Input<'_>, grace: i64, plan: &mut Plan) {
    let Input { pod, view, memory, .. } = *input;
    if !stop_all(input, grace, plan) {
        return;
    }
    if memory.gone {
        let sandboxes = view.sandboxes.iter().map(|sandbox| sandbox.id.clone()).collect();
        plan.ops.push(Action::Cleanup { sandboxes });
    } else if pod.metadata.deletion_timestamp.is_some() && !memory.finished {
        plan.ops.push(Action::Finish);
    } else if !memory.released
        && status::is_terminal(&status::phase(input))
        && !memory.busy.iter().any(|key| matches!(key, Key::Volumes | Key::Refresh))
    {
        // The Pod may stay for its status and its logs; what its volumes hold of the node it needs no more.
        plan.ops.push(Action::Release);
    }
}

/// Stops what lives: containers, then sidecars in reverse order, then sandboxes. True when nothing is left to stop.
/// All share one period: a sidecar whose turn has not come when it is over is stopped all the same.
fn stop_all(input: &Input<'_>, grace: i64, plan: &mut Plan) -> bool {
    let Input { pod, view, memory, now } = *input;
    // What is being made just now cannot be stopped yet; the runtime's own deadline bounds that.
    if memory.busy.iter().any(|key| matches!(key, Key::Sandbox | Key::Start(_))) {
        return false;
    }
    let since = memory.ending_since.unwrap_or(now);
    let sidecars: Vec<&Spec> =
        spec(pod).init_containers.iter().flatten().filter(|container| is_sidecar(container)).collect();
    let alive: Vec<&Container> = view.alive().collect();
    let place = |container: &Container| sidecars.iter().position(|spec| spec.name == container.name());
    let mut turn = true;
    for container in alive.iter().filter(|container| place(container).is_none()) {
        stop(input, plan, container, &Ending { grace, since, turn: true, message: "Stopping container " });
        turn = false;
    }
    let mut last_first: Vec<_> = alive.iter().filter_map(|c| Some((place(c)?, *c))).collect();
    last_first.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
    for (_, container) in last_first {
        stop(input, plan, container, &Ending { grace, since, turn, message: "Stopping container " });
        turn = false;
    }
    if !alive.is_empty() {
        return false;
    }
    let ready = view.sandboxes.iter().filter(|s| s.ready && !memory.stopped_sandboxes.contains(&s.id));
    let before = plan.ops.len();
    plan.ops.extend(ready.map(|sandbox| Action::StopSandbox { id: sandbox.id.clone() }));
    plan.ops.len() == before
}

struct Ending<'a> {
    grace: i64,
    since: Timestamp,
    /// Whether everybody who goes before it has gone.
    turn: bool,
    /// For the event; one that ends with a space gets the container's name.
    message: &'a str,
}

/// Stops one container of a Pod that stays.
pub fn stop_alone(input: &Input<'_>, plan: &mut Plan, container: &Container, grace: i64, message: &str) {
    let since = input.memory.stopping.get(container.id()).copied().unwrap_or(input.now);
    stop(input, plan, container, &Ending { grace, since, turn: true, message });
}

/// preStop once, then the stop signal, then SIGKILL, all within the time given; the signal gets two seconds at least.
fn stop(input: &Input<'_>, plan: &mut Plan, container: &Container, ending: &Ending<'_>) {
    let Input { pod, memory, now, .. } = *input;
    let deadline = later(ending.since, SignedDuration::from_secs(ending.grace));
    let name = container.name().to_owned();
    let message = if ending.message.ends_with(' ') {
        format!("{}{name}", ending.message)
    } else {
        ending.message.into()
    };
    if has_pre_stop(pod, container.name()) && ending.grace > 0 && !memory.pre_stopped.contains(container.id())
    {
        if now < deadline {
            plan.ops.push(Action::PreStop { hook: hook(input, container), until: deadline, message });
            return plan.wake_at(deadline);
        }
        tracing::debug!(container = container.name(), "preStop used up the grace period");
    }
    if !ending.turn && now < deadline {
        return plan.wake_at(deadline);
    }
    plan.ops.push(Action::Stop(Stop {
        container: name,
        id: container.id().to_owned(),
        grace: ending.grace,
        kill_at: deadline.max(later(now, LEAST)),
        message,
    }));
}

fn has_pre_stop(pod: &Pod, name: &str) -> bool {
    let spec = spec(pod);
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    all.find(|container| container.name == name)
        .is_some_and(|c| c.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.pre_stop.is_some()))
}
