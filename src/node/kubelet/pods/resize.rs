//! In-place resize of running containers.

use k8s_openapi::api::core::v1::Container as Spec;

use super::action::Action;
use super::end;
use super::plan::{Input, Plan};
use super::state::WorkerState;
use super::view::Container;
use crate::kubelet::container::resources_hash;
use crate::kubelet::spec;

/// Gives running containers the resources their definition asks for now: in place, or by a restart where the
/// container's resizePolicy wants one.
pub fn plan(input: &Input<'_>, plan: &mut Plan) {
    let spec = spec(input.pod);
    if input.memory.no_room.is_some() {
        return;
    }
    let sidecars = spec.init_containers.iter().flatten();
    for definition in spec.containers.iter().chain(sidecars) {
        let Some(running) = input.view.current(&definition.name).filter(|c| c.is_running()) else { continue };
        let Some((had, wants)) = change(input.memory, definition, running) else { continue };
        if restarts(definition, &had, &wants) {
            let grace = spec.termination_grace_period_seconds.unwrap_or(30);
            let text = format!("Container {} resize requires restart", definition.name);
            end::stop_alone(input, plan, running, grace, &text);
        } else {
            let container = definition.name.clone();
            plan.ops.push(Action::Resize { container, id: running.id().to_owned() });
        }
    }
}

/// Whether a container of the Pod runs with other resources than its definition asks for now.
pub fn is_pending(input: &Input<'_>) -> bool {
    let spec = spec(input.pod);
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    all.any(|definition| {
        let running = input.view.current(&definition.name).filter(|container| container.is_running());
        running.is_some_and(|running| !is_settled(input.memory, definition, running))
    })
}

/// Whether the running container has the resources its definition asks for.
pub fn is_settled(memory: &WorkerState, definition: &Spec, running: &Container) -> bool {
    change(memory, definition, running).is_none()
}

/// What it has and what it should have, where that differs.
fn change(memory: &WorkerState, definition: &Spec, running: &Container) -> Option<(String, String)> {
    let had = memory.resized.get(running.id()).map(String::as_str).or_else(|| running.resources())?;
    let wants = resources_hash(definition);
    (had != wants).then(|| (had.to_owned(), wants))
}

/// Whether what changed is something the container wants to be restarted for.
fn restarts(definition: &Spec, had: &str, wants: &str) -> bool {
    let restarts = |resource: &str| {
        let policies = definition.resize_policy.iter().flatten();
        policies.into_iter().any(|p| p.resource_name == resource && p.restart_policy == "RestartContainer")
    };
    let part = |text: &str, key: &str| text.split(' ').find(|part| part.starts_with(key)).map(str::to_owned);
    ["cpu", "memory"].iter().any(|key| part(had, key) != part(wants, key) && restarts(key))
}
