//! Pods that use more of the node's disk than they may, and a node that runs out: looked at now and then, ended one by
//! one, in upstream's order.
//!
//! ```text
//! own limits broken -> those Pods end
//! threshold met     -> what has ended is removed, unused images go -> still met -> the first in rank ends
//!                      -> its room is waited for -> the next look
//! ```

mod images;
mod limits;
mod rank;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::context::{Context, reference};
use super::pods::{Failed, Manager};
use super::pressure::{History, Pressure, Short, is_critical, observe};
use super::stats::{Depth, Sampler};
use client::typed::{is_active, is_terminal};
use config::eviction::Signal;
use images::Images;
use sys::cgroups;
use usage::{Use, measure};

/// Upstream's housekeeping interval.
const LOOK: Duration = Duration::from_secs(10);
/// A Pod that was ended has so long to give its room back before the next one is.
const ROOM: SignedDuration = SignedDuration::from_secs(30);
/// What upstream gives whoever must go at once.
const GRACE: i64 = 1;

/// Looks after the node until dropped.
pub async fn run(context: Arc<Context>, manager: Manager, sampler: Sampler) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let images = Images::new(&context.config.settings.arguments);
    let mut keeper = Keeper { context, manager, sampler, images, history: History::default(), ended: None };
    loop {
        ticks.tick().await;
        keeper.look(Timestamp::now()).await;
    }
}

struct Keeper {
    context: Arc<Context>,
    manager: Manager,
    sampler: Sampler,
    images: Images,
    history: History,
    /// Who was ended last for the node's sake, and when.
    ended: Option<(String, Timestamp)>,
}

impl Keeper {
    async fn look(&mut self, now: Timestamp) {
        self.images.look(&self.context, &self.manager, now).await;
        let short = self.short();
        let pressure = self.history.follow(&self.context.limits, &short, now);
        let changed = |before: &mut Pressure| std::mem::replace(before, pressure) != pressure;
        self.context.pressure.send_if_modified(changed);
        let pods: Vec<Arc<Pod>> = self.manager.pods().into_iter().filter(|pod| is_active(pod)).collect();
        let limited: Vec<Arc<Pod>> =
            pods.iter().filter(|pod| limits::is_limited(pod) && !is_critical(pod)).cloned().collect();
        if !limited.is_empty() {
            let over: Vec<_> = self
                .used(limited)
                .await
                .into_iter()
                .filter_map(|(pod, used)| Some((limits::broken(&pod, &used)?, pod)))
                .collect();
            for (message, pod) in &over {
                self.end(pod, message.clone(), false);
            }
            if !over.is_empty() {
                return;
            }
        }
        if let Some(first) = short.first() {
            self.relieve(*first, pods, now).await;
        }
    }

    fn short(&self) -> Vec<Short> {
        self.context.limits.short(&observe(&self.context.dir, &cgroups::capacity()))
    }

    /// Makes room: of what nobody needs first, then by ending the Pod that comes first.
    async fn relieve(&mut self, short: Short, pods: Vec<Arc<Pod>>, now: Timestamp) {
        let about = self.context.node_reference();
        let text = format!("Attempting to reclaim {}", rank::resource(short.signal));
        self.context.events.warning(about, "EvictionThresholdMet", text);
        if matches!(short.signal, Signal::Disk | Signal::Inodes) {
            self.remove_ended().await;
            self.images.remove_unused(&self.context, &self.manager, u64::MAX, now).await;
            if !self.short().iter().any(|still| still.signal == short.signal) {
                return;
            }
        }
        if self.ended.as_ref().is_some_and(|(uid, at)| now.duration_since(*at) < ROOM && self.holds_room(uid))
        {
            return;
        }
        let mut used = self.used(pods.into_iter().filter(|pod| !is_critical(pod)).collect()).await;
        rank::sort(&mut used, short.signal);
        let Some((pod, used)) = used.first() else {
            return tracing::warn!(?short, "the node is short of something, and no Pod can go");
        };
        self.end(pod, rank::message(pod, used, short), true);
        self.ended = pod.metadata.uid.clone().map(|uid| (uid, now));
    }

    /// Whether something of a Pod that was ended still runs, or its volumes are still there.
    fn holds_room(&self, uid: &str) -> bool {
        let mut pods = self.manager.pods().into_iter();
        let running = pods.any(|pod| pod.metadata.uid.as_deref() == Some(uid) && is_active(&pod));
        running || self.context.pod_dir(uid).join("volumes").exists()
    }

    fn end(&self, pod: &Pod, message: String, disrupted: bool) {
        self.context.events.warning(reference(pod, None), "Evicted", message.clone());
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let reason = "Evicted".to_owned();
        self.manager.fail(uid, Failed { reason, message, grace: Some(GRACE), disrupted });
    }

    /// What the Pods use now. One that the runtime tells nothing of is taken to use no memory and no layer.
    async fn used(&self, pods: Vec<Arc<Pod>>) -> Vec<(Arc<Pod>, Use)> {
        let Ok(sample) = self.sampler.sample(Depth::Full).await else { return Vec::new() };
        let dirs: Vec<_> = pods
            .iter()
            .map(|pod| self.context.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default()))
            .collect();
        let measured = self.context.tasks.spawn_blocking(move || {
            let of = |(pod, dir): (Arc<Pod>, std::path::PathBuf)| {
                let told = sample.pods.iter().find(|told| Some(&told.uid) == pod.metadata.uid.as_ref());
                let used = measure(&pod, told, &dir);
                (pod, used)
            };
            pods.into_iter().zip(dirs).map(of).collect()
        });
        measured.await.unwrap_or_default()
    }

    /// Removes the containers of Pods that have ended: their layers and their logs. What was told of them stays told.
    async fn remove_ended(&self) {
        let pods = self.manager.pods();
        let ended = pods.iter().filter(|pod| is_terminal(pod));
        for uid in ended.filter_map(|pod| pod.metadata.uid.clone()) {
            for container in self.context.runtime.containers(Some(&uid)).await.unwrap_or_default() {
                if let Err(error) = self.context.runtime.remove_container(&container.id).await {
                    tracing::warn!(%error, uid, "an ended container is not removed");
                }
            }
        }
    }
}
