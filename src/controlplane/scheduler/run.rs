//! The scheduler's loop: takes Pods from the queue, schedules, binds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt;
use k8s_openapi::api::core::v1::{
    Binding, ConfigMap, Namespace, Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::configuration;
use super::preempt::{Room, make_room};
use super::profile::{self, Profiles};
use super::queue::Queue;
use super::schedule::schedule;
use super::snapshot::{PodInfo, Snapshot, priority};
use super::volumes::Storage;
use client::events::Recorder;
use client::informer::{Cache, Informers, Key};
use client::typed::{is_terminal, pod_condition};
use rt::{Clock, Tasks};

/// Who writes the Events that concern no Pod's own profile.
const NAME: &str = profile::DEFAULT;
/// Where profiles are configured, in `kube-system`: a KubeSchedulerConfiguration under this key.
const PROFILES: &str = "minik-scheduler";
const KEY: &str = "config.yaml";

/// Starts the scheduler. It reads through `informers`, which may be shared with the controllers, writes
/// through `client`, and ends when `tasks` stop.
pub fn run(client: Client, informers: &Informers, clock: Arc<dyn Clock>, tasks: &Tasks) {
    let recorder = Recorder::start(client.clone(), NAME, "", Arc::clone(&clock), tasks);
    let scheduler = Arc::new(Scheduler {
        client,
        recorder,
        clock,
        pods: informers.cache(),
        budgets: informers.cache(),
        storage: Storage::new(informers),
        queue: Queue::default(),
        snapshot: Mutex::default(),
        profiles: Mutex::new(profile::built_in()),
    });
    let (nodes, namespaces) = (informers.cache::<Node>(), informers.cache::<Namespace>());
    watch(&scheduler, &nodes, &namespaces);
    watch_storage(&scheduler);
    let me = Arc::clone(&scheduler);
    tasks.spawn_until_stop(async move { me.follow_profiles().await });
    let all = tasks.clone();
    tasks.spawn_until_stop(async move {
        nodes.synced().await;
        namespaces.synced().await;
        scheduler.pods.synced().await;
        scheduler.budgets.synced().await;
        scheduler.storage.synced().await;
        loop {
            let key = scheduler.queue.pop().await;
            scheduler.attempt(&key, &all);
        }
    });
}

struct Scheduler {
    client: Client,
    recorder: Recorder,
    clock: Arc<dyn Clock>,
    pods: Cache<Pod>,
    budgets: Cache<PodDisruptionBudget>,
    storage: Storage,
    queue: Queue,
    snapshot: Mutex<Snapshot>,
    profiles: Mutex<Profiles>,
}

fn node_of(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|name| !name.is_empty())
}

fn scheduler_of(pod: &Pod) -> &str {
    let name = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref());
    name.filter(|name| !name.is_empty()).unwrap_or(profile::DEFAULT)
}

/// Whether the Pod waits for some scheduler.
fn waits_for_any(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    node_of(pod).is_none()
        && pod.metadata.deletion_timestamp.is_none()
        && !is_terminal(pod)
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}

/// What of a node decides about Pods.
fn face(node: &Node) -> impl PartialEq + '_ {
    let spec = node.spec.as_ref();
    let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
    (
        node.metadata.labels.as_ref(),
        spec.and_then(|spec| spec.taints.as_ref()),
        spec.and_then(|spec| spec.unschedulable),
        allocatable,
    )
}

fn watch(scheduler: &Arc<Scheduler>, nodes: &Cache<Node>, namespaces: &Cache<Namespace>) {
    let me = Arc::clone(scheduler);
    nodes.on_change(move |change| {
        match (change.new, change.old) {
            (Some(node), _) => me.snapshot().put_node(Arc::clone(node)),
            (None, Some(node)) => me.snapshot().remove_node(&node.name_any()),
            (None, None) => {}
        }
        if change.new.map(|node| face(node)) != change.old.map(|node| face(node)) {
            me.queue.cluster_changed();
        }
    });
    let me = Arc::clone(scheduler);
    namespaces.on_change(move |change| {
        let Some(namespace) = change.latest() else { return };
        let mut snapshot = me.snapshot();
        match change.new {
            Some(new) => snapshot.namespaces.insert(new.name_any(), new.labels().clone()),
            None => snapshot.namespaces.remove(&namespace.name_any()),
        };
    });
    let me = Arc::clone(scheduler);
    scheduler.pods.on_change(move |change| me.pod_changed(change.old, change.new));
}

