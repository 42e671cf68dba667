//! One Pod's worker: observe, plan, act, report.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{AbortHandle, BoxFuture, abortable};
use futures::stream::{FuturesUnordered, StreamExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::{Mutex, mpsc};

use super::action::{Action, Key};
use super::admission::Refusal;
use super::end;
use super::observe::observe;
use super::ops::{Job, Outcome, differs, reads_references};
use super::plan::{self, Input, Plan};
use super::probing::Probing;
use super::state::{Failed, Image, WorkerState, later};
use super::status::{self, Host};
use super::view::{Known, View};
use crate::kubelet::context::{Context, reference};
use crate::kubelet::objects::Held;
use crate::kubelet::probe;
use crate::kubelet::spec;
use crate::kubelet::volumes::Tokens;

/// What a worker is told.
#[derive(Debug)]
pub enum Message {
    /// The Pod as the API server has it now, and why the node has no room for all that it asks for.
    Pod(Arc<Pod>, Option<Refusal>),
    /// The API server has it no more.
    Gone,
    /// Something happened to its containers.
    Runtime,
    /// The node stops: the Pod's containers end within so many seconds, and the worker with them.
    Shutdown(i64),
    /// The Pod ends on the node's account.
    Fail(Failed),
}

/// After the runtime did not tell about the Pod it is asked again.
const ASK_AGAIN: SignedDuration = SignedDuration::from_millis(500);

/// How long the steps of a Pod that is being made are gathered before they are told.
const STEPS: SignedDuration = SignedDuration::from_millis(250);

/// Runs one Pod from its first sight to its last trace.
pub struct Worker {
    pub(super) context: Arc<Context>,
    pub(super) pod: Arc<Pod>,
    inbox: mpsc::UnboundedReceiver<Message>,
    pub(super) memory: WorkerState,
    pub(super) view: View,
    known: Known,
    running: FuturesUnordered<BoxFuture<'static, (Key, Option<Outcome>)>>,
    /// Those of the running actions that can be given up.
    aborts: HashMap<Key, AbortHandle>,
    held: Held,
    seen: Vec<tokio::sync::watch::Receiver<Option<Option<crate::kubelet::container::Data>>>>,
    pub(super) tokens: Arc<Mutex<Tokens>>,
    pub(super) refresh_at: Option<Timestamp>,
    /// What the Pod refers to has changed while its volumes were written: they are written again after that.
    pub(super) outdated: bool,
    probing: Probing,
    verdicts: mpsc::UnboundedReceiver<probe::Verdict>,
    announced: HashSet<String>,
    /// The view is older than what is known to have happened.
    pub(super) stale: bool,
    ask_at: Option<Timestamp>,
    pub(super) done: bool,
}

impl Worker {
    /// A worker for `pod`, which hears from `inbox`.
    pub fn new(context: Arc<Context>, pod: Arc<Pod>, inbox: mpsc::UnboundedReceiver<Message>) -> Self {
        let held = Held::of(&context.objects, &pod);
        let (probing, verdicts) = Probing::new(context.clone());
        let memory = WorkerState {
            start_time: pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|time| time.0),
            ..WorkerState::default()
        };
        Self {
            context,
            pod,
            inbox,
            memory,
            view: View::default(),
            known: Known::default(),
            running: FuturesUnordered::new(),
            aborts: HashMap::new(),
            held,
            seen: Vec::new(),
            tokens: Arc::default(),
            refresh_at: None,
            outdated: false,
            probing,
            verdicts,
            announced: HashSet::new(),
            stale: true,
            ask_at: None,
            done: false,
        }
    }

    /// The same worker for a Pod the node does not take.
    pub fn rejecting(mut self, refusal: Option<Failed>) -> Self {
        self.memory.failed = refusal;
        self
    }

    pub(super) fn input(&self) -> Input<'_> {
        Input { pod: &self.pod, view: &self.view, memory: &self.memory, now: Timestamp::now() }
    }

    /// Until nothing of the Pod is left on this node.
    pub async fn run(mut self) {
        self.memory.start_time.get_or_insert_with(|| status::whole_second(Timestamp::now()));
        while !self.done {
            if self.stale && self.ask_at.is_none_or(|at| at <= Timestamp::now()) {
                self.observe().await;
            }
            let mut wake = self.ask_at;
            // Decisions are made on a view that is up to date only.
            if !self.stale {
                wake = self.act();
            }
            let report = self.report();
            if self.memory.shutdown.is_some() && self.is_quiet() {
                break;
            }
            self.wait([wake, report, self.refresh_at].into_iter().flatten().min()).await;
        }
        tracing::debug!(pod = self.pod.metadata.name, "nothing of the Pod is left");
    }

    /// Plans and begins what is to be done; when to look again.
    fn act(&mut self) -> Option<Timestamp> {
        self.check_deadline();
        if end::ending(&self.input()).is_some() {
            self.memory.ending_since.get_or_insert_with(Timestamp::now);
        }
        let plan = plan::plan(&self.input());
        self.announce(&plan);
        for action in plan.ops {
            self.begin(action);
        }
        plan.wake
    }

    /// Whether the Pod as a whole ends or has ended.
    pub(super) fn is_ending(&self) -> bool {
        end::ending(&self.input()).is_some()
    }

    async fn observe(&mut self) {
        let uid = self.pod.metadata.uid.clone().unwrap_or_default();
        let dir = self.context.pod_dir(&uid);
        match observe(&self.context.runtime, &self.pod, &dir, &mut self.known).await {
            Ok(view) => {
                self.view = view;
                self.stale = false;
                self.ask_at = None;
                self.adopt();
            }
            Err(error) => {
                tracing::warn!(%error, pod = self.pod.metadata.name, "the runtime does not tell about the Pod");
                self.ask_at = Timestamp::now().checked_add(ASK_AGAIN).ok();
                return;
            }
        }
        self.forget_hooks();
        let ending = self.pod.metadata.deletion_timestamp.is_some() || self.memory.gone;
        self.probing.follow(&self.pod, &self.view, &mut self.memory, ending);
    }

    /// What an earlier agent told of containers that still run stays true until a probe says otherwise: a new agent changes
    /// nothing about a Pod.
    fn adopt(&mut self) {
        if std::mem::replace(&mut self.memory.adopted, true) {
            return;
        }
        let status = self.pod.status.as_ref();
        let init = status.and_then(|status| status.init_container_statuses.as_ref());
        let main = status.and_then(|status| status.container_statuses.as_ref());
        for told in init.into_iter().chain(main).flatten() {
            let id = told.container_id.as_deref().and_then(|id| id.strip_prefix("containerd://"));
            let running = id.and_then(|id| self.view.by_id(id)).filter(|container| container.is_running());
            let Some(running) = running else { continue };
            if told.started == Some(true) {
                self.memory.started.insert(running.id().to_owned());
            }
            if told.ready {
                self.memory.ready.insert(running.id().to_owned());
            }
        }
    }

    /// A hook ends with its container.
    fn forget_hooks(&mut self) {
        let view = &self.view;
        let alive = |id: &str| view.by_id(id).is_some_and(super::view::Container::is_running);
        self.memory.hooked.retain(|id| alive(id));
        self.memory.stopping.retain(|id, _| alive(id));
        self.memory.pre_stopped.retain(|id| alive(id));
        self.memory.condemned.retain(|id, _| alive(id));
        self.memory.resized.retain(|id, _| alive(id));
        self.aborts.retain(|key, handle| match key {
            Key::PostStart(id) | Key::PreStop(id) if !alive(id) => {
                handle.abort();
                false
            }
            _ => true,
        });
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
            self.memory.failed = Some(Failed::new("DeadlineExceeded", text));
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

    fn begin(&mut self, action: Action) {
        let key = action.key();
        self.prepare(&action);
        let job = self.job();
        let last = matches!(action, Action::Finish).then(|| status::status(&self.input(), &self.host()));
        let volumes = self.memory.volumes.clone();
        self.push(
            key,
            move |job| async move {
                match action {
                    Action::Volumes => job.volumes().await,
                    Action::Sandbox { attempt } => job.sandbox(attempt).await,
                    Action::Pull { container } => job.pull(container).await,
                    Action::Start(start) => job.start(start, volumes).await,
                    Action::PostStart(hook) => job.post_start(hook).await,
                    Action::PreStop { hook, until, .. } => job.pre_stop(hook, until).await,
                    Action::Stop(stop) => job.stop(stop).await,
                    Action::Resize { container, id } => job.resize(container, id).await,
                    Action::StopSandbox { id } => job.stop_sandbox(id).await,
                    Action::RemoveContainer { id, container, attempt } => {
                        job.remove_container(id, container, attempt).await
                    }
                    Action::RemoveSandbox { id } => job.remove_sandbox(id).await,
                    Action::Release => job.release().await,
                    Action::Finish => job.finish(last.unwrap_or_default()).await,
                    Action::Cleanup { sandboxes } => job.cleanup(sandboxes).await,
                }
            },
            job,
        );
    }

    /// What is remembered of an action as it begins.
    fn prepare(&mut self, action: &Action) {
        match action {
            Action::Start(start) => {
                let ended = self.view.latest(&start.container).filter(|c| c.is_exited());
                if let Some(ended) = ended.filter(|c| c.sandbox == start.sandbox).cloned() {
                    self.memory.count_restart(&ended);
                }
                self.memory.slot_mut(&start.container).image = Image::Unknown;
            }
            Action::PreStop { hook, message, .. } => self.say_killing(&hook.container, &hook.id, message),
            Action::Stop(stop) => {
                // Its hooks had their time.
                self.give_up(|key| {
                    *key == Key::PreStop(stop.id.clone()) || *key == Key::PostStart(stop.id.clone())
                });
                self.say_killing(&stop.container, &stop.id, &stop.message);
            }
            Action::Cleanup { .. } => {
                self.give_up(|key| {
                    matches!(key, Key::Volumes | Key::Refresh | Key::Pull(_) | Key::PostStart(_))
                });
            }
            _ => {}
        }
    }

    fn say_killing(&mut self, container: &str, id: &str, message: &str) {
        if self.memory.stopping.insert(id.to_owned(), Timestamp::now()).is_none() {
            self.context.events.normal(reference(&self.pod, Some(container)), "Killing", message);
        }
    }

    fn give_up(&mut self, which: impl Fn(&Key) -> bool) {
        self.aborts.retain(|key, handle| {
            let give_up = which(key);
            if give_up {
                handle.abort();
            }
            !give_up
        });
    }

    /// Runs an action beside the worker. What the Pod refers to is waited for only by those who read it.
    fn push<F>(&mut self, key: Key, action: impl FnOnce(Job) -> F + Send + 'static, mut job: Job)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let held = reads_references(&key, &self.pod).then(|| self.held.clone());
        let (future, handle) = abortable(async move {
            if let Some(held) = held {
                job.source = Arc::new(held.source().await);
            }
            action(job).await
        });
        self.memory.busy.insert(key.clone());
        self.aborts.insert(key.clone(), handle);
        self.running.push(Box::pin(async move { (key, future.await.ok()) }));
    }

    fn host(&self) -> Host {
        Host { ip: self.context.config.node_ip.to_string() }
    }

    /// Sends the status if it is news, or if somebody wrote something else over it, and none is on its way.
    /// When to try again after a failure.
    fn report(&mut self) -> Option<Timestamp> {
        if self.memory.gone || self.memory.finished || self.memory.is_busy(&Key::Report) || self.stale {
            return None;
        }
        let status = status::status(&self.input(), &self.host());
        let known = self.memory.reported.as_ref() == Some(&status);
        let untouched = self.memory.reported_at == self.pod.metadata.resource_version;
        if (known && untouched) || !differs(self.pod.status.as_ref(), &status) {
            return None;
        }
        if let Some(trouble) = self.memory.troubles.get(&Key::Report)
            && trouble.retry_at > Timestamp::now()
        {
            return Some(trouble.retry_at);
        }
        // A Pod that is being made changes at every step, and runs a moment later: of the steps only the first is told at once.
        let settled = self.memory.reported_when.map(|told| later(told, STEPS));
        if let Some(at) =
            settled.filter(|at| *at > Timestamp::now() && status.phase.as_deref() == Some("Pending"))
        {
            return Some(at);
        }
        let job = self.job();
        self.push(Key::Report, move |job| job.report(status), job);
        None
    }

    /// The node stops, and all that is to be said of the Pod has been said.
    fn is_quiet(&self) -> bool {
        let ended = !self.stale && self.view.alive().next().is_none();
        ended
            && !self.memory.busy.iter().any(|key| !matches!(key, Key::Volumes | Key::Refresh | Key::Pull(_)))
    }

    async fn wait(&mut self, wake: Option<Timestamp>) {
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
                self.aborts.remove(&key);
                match outcome {
                    Some(outcome) => self.take(key, outcome),
                    None => self.given_up(&key),
                }
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
            Some(Message::Pod(pod, no_room)) => {
                self.memory.no_room = no_room;
                self.see(pod);
            }
            Some(Message::Gone) => {
                self.memory.gone = true;
                self.stale = true;
            }
            Some(Message::Runtime) => self.stale = true,
            Some(Message::Shutdown(seconds)) => {
                self.memory.shutdown = Some(seconds);
                self.stale = true;
            }
            Some(Message::Fail(why)) => {
                self.memory.failed.get_or_insert(why);
            }
            // The manager is gone: the agent stops, and containers outlive it.
            None => self.done = true,
        }
    }

    /// Takes the Pod as the API server has it, unless something newer is known.
    pub(super) fn see(&mut self, pod: Arc<Pod>) {
        let revision =
            |pod: &Pod| pod.metadata.resource_version.as_deref().and_then(|r| r.parse::<u64>().ok());
        if let (Some(new), Some(old)) = (revision(&pod), revision(&self.pod))
            && new < old
        {
            return;
        }
        let told = pod.metadata.labels != self.pod.metadata.labels
            || pod.metadata.annotations != self.pod.metadata.annotations;
        let changed = pod.spec != self.pod.spec;
        self.pod = pod;
        if changed {
            self.held = Held::of(&self.context.objects, &self.pod);
            self.seen.clear();
            // A resize changes what probing and the plan see; the runtime is asked again, too.
            self.stale = true;
        }
        if told || changed {
            self.references_changed();
        }
    }

    fn references_changed(&mut self) {
        for slot in self.memory.slots.values_mut() {
            slot.trouble =
                slot.trouble.take().filter(|trouble| trouble.reason != "CreateContainerConfigError");
        }
        self.memory.troubles.remove(&Key::Volumes);
        self.memory.troubles.remove(&Key::Refresh);
        self.refresh();
    }

    /// Brings written volumes up to date.
    fn refresh(&mut self) {
        self.refresh_at = None;
        // What is being written was read before.
        self.outdated = !self.memory.volumes_ready || self.memory.is_busy(&Key::Refresh);
        if self.outdated || self.is_ending() {
            return;
        }
        let ips = self.view.sandbox().map(|sandbox| sandbox.ips.clone()).unwrap_or_default();
        let job = self.job();
        self.push(Key::Refresh, move |job| job.refresh(ips), job);
    }
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}

/// Workers by Pod uid, for those who need to tell them something.
pub type Workers = HashMap<String, mpsc::UnboundedSender<Message>>;

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
