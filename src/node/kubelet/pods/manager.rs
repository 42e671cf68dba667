//! The Pods of this node, and a worker for each.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use tokio::sync::{mpsc, watch};

use super::admission::{self, Refusal};
use super::parents::Parents;
use super::state::{Failed, SETUP};
use super::static_pods::StaticPods;
use super::worker::{Message, Worker, Workers};
use crate::cri::labels;
use crate::kubelet::context::{Context, reference};
use crate::kubelet::probe::Answers;
use crate::kubelet::statics::{is_mirror, is_static};
use crate::kubelet::volumes;
use sys::cgroups;

/// The Pods of this node, and a worker for each.
#[derive(Clone)]
pub struct Manager {
    pub(super) context: Arc<Context>,
    pods: Arc<RwLock<HashMap<String, Arc<Pod>>>>,
    workers: Arc<Mutex<Workers>>,
    events: watch::Sender<u64>,
    /// The node stops: no further Pod is taken up.
    closing: Arc<AtomicBool>,
    parents: Arc<Parents>,
    /// Those that ask for more than the node has left, by uid.
    waiting: Arc<Mutex<HashSet<String>>>,
    pub(super) statics: Arc<StaticPods>,
}

/// How often the runtime is asked for everything it has, in case an event of it was missed.
const RELIST: Duration = Duration::from_secs(60);