/// A claim that is bound, a volume or a class that appears may be what a Pod waits for.
fn watch_storage(scheduler: &Arc<Scheduler>) {
    let me = Arc::clone(scheduler);
    scheduler.storage.claims.on_change(move |change| {
        // Its class may come late, as its volume does.
        let face = |claim: &Arc<PersistentVolumeClaim>| {
            (claim.spec.clone(), claim.metadata.deletion_timestamp.is_some())
        };
        if change.new.map(face) != change.old.map(face) {
            me.queue.cluster_changed();
        }
    });
    let me = Arc::clone(scheduler);
    scheduler.storage.volumes.on_change(move |change| {
        let face = |volume: &Arc<PersistentVolume>| {
            let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.clone());
            (affinity, volume.metadata.labels.clone())
        };
        if change.new.map(face) != change.old.map(face) {
            me.queue.cluster_changed();
        }
    });
    let me = Arc::clone(scheduler);
    scheduler.storage.classes.on_change(move |_| me.queue.cluster_changed());
    let me = Arc::clone(scheduler);
    scheduler.storage.drivers.on_change(move |_| me.queue.cluster_changed());
}

impl Scheduler {
    fn snapshot(&self) -> MutexGuard<'_, Snapshot> {
        self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn profiles(&self) -> MutexGuard<'_, Profiles> {
        self.profiles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the Pod waits for one of this scheduler's profiles.
    fn waits(&self, pod: &Pod) -> bool {
        waits_for_any(pod) && self.profiles().contains_key(scheduler_of(pod))
    }

