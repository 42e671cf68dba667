//! The probes of one Pod.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Container as Spec, Pod};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::action::Key;
use super::state::WorkerState;
use super::view::{Container, View};
use crate::kubelet::context::Context;
use crate::kubelet::handler::Target;
use crate::kubelet::probe::{self, ProbeKind, Verdict};
use crate::kubelet::spec;

/// The probes of one Pod: which run is decided by which containers run.
pub struct Probing {
    context: Arc<Context>,
    sender: mpsc::UnboundedSender<Verdict>,
    tasks: HashMap<(String, ProbeKind), AbortHandle>,
}

impl Drop for Probing {
    fn drop(&mut self) {
        self.tasks.values().for_each(AbortHandle::abort);
    }
}

impl Probing {
    pub fn new(context: Arc<Context>) -> (Self, mpsc::UnboundedReceiver<Verdict>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self { context, sender, tasks: HashMap::new() }, receiver)
    }

    /// Starts and ends probes so that they fit what runs; containers without a probe count as passed.
    /// A Pod that is `ending` keeps its readiness probes only: traffic must still be turned away honestly.
    pub fn follow(&mut self, pod: &Arc<Pod>, view: &View, memory: &mut WorkerState, ending: bool) {
        let alive = |id: &str| view.by_id(id).is_some_and(Container::is_running);
        self.tasks.retain(|(id, kind), task| {
            let keep = alive(id) && (!ending || *kind == ProbeKind::Readiness);
            if !keep {
                task.abort();
            }
            keep
        });
        memory.started.retain(|id| alive(id));
        memory.ready.retain(|id| alive(id));
        let spec = spec(pod);
        for definition in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
            let Some(running) = view.latest(&definition.name).filter(|c| c.is_running()) else { continue };
            // Until its postStart hook has ended the container does not count as started; whether it has begun is known when the
            // runtime has answered. One without a hook counts as soon as it is seen to run, which may be sooner than that answer.
            let hook = definition.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some());
            let starting = hook && memory.is_busy(&Key::Start(definition.name.clone()));
            if !starting && !memory.hooked.contains(running.id()) {
                self.container(pod, definition, running, view, memory, ending);
            }
        }
    }

    fn container(
        &mut self,
        pod: &Arc<Pod>,
        definition: &Spec,
        running: &Container,
        view: &View,
        memory: &mut WorkerState,
        ending: bool,
    ) {
        let id = running.id().to_owned();
        let ip = view.sandboxes.first().and_then(|sandbox| sandbox.ips.first().cloned());
        let ip = ip.or_else(|| Some(self.context.config.node_ip.to_string()));
        if !memory.started.contains(&id) {
            match &definition.startup_probe {
                Some(_) if !ending => return self.start(pod, definition, &id, ip, ProbeKind::Startup),
                Some(_) => return,
                None => memory.started.insert(id.clone()),
            };
        }
        match &definition.readiness_probe {
            Some(_) => self.start(pod, definition, &id, ip.clone(), ProbeKind::Readiness),
            None => drop(memory.ready.insert(id.clone())),
        }
        if definition.liveness_probe.is_some() && !ending {
            self.start(pod, definition, &id, ip, ProbeKind::Liveness);
        }
    }

    fn start(&mut self, pod: &Arc<Pod>, definition: &Spec, id: &str, ip: Option<String>, kind: ProbeKind) {
        let key = (id.to_owned(), kind);
        if self.tasks.contains_key(&key) {
            return;
        }
        let probe = match kind {
            ProbeKind::Startup => &definition.startup_probe,
            ProbeKind::Readiness => &definition.readiness_probe,
            ProbeKind::Liveness => &definition.liveness_probe,
        };
        let Some(probe) = probe.clone() else { return };
        let target = Target {
            runtime: self.context.runtime.clone(),
            container: Arc::new(definition.clone()),
            id: id.to_owned(),
            pod_ip: ip,
        };
        let told = (self.context.events.clone(), self.context.probes.clone());
        let task = probe::run(pod.clone(), target, kind, probe, told, self.sender.clone());
        let handle = self.context.tasks.spawn_until_stop(task).abort_handle();
        self.tasks.insert(key, handle);
    }
}
