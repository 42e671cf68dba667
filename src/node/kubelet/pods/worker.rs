use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container as Spec, Pod};
use tokio::sync::{Mutex, mpsc};

use super::memory::{CRASH, Image, Memory, PULL, SETUP, Trouble, Verdict};
use super::observe::observe;
use super::ops::{Failure, Job, Outcome, Start, Stop};
use super::plan::{self, Input, Op, Plan};
use super::probing::Probing;
use super::status::{self, Host};
use super::view::{Known, View};
use crate::node::kubelet::context::{Context, reference};
use crate::node::kubelet::objects::Held;
use crate::node::kubelet::probe::{self, ProbeKind};
use crate::node::kubelet::spec;
use crate::node::kubelet::volumes::{Tokens, Volumes};

/// What a worker is told.
#[derive(Debug)]
pub enum Message {
    /// The Pod as the API server has it now.
    Pod(Arc<Pod>),
    /// The API server has it no more.
    Gone,
    /// Something happened to its containers.
    Runtime,
}

/// Runs one Pod from its first sight to its last trace.
pub struct Worker {
    context: Arc<Context>,
    pod: Arc<Pod>,
    inbox: mpsc::UnboundedReceiver<Message>,
    memory: Memory,
    view: View,
    known: Known,
    running: FuturesUnordered<BoxFuture<'static, (String, Outcome)>>,
    held: Held,
    seen: Vec<tokio::sync::watch::Receiver<Option<Option<crate::node::kubelet::container::Data>>>>,
    volumes: Arc<Volumes>,
    tokens: Arc<Mutex<Tokens>>,
    refresh_at: Option<Timestamp>,
    probing: Probing,
    verdicts: mpsc::UnboundedReceiver<probe::Verdict>,
    announced: HashSet<String>,
    stale: bool,
    done: bool,
}