    /// Takes profiles as they are configured, until dropped. What is wrong changes nothing, and is an Event.
    async fn follow_profiles(&self) {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), "kube-system");
        let mut seen = Box::pin(watch_object(api, PROFILES).default_backoff());
        while let Some(found) = seen.next().await {
            let map = match found {
                Ok(map) => map,
                Err(error) => {
                    tracing::debug!(%error, "profiles cannot be watched at the moment");
                    continue;
                }
            };
            let text = map.as_ref().and_then(|map| map.data.as_ref()?.get(KEY));
            match text.map_or_else(|| Ok(profile::built_in()), |text| configuration::parse(text)) {
                Ok(profiles) => self.take_profiles(profiles),
                Err(why) => {
                    tracing::warn!(why, "the scheduler's configuration is not taken");
                    if let Some(map) = map {
                        self.recorder.warning(map.object_ref(&()), "InvalidConfiguration", why);
                    }
                }
            }
        }
    }

    fn take_profiles(&self, profiles: Profiles) {
        if *self.profiles() == profiles {
            return;
        }
        *self.profiles() = profiles;
        for pod in self.pods.list().into_iter().filter(|pod| waits_for_any(pod)) {
            self.pod_changed(None, Some(&pod));
        }
        self.queue.cluster_changed();
    }

    fn pod_changed(&self, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) {
        let Some(pod) = new.or(old) else { return };
        let key = Key::of(&pod.metadata);
        let living = new.filter(|pod| !is_terminal(pod));
        match living.and_then(|pod| Some((pod, node_of(pod)?))) {
            Some((pod, node)) => {
                self.queue.remove(&key);
                self.snapshot().put_pod(Arc::clone(pod), node);
                // New neighbours, labels or an end in sight: affinity may hold now.
                let same =
                    |old: &Arc<Pod>| node_of(old) == Some(node) && old.metadata.labels == pod.metadata.labels;
                if !old.is_some_and(same) {
                    self.queue.cluster_changed();
                }
            }
            None if living.is_some_and(|pod| self.waits(pod)) => {
                self.hold_room(&key, pod);
                // A status written for a waiting Pod, often by this scheduler, changes nothing.
                let same = old.is_some_and(|old| {
                    self.waits(old) && old.spec == pod.spec && old.metadata.labels == pod.metadata.labels
                });
                if !same {
                    self.queue.add(key, priority(pod));
                }
            }
            None => {
                self.queue.remove(&key);
                let mut snapshot = self.snapshot();
                snapshot.forget_nominated(&key);
                let removed = snapshot.remove_pod(&key);
                drop(snapshot);
                if removed {
                    self.queue.cluster_changed();
                }
            }
        }
    }

    /// Holds the room that was made for a Pod that waits.
    fn hold_room(&self, key: &Key, pod: &Arc<Pod>) {
        let nominated = pod.status.as_ref().and_then(|status| status.nominated_node_name.as_deref());
        let mut snapshot = self.snapshot();
        match nominated.filter(|node| !node.is_empty()) {
            Some(node) => snapshot.nominate(&PodInfo::new(Arc::clone(pod)), node),
            None => snapshot.forget_nominated(key),
        }
    }

    /// One attempt: decides at once, and leaves the writing to a task of its own.
    fn attempt(self: &Arc<Self>, key: &Key, tasks: &Tasks) {
        let pod = self.pods.get(key).filter(|pod| waits_for_any(pod));
        let profile = pod.as_ref().and_then(|pod| self.profiles().get(scheduler_of(pod)).cloned());
        let (Some(pod), Some(profile)) = (pod, profile) else {
            self.queue.remove(key);
            return;
        };
        let mut info = PodInfo { profile, ..PodInfo::new(Arc::clone(&pod)) };
        info.volumes = self.storage.of(&pod);
        let mut snapshot = self.snapshot();
        info.volumes.crowded = self.storage.crowded(&info.volumes, &snapshot);
        let me = Arc::clone(self);
        match schedule(&info, &snapshot, |count| rand::random_range(0..count.max(1))) {
            Ok(node) => {
                snapshot.put_pod(Arc::clone(&pod), &node);
                drop(snapshot);
                tasks.spawn_until_stop(async move { me.bind(&pod, &node).await });
            }
            Err(why) => {
                let room = make_room(&info, &snapshot, &why, &self.budgets.list());
                if let Some(room) = &room {
                    snapshot.nominate(&info, &room.node);
                }
                drop(snapshot);
                self.queue.failed(key, false);
                let message = why.to_string();
                tasks.spawn_until_stop(async move { me.refuse(&pod, &message, room).await });
            }
        }
    }

    fn api(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default())
    }

    async fn bind(&self, pod: &Pod, node: &str) {
        let (key, name) = (Key::of(&pod.metadata), pod.name_any());
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            namespace: pod.namespace(),
            uid: pod.uid(),
            ..ObjectMeta::default()
        };
        let target = ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        };
        let binding = Binding { metadata, target };
        let bound: Result<serde_json::Value, _> =
            self.api(pod).create_subresource("binding", &name, &PostParams::default(), &binding).await;
        match bound {
            Ok(_) => {
                let message = format!("Successfully assigned {key} to {node}");
                self.recorder.component(scheduler_of(pod)).normal(pod.object_ref(&()), "Scheduled", message);
            }
            Err(error) => {
                tracing::debug!(%key, node, %error, "binding failed");
                // The watch may have told meanwhile that the Pod is bound, by whomever.
                let there = self.pods.get(&key);
                if there.as_deref().and_then(node_of).is_none() {
                    self.snapshot().remove_pod(&key);
                    self.queue.cluster_changed();
                }
                if there.is_some_and(|pod| self.waits(&pod)) {
                    self.queue.failed(&key, true);
                } else {
                    self.queue.remove(&key);
                }
            }
        }
    }

    /// Says why the Pod waits, and makes room for it where it may.
    async fn refuse(&self, pod: &Pod, message: &str, room: Option<Room>) {
        self.recorder.component(scheduler_of(pod)).warning(pod.object_ref(&()), "FailedScheduling", message);
        let known = pod_condition(pod, "PodScheduled");
        let same = known.is_some_and(|condition| {
            condition.status == "False" && condition.message.as_deref() == Some(message)
        });
        if same && room.is_none() {
            return;
        }
        let since = known.filter(|condition| condition.status == "False");
        let since = since.and_then(|c| c.last_transition_time.clone()).unwrap_or(Time(self.clock.now()));
        let mut patch = json!({"status": {"conditions": [{"type": "PodScheduled", "status": "False",
            "reason": "Unschedulable", "message": message, "lastProbeTime": null, "lastTransitionTime": since}]}});
        if let Some(room) = &room {
            patch["status"]["nominatedNodeName"] = json!(room.node);
        }
        let api = self.api(pod);
        let patched =
            api.patch_status(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await;
        if let Err(error) = patched {
            tracing::debug!(pod = %pod.name_any(), %error, "the condition was not written");
        }
        if let Some(room) = room {
            self.evict(pod, &room).await;
        }
    }

    /// Ends the Pods that make room: each says first that it is no failure of its own.
    async fn evict(&self, pod: &Pod, room: &Room) {
        for victim in &room.victims {
            let api: Api<Pod> = Api::namespaced(self.client.clone(), &victim.key.namespace);
            let name = scheduler_of(pod);
            let message = format!("{name}: preempting to accommodate a higher priority pod");
            let target = json!({"metadata": {"uid": victim.uid}, "status": {"conditions": [{"type": "DisruptionTarget",
                "status": "True", "reason": "PreemptionByScheduler", "message": message,
                "lastTransitionTime": Time(self.clock.now())}]}});
            let params = PatchParams::default();
            if let Err(error) = api.patch_status(&victim.key.name, &params, &Patch::Strategic(target)).await {
                tracing::debug!(victim = %victim.key, %error, "not preempted");
                continue;
            }
            let preconditions = Preconditions { uid: Some(victim.uid.clone()), resource_version: None };
            let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
            match api.delete(&victim.key.name, &params).await {
                Ok(_) => {
                    if let Some(there) = self.pods.get(&victim.key) {
                        let uid = pod.uid().unwrap_or_default();
                        let message = format!("Preempted by pod {uid} on node {}", room.node);
                        self.recorder.normal(there.object_ref(&()), "Preempted", message);
                    }
                }
                Err(error) => tracing::debug!(victim = %victim.key, %error, "not preempted"),
            }
        }
    }
}