impl Manager {
    pub fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            pods: Arc::default(),
            workers: Arc::default(),
            events: watch::Sender::new(0),
            closing: Arc::default(),
            parents: Arc::default(),
            waiting: Arc::default(),
            statics: Arc::default(),
        }
    }

    /// Everything bound to this node, as the API server last told.
    pub fn pods(&self) -> Vec<Arc<Pod>> {
        self.pods.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Counts what the runtime reports about containers, for those who wait for a container's end.
    pub fn events(&self) -> watch::Receiver<u64> {
        self.events.subscribe()
    }

    /// The Pod of that name; of several (one may still be ending) the one that was made last.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        let named = |pod: &Arc<Pod>| {
            pod.metadata.namespace.as_deref() == Some(namespace) && pod.metadata.name.as_deref() == Some(name)
        };
        self.pods().into_iter().filter(named).max_by_key(|pod| pod.metadata.creation_timestamp.clone())
    }

    /// Watches Pods and containers until the tasks stop.
    pub fn start(&self) {
        Parents::prepare(self.context.cpu_milli);
        self.follow_manifests();
        let tasks = &self.context.tasks;
        let (manager, events, relist) = (self.clone(), self.clone(), self.clone());
        tasks.spawn_until_stop(async move { manager.watch().await });
        tasks.spawn_until_stop(async move { events.follow_runtime().await });
        tasks.spawn_until_stop(async move { relist.relist().await });
    }

    /// Ends every Pod's containers, preStop hooks included, before the node stops; says so in their status. Pods stay
    /// the node's, and run again when it does. Returns once all have ended, or when `bound` has passed.
    pub async fn shutdown(&self, bound: Duration) {
        self.closing.store(true, Ordering::SeqCst);
        let mut events = self.events();
        // The last report and the sandbox's end come after the containers.
        let seconds = i64::try_from(bound.as_secs().saturating_sub(2)).unwrap_or(i64::MAX).max(1);
        {
            let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            workers.values().for_each(|worker| drop(worker.send(Message::Shutdown(seconds))));
        }
        let empty = || self.workers.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        let ended = async { while !empty() && events.changed().await.is_ok() {} };
        if tokio::time::timeout(bound, ended).await.is_err() {
            tracing::warn!("not every Pod ended before the node stops");
        }
    }

    /// Ends a Pod on the node's account.
    pub fn fail(&self, uid: &str, why: Failed) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = workers.get(uid) {
            let _ = worker.send(Message::Fail(why));
        }
    }

    async fn watch(&self) {
        let api: Api<Pod> = Api::all(self.context.client.clone());
        let config =
            watcher::Config::default().fields(&format!("spec.nodeName={}", self.context.config.node));
        let mut stream = Box::pin(kube::runtime::watcher(api, config).default_backoff());
        let mut listed = HashSet::new();
        while let Some(event) = stream.next().await {
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(pod)) => {
                    listed.extend(pod.metadata.uid.clone());
                    self.apply(pod);
                }
                Ok(Event::InitDone) => self.listed(&listed).await,
                Ok(Event::Apply(pod)) => self.apply(pod),
                Ok(Event::Delete(pod)) if is_mirror(&pod) => self.mirror(pod, true),
                Ok(Event::Delete(pod)) => self.gone(pod.metadata.uid.as_deref().unwrap_or_default()),
                Err(error) => tracing::debug!(%error, "Pods cannot be watched at the moment"),
            }
        }
    }

    pub(super) fn apply(&self, mut pod: Pod) {
        if is_mirror(&pod) {
            return self.mirror(pod, false);
        }
        let Some(uid) = pod.metadata.uid.clone() else { return };
        pod.metadata.managed_fields = None;
        let pod = Arc::new(pod);
        self.pods.write().unwrap_or_else(PoisonError::into_inner).insert(uid.clone(), pod.clone());
        self.parents.follow(self.pods().iter().map(AsRef::as_ref));
        let no_room = self.no_room(&pod);
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = workers.get(&uid)
            && worker.send(Message::Pod(pod.clone(), no_room)).is_ok()
        {
            return;
        }
        if self.closing.load(Ordering::SeqCst) {
            return;
        }
        let (sender, inbox) = mpsc::unbounded_channel();
        workers.insert(uid.clone(), sender);
        let refusal = self.refusal(&pod);
        let worker = Worker::new(self.context.clone(), pod, inbox).rejecting(refusal);
        let manager = self.clone();
        self.context.tasks.spawn_until_stop(async move {
            worker.run().await;
            manager.forget(&uid);
        });
    }

    /// Why the node cannot give a Pod what it asks for now.
    fn no_room(&self, pod: &Arc<Pod>) -> Option<Refusal> {
        let why = admission::no_room(pod, &self.others(pod), &self.context.node.borrow().clone());
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if why.is_some() {
            waiting.insert(uid)
        } else {
            waiting.remove(&uid)
        };
        why
    }

    fn others(&self, pod: &Pod) -> Vec<Arc<Pod>> {
        self.pods().into_iter().filter(|other| other.metadata.uid != pod.metadata.uid).collect()
    }

    /// Why the node does not take a new Pod; one it has begun with (before the agent started again) stays.
    fn refusal(&self, pod: &Arc<Pod>) -> Option<Failed> {
        if pod.status.as_ref().is_some_and(|status| status.start_time.is_some()) {
            return None;
        }
        let node = self.context.node.borrow().clone();
        let pressure = *self.context.pressure.borrow();
        let refusal = admission::refusal(pod, &self.others(pod), &node, pressure)?;
        self.context.events.warning(reference(pod, None), &refusal.reason, refusal.message.clone());
        Some(Failed::new(refusal.reason, refusal.message))
    }

    pub(super) fn has_worker(&self, pod: &Pod) -> bool {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        pod.metadata.uid.as_ref().is_some_and(|uid| workers.contains_key(uid))
    }

    pub(super) fn gone(&self, uid: &str) {
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(worker) = workers.get(uid) {
            let _ = worker.send(Message::Gone);
        }
    }

    /// What probes answered.
    pub fn probes(&self) -> &Answers {
        &self.context.probes
    }

    fn forget(&self, uid: &str) {
        self.context.probes.forget(uid);
        self.workers.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
        let gone = self.pods.write().unwrap_or_else(PoisonError::into_inner).remove(uid);
        if let Some(gone) = gone.filter(|gone| is_static(gone)) {
            self.static_gone(&gone);
        }
        self.parents.follow(self.pods().iter().map(AsRef::as_ref));
        self.events.send_modify(|count| *count += 1);
        // What others wait for may be free now.
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        let named = |pod: &Arc<Pod>| pod.metadata.uid.as_ref().is_some_and(|uid| waiting.contains(uid));
        for pod in self.pods().into_iter().filter(named) {
            let no_room = self.no_room(&pod);
            let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(worker) = workers.get(pod.metadata.uid.as_deref().unwrap_or_default()) {
                let _ = worker.send(Message::Pod(pod.clone(), no_room));
            }
        }
    }

    /// After a full list: Pods that were deleted meanwhile end, and what the runtime has of Pods nobody knows goes.
    async fn listed(&self, listed: &HashSet<String>) {
        let known: Vec<String> =
            self.workers.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        let pods = self.pods();
        let statics: HashSet<&str> =
            pods.iter().filter(|pod| is_static(pod)).filter_map(|pod| pod.metadata.uid.as_deref()).collect();
        let missing = known.iter().filter(|uid| !listed.contains(*uid) && !statics.contains(uid.as_str()));
        missing.for_each(|uid| self.gone(uid));
        self.context.mirrors.retain(|uid| listed.contains(uid));
        self.statics.listed();
        let sandboxes = self.context.runtime.sandboxes(None).await.unwrap_or_default();
        for sandbox in sandboxes {
            let uid = sandbox.labels.get(labels::POD_UID).cloned().unwrap_or_default();
            if !listed.contains(&uid) && !known.contains(&uid) {
                let (runtime, id) = (self.context.runtime.clone(), sandbox.id);
                tracing::info!(uid, id, "removing a sandbox whose Pod is gone");
                self.context.tasks.spawn_until_stop(async move {
                    let _ = runtime.stop_sandbox(&id).await;
                    let _ = runtime.remove_sandbox(&id).await;
                });
            }
        }
        let (manager, listed) = (self.clone(), listed.clone());
        self.context.tasks.spawn_blocking(move || manager.remove_orphans(&listed, &known));
    }

    /// Folders, logs and cgroups of Pods that are no more.
    fn remove_orphans(&self, listed: &HashSet<String>, known: &[String]) {
        let orphan = |uid: &str| !listed.contains(uid) && !known.iter().any(|known| known == uid);
        let names = |dir: &std::path::Path| -> Vec<String> {
            let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
        };
        for uid in names(&self.context.dir.join("pods")).into_iter().filter(|uid| orphan(uid)) {
            for class in ["", "/burstable", "/besteffort"] {
                cgroups::remove(&format!("/kubepods{class}/pod{uid}"));
            }
            let context = self.context.clone();
            self.context.tasks.spawn_until_stop(async move { remove_folder(&context, &uid).await });
        }
        let logs = std::path::Path::new("/var/log/pods");
        for name in names(logs) {
            if name.rsplit_once('_').is_some_and(|(_, uid)| orphan(uid)) {
                let _ = std::fs::remove_dir_all(logs.join(name));
            }
        }
    }

    /// The runtime's own events wake workers. After the stream broke, everybody looks again: that is the only relist.
    async fn follow_runtime(&self) {
        loop {
            match self.context.runtime.events().await {
                Ok(mut stream) => {
                    self.wake(None);
                    loop {
                        match stream.message().await {
                            Ok(Some(event)) => {
                                let pod = event.pod_sandbox_status.and_then(|sandbox| sandbox.metadata);
                                self.wake(pod.map(|metadata| metadata.uid).as_deref());
                            }
                            Ok(None) => break,
                            Err(error) => {
                                tracing::debug!(%error, "the runtime's events ended");
                                break;
                            }
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "the runtime's events cannot be followed yet"),
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Looks at everything the runtime has now and then, and wakes whose containers are not as they were the last time:
    /// an event that was missed is made good so.
    async fn relist(&self) {
        let mut ticks = tokio::time::interval(RELIST);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut before: HashMap<String, Vec<(String, i32)>> = HashMap::new();
        loop {
            ticks.tick().await;
            let Ok(containers) = self.context.runtime.containers(None).await else { continue };
            let mut now: HashMap<String, Vec<(String, i32)>> = HashMap::new();
            for container in containers {
                let uid = container.labels.get(labels::POD_UID).cloned().unwrap_or_default();
                now.entry(uid).or_default().push((container.id, container.state));
            }
            now.values_mut().for_each(|list| list.sort());
            let changed = now.keys().chain(before.keys()).filter(|uid| now.get(*uid) != before.get(*uid));
            changed.collect::<HashSet<_>>().into_iter().for_each(|uid| self.wake(Some(uid)));
            before = now;
        }
    }

    /// Tells one worker, or all, that something happened to its containers.
    fn wake(&self, uid: Option<&str>) {
        self.events.send_modify(|count| *count += 1);
        let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        match uid {
            Some(uid) => drop(workers.get(uid).map(|worker| worker.send(Message::Runtime))),
            None => workers.values().for_each(|worker| drop(worker.send(Message::Runtime))),
        }
    }
}

/// Removes an old Pod's folder. The drivers of its volumes may register only later: they must let go first.
async fn remove_folder(context: &Context, uid: &str) {
    let dir = context.pod_dir(uid);
    let mut failures = 0;
    while let Err(error) = volumes::take_back(context, &dir).await {
        tracing::warn!(%error, uid, "an old Pod's volumes are still mounted");
        failures += 1;
        tokio::time::sleep(SETUP.delay(failures)).await;
    }
    let removed = context.tasks.spawn_blocking(move || volumes::remove(&dir)).await;
    if let Ok(Err(error)) = removed {
        tracing::warn!(%error, uid, "an old Pod's folder is not removed");
    }
}