impl Worker {
    pub fn new(context: Arc<Context>, pod: Arc<Pod>, inbox: mpsc::UnboundedReceiver<Message>) -> Self {
        let held = Held::of(&context.objects, &pod);
        let (probing, verdicts) = Probing::new(context.clone());
        let memory = Memory {
            start_time: pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|time| time.0),
            ..Memory::default()
        };
        Self {
            context,
            pod,
            inbox,
            memory,
            view: View::default(),
            known: Known::default(),
            running: FuturesUnordered::new(),
            held,
            seen: Vec::new(),
            volumes: Arc::default(),
            tokens: Arc::default(),
            refresh_at: None,
            probing,
            verdicts,
            announced: HashSet::new(),
            stale: true,
            done: false,
        }
    }

    fn input(&self) -> Input<'_> {
        Input { pod: &self.pod, view: &self.view, memory: &self.memory, now: Timestamp::now() }
    }

    /// Until nothing of the Pod is left on this node.
    pub async fn run(mut self) {
        self.memory.start_time.get_or_insert_with(|| status::whole_second(Timestamp::now()));
        while !self.done {
            if self.stale {
                self.observe().await;
            }
            self.check_deadline();
            let plan = plan::plan(&self.input());
            self.announce(&plan);
            let wake = plan.wake;
            for op in plan.ops {
                self.begin(op);
            }
            self.report();
            self.wait(wake).await;
        }
        tracing::debug!(pod = self.pod.metadata.name, "nothing of the Pod is left");
    }

    async fn observe(&mut self) {
        let uid = self.pod.metadata.uid.clone().unwrap_or_default();
        let dir = self.context.pod_dir(&uid);
        match observe(&self.context.runtime, &self.pod, &dir, &mut self.known).await {
            Ok(view) => {
                self.view = view;
                self.stale = false;
            }
            Err(error) => {
                tracing::warn!(%error, pod = self.pod.metadata.name, "the runtime does not tell about the Pod");
                tokio::time::sleep(Duration::from_millis(500)).await;
                return;
            }
        }
        let ending = self.pod.metadata.deletion_timestamp.is_some() || self.memory.gone;
        self.probing.follow(&self.pod, &self.view, &mut self.memory, ending);
    }

    fn check_deadline(&mut self) {
        let (Some(seconds), Some(start)) = (spec(&self.pod).active_deadline_seconds, self.memory.start_time)
        else {
            return;
        };
        let over = Timestamp::now().duration_since(start) >= SignedDuration::from_secs(seconds);
        if over && self.memory.failed.is_none() && !status::is_terminal(&status::phase(&self.input())) {
            let text = "Pod was active on the node longer than the specified deadline";
            self.context.events.normal(reference(&self.pod, None), "DeadlineExceeded", text);
            self.memory.failed = Some(("DeadlineExceeded".into(), text.into()));
        }
    }

    /// Says once per pause that a container is held back.
    fn announce(&mut self, plan: &Plan) {
        for name in &plan.backing_off {
            if self.announced.insert(name.clone()) {
                let metadata = &self.pod.metadata;
                let text = format!(
                    "Back-off restarting failed container {name} in pod {}_{}({})",
                    metadata.name.as_deref().unwrap_or_default(),
                    metadata.namespace.as_deref().unwrap_or_default(),
                    metadata.uid.as_deref().unwrap_or_default(),
                );
                self.context.events.warning(reference(&self.pod, Some(name)), "BackOff", text);
            }
        }
        self.announced.retain(|name| plan.backing_off.contains(name));
    }

    fn job(&self) -> Job {
        Job {
            context: self.context.clone(),
            pod: self.pod.clone(),
            tokens: self.tokens.clone(),
            source: Arc::default(),
        }
    }

    fn begin(&mut self, op: Op) {
        let key = op.key();
        // What the Pod refers to is waited for only by those who read it.
        let reads = match op {
            Op::Volumes | Op::Start { .. } => true,
            Op::Pull { .. } => spec(&self.pod).image_pull_secrets.is_some(),
            _ => false,
        };
        if reads {
            let held = self.held.clone();
            let mut job = self.job();
            let start = self.start_of(&op);
            let future = async move {
                job.source = Arc::new(held.source().await);
                carry_out(job, op, start).await
            };
            self.push(key, Box::pin(future));
            return;
        }
        let job = self.job();
        let future: BoxFuture<'static, Outcome> = match op {
            Op::Stop { container, id, grace, message } => {
                let pod_ip = self.view.sandboxes.first().and_then(|s| s.ips.first().cloned());
                Box::pin(job.stop(Stop { container, id, grace, message, pod_ip }))
            }
            Op::RemoveContainer { id } => {
                let (name, attempt) =
                    self.view.by_id(&id).map(|c| (c.name().to_owned(), c.attempt())).unwrap_or_default();
                Box::pin(job.remove_container(id, name, attempt))
            }
            Op::Finish => {
                let status = status::status(&self.input(), &self.host());
                Box::pin(job.finish(status))
            }
            Op::Cleanup => {
                let sandboxes = self.view.sandboxes.iter().map(|sandbox| sandbox.id.clone()).collect();
                Box::pin(job.cleanup(sandboxes))
            }
            op => {
                let start = self.start_of(&op);
                Box::pin(carry_out(job, op, start))
            }
        };
        self.push(key, future);
    }

    fn start_of(&mut self, op: &Op) -> Option<Start> {
        let Op::Start { container, attempt } = op else { return None };
        if let Some(ended) = self.view.current(container).filter(|c| c.is_exited()).cloned() {
            self.memory.count_restart(&ended);
        }
        let Image::Ready(image) = std::mem::take(&mut self.memory.slot_mut(container).image) else {
            return None;
        };
        let sandbox = self.view.sandbox().cloned().unwrap_or_default();
        let own = spec(&self.pod).host_network == Some(true);
        let ips = if own { vec![self.context.config.node_ip.to_string()] } else { sandbox.ips };
        Some(Start {
            container: container.clone(),
            attempt: *attempt,
            image,
            sandbox: sandbox.id,
            sandbox_attempt: sandbox.attempt,
            ips,
            volumes: self.volumes.clone(),
        })
    }

    fn push(&mut self, key: String, future: BoxFuture<'static, Outcome>) {
        self.memory.busy.insert(key.clone());
        self.running.push(Box::pin(async move { (key, future.await) }));
    }

    fn host(&self) -> Host {
        Host { ip: self.context.config.node_ip.to_string() }
    }

    /// Sends the status if it is news and none is on its way.
    fn report(&mut self) {
        if self.memory.gone || self.memory.finished || self.memory.is_busy("report") || self.stale {
            return;
        }
        let status = status::status(&self.input(), &self.host());
        if self.memory.reported.as_ref() == Some(&status) {
            return;
        }
        let before = self.memory.reported.clone().or_else(|| self.pod.status.clone());
        let job = self.job();
        self.push("report".to_owned(), Box::pin(job.report(status, before)));
    }

    async fn wait(&mut self, wake: Option<Timestamp>) {
        let wake = [wake, self.refresh_at].into_iter().flatten().min();
        let timer = async {
            match wake {
                Some(at) => tokio::time::sleep(until(at)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = self.inbox.recv() => self.hear(message),
            Some((key, outcome)) = self.running.next(), if !self.running.is_empty() => {
                self.memory.busy.remove(&key);
                self.take(outcome);
            }
            Some(verdict) = self.verdicts.recv() => self.judge(verdict),
            () = self.held.changed(&mut self.seen) => self.references_changed(),
            () = timer => {}
        }
        while let Ok(message) = self.inbox.try_recv() {
            self.hear(Some(message));
        }
        if self.refresh_at.is_some_and(|at| at <= Timestamp::now()) {
            self.refresh();
        }
    }

    fn hear(&mut self, message: Option<Message>) {
        match message {
            Some(Message::Pod(pod)) => {
                let labels = pod.metadata.labels != self.pod.metadata.labels
                    || pod.metadata.annotations != self.pod.metadata.annotations;
                self.pod = pod;
                if labels {
                    self.refresh();
                }
            }
            Some(Message::Gone) => {
                self.memory.gone = true;
                self.stale = true;
            }
            Some(Message::Runtime) => self.stale = true,
            // The manager is gone: the agent stops, and containers outlive it.
            None => self.done = true,
        }
    }

    fn references_changed(&mut self) {
        let config = |trouble: &Trouble| trouble.reason == "CreateContainerConfigError";
        for slot in self.memory.slots.values_mut() {
            slot.trouble = slot.trouble.take().filter(|trouble| !config(trouble));
        }
        self.memory.volumes_trouble = None;
        self.refresh();
    }

    /// Brings written volumes up to date.
    fn refresh(&mut self) {
        self.refresh_at = None;
        if !self.memory.volumes_ready || self.memory.is_busy("refresh") {
            return;
        }
        let held = self.held.clone();
        let ips = self.view.sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
        let mut job = self.job();
        let future = async move {
            job.source = Arc::new(held.source().await);
            job.refresh(ips).await
        };
        self.push("refresh".to_owned(), Box::pin(future));
    }

    fn schedule_refresh(&mut self) {
        if let Ok(tokens) = self.tokens.try_lock() {
            self.refresh_at = tokens.refresh_at();
        }
    }

    fn take(&mut self, outcome: Outcome) {
        let now = Timestamp::now();
        match outcome {
            Outcome::Volumes(Ok(volumes)) => {
                self.volumes = Arc::new(volumes);
                self.memory.volumes_ready = true;
                self.memory.volumes_trouble = None;
                self.schedule_refresh();
            }
            Outcome::Volumes(Err(text)) => {
                self.context.events.warning(reference(&self.pod, None), "FailedMount", text.clone());
                let earlier = self.memory.volumes_trouble.take();
                self.memory.volumes_trouble =
                    Some(Trouble::after(earlier.as_ref(), SETUP, "ContainerCreating", text, now));
            }
            Outcome::Sandbox(Ok(())) => {
                self.memory.sandbox_trouble = None;
                self.stale = true;
            }
            Outcome::Sandbox(Err(text)) => {
                let event = format!("Failed to create pod sandbox: {text}");
                self.context.events.warning(reference(&self.pod, None), "FailedCreatePodSandBox", event);
                let earlier = self.memory.sandbox_trouble.take();
                self.memory.sandbox_trouble =
                    Some(Trouble::after(earlier.as_ref(), SETUP, "ContainerCreating", text, now));
                self.stale = true;
            }
            Outcome::Pulled { container, result } => self.pulled(&container, result, now),
            Outcome::Started { container, result } => self.started(&container, result, now),
            Outcome::Stopped { id } => {
                self.memory.condemned.remove(&id);
                self.stale = true;
            }
            Outcome::SandboxStopped { id } => {
                self.memory.stopped_sandboxes.insert(id);
                self.stale = true;
            }
            Outcome::Removed { id } => {
                self.memory.removed.insert(id);
                self.stale = true;
            }
            Outcome::Finished(Ok(())) => self.memory.finished = true,
            Outcome::Finished(Err(error)) => tracing::warn!(%error, "the Pod's end is not reported yet"),
            Outcome::Cleaned => self.done = true,
            Outcome::Reported(status, Ok(())) => {
                self.memory.reported = Some(*status);
                self.hold_back();
            }
            Outcome::Reported(_, Err(error)) => {
                tracing::warn!(%error, pod = self.pod.metadata.name, "the status is not reported yet");
            }
            Outcome::Refreshed(result) => {
                if let Err(error) = result {
                    let at = now.checked_add(SignedDuration::from_secs(30));
                    self.refresh_at = at.ok();
                    tracing::warn!(%error, pod = self.pod.metadata.name, "volumes are not up to date");
                } else {
                    self.schedule_refresh();
                }
            }
        }
    }

    fn pulled(&mut self, container: &str, result: Result<String, Failure>, now: Timestamp) {
        let slot = self.memory.slot_mut(container);
        slot.image = match result {
            Ok(image) => Image::Ready(image),
            Err(failure) => {
                let earlier = match &slot.image {
                    Image::Failed(trouble) => Some(trouble),
                    _ => None,
                };
                Image::Failed(Trouble::after(earlier, PULL, failure.reason, failure.message, now))
            }
        };
    }

    fn started(&mut self, container: &str, result: Result<String, Failure>, now: Timestamp) {
        self.stale = true;
        let slot = self.memory.slot_mut(container);
        slot.trouble = match result {
            Ok(_) => None,
            Err(failure) => {
                let backoff = if failure.reason == "RunContainerError" { CRASH } else { SETUP };
                Some(Trouble::after(slot.trouble.as_ref(), backoff, failure.reason, failure.message, now))
            }
        };
    }

    /// A failed pull was seen as ErrImagePull; from now on it waits.
    fn hold_back(&mut self) {
        let names: Vec<String> = self.memory.slots.keys().cloned().collect();
        for name in names {
            let Image::Failed(trouble) = &mut self.memory.slot_mut(&name).image else { continue };
            if trouble.reason != "ErrImagePull" {
                continue;
            }
            let image = find(&self.pod, &name).and_then(|spec| spec.image.clone()).unwrap_or_default();
            let text = format!("Back-off pulling image \"{image}\"");
            trouble.message = format!("{text}: ErrImagePull: {}", trouble.message);
            "ImagePullBackOff".clone_into(&mut trouble.reason);
            let about = || reference(&self.pod, Some(&name));
            self.context.events.normal(about(), "BackOff", text);
            self.context.events.warning(about(), "Failed", "Error: ImagePullBackOff");
        }
    }

    fn judge(&mut self, verdict: probe::Verdict) {
        let probe::Verdict { id, container, kind, healthy } = verdict;
        match (kind, healthy) {
            (ProbeKind::Startup, true) => {
                self.memory.started.insert(id);
                self.stale = true;
            }
            (ProbeKind::Readiness, true) => {
                self.memory.ready.insert(id);
            }
            (ProbeKind::Readiness, false) => {
                self.memory.ready.remove(&id);
            }
            (ProbeKind::Liveness, true) => {}
            (kind, false) => {
                let spec = find(&self.pod, &container);
                let probe = spec.and_then(|spec| match kind {
                    ProbeKind::Startup => spec.startup_probe.as_ref(),
                    _ => spec.liveness_probe.as_ref(),
                });
                let grace = probe.and_then(|probe| probe.termination_grace_period_seconds);
                let what = kind.name().to_lowercase();
                let message = format!("Container {container} failed {what} probe, will be restarted");
                self.memory.ready.remove(&id);
                self.memory.condemned.insert(id, Verdict { message, grace });
            }
        }
    }
}

async fn carry_out(job: Job, op: Op, start: Option<Start>) -> Outcome {
    match (op, start) {
        (Op::Volumes, _) => job.volumes().await,
        (Op::Sandbox { attempt }, _) => job.sandbox(attempt).await,
        (Op::Pull { container }, _) => job.pull(container).await,
        (Op::Start { .. }, Some(start)) => job.start(start).await,
        (Op::StopSandbox { id }, _) => job.stop_sandbox(id).await,
        (op, _) => unreachable!("{op:?} is begun by the worker itself"),
    }
}

fn find<'a>(pod: &'a Pod, name: &str) -> Option<&'a Spec> {
    let spec = spec(pod);
    spec.containers
        .iter()
        .chain(spec.init_containers.iter().flatten())
        .find(|container| container.name == name)
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}

/// Workers by Pod uid, for those who need to tell them something.
pub type Workers = HashMap<String, mpsc::UnboundedSender<Message>>;
