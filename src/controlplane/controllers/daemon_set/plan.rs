//! What to do for one DaemonSet: a pure function of what is observed.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::super::history::REVISION_LABEL;
use super::fit::{Verdict, bare_pod, target, verdict};
use client::typed::{available_in, is_available, is_ready, scaled};

/// At most this many Pods are created or deleted at once (upstream's BurstReplicas).
const BURST: usize = 250;

/// A Pod that ended where it should run for ever.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    pub pod: String,
    pub node: String,
    pub failed: bool,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Planned {
    /// The nodes that get a Pod.
    pub create: Vec<String>,
    /// The Pods to delete, by name.
    pub delete: Vec<String>,
    pub ended: Vec<Ended>,
}

/// What a DaemonSet sees: its Pods by the node they are on or tied to.
pub(super) struct Seen<'a> {
    pub set: &'a DaemonSet,
    pub hash: &'a str,
    pub pods: BTreeMap<String, Vec<Arc<Pod>>>,
    verdicts: BTreeMap<String, Verdict>,
    pub now: Timestamp,
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Those on a node first, then the older ones.
fn by_age(pods: &mut [&Arc<Pod>]) {
    pods.sort_by_key(|pod| {
        let placed = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
        (!placed, pod.metadata.creation_timestamp.clone(), pod.name_any())
    });
}

/// The new and the old Pod of a node.
type Pair<'a> = (Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>);

impl<'a> Seen<'a> {
    pub(super) fn new(
        set: &'a DaemonSet,
        hash: &'a str,
        nodes: &[Arc<Node>],
        owned: &[Arc<Pod>],
        now: Timestamp,
    ) -> Self {
        let bare = bare_pod(set, hash);
        let verdicts = nodes.iter().map(|node| (node.name_any(), verdict(&bare, node))).collect();
        let mut pods: BTreeMap<String, Vec<Arc<Pod>>> = BTreeMap::new();
        for pod in owned {
            if let Some(node) = target(pod) {
                pods.entry(node.to_owned()).or_default().push(Arc::clone(pod));
            }
        }
        Self { set, hash, pods, verdicts, now }
    }

    fn min_ready(&self) -> i32 {
        self.set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or_default()
    }

    fn available(&self, pod: &Pod) -> bool {
        is_available(pod, self.min_ready(), self.now)
    }

    fn is_new(&self, pod: &Pod) -> bool {
        pod.labels().get(REVISION_LABEL).is_some_and(|hash| hash == self.hash)
    }

    fn on(&self, node: &str) -> &[Arc<Pod>] {
        self.pods.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    fn desired(&self) -> i32 {
        i32::try_from(self.verdicts.values().filter(|verdict| verdict.run).count()).unwrap_or(i32::MAX)
    }

    /// How many nodes may have two Pods, and how many none that is available, during a rolling update.
    fn bounds(&self) -> (i32, i32) {
        let spec = self.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        let rolling = spec.and_then(|strategy| strategy.rolling_update.as_ref());
        let number = |value: Option<&IntOrString>, default: i32| {
            value.map_or(default, |value| scaled(value, self.desired(), true))
        };
        let surge = number(rolling.and_then(|rolling| rolling.max_surge.as_ref()), 0);
        let unavailable = number(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), 1);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
    }

    fn rolls(&self) -> bool {
        let spec = self.set.spec.as_ref().and_then(|spec| spec.update_strategy.as_ref());
        spec.and_then(|strategy| strategy.type_.as_deref()) != Some("OnDelete")
    }

    /// Puts the right number of Pods on every node, whatever their revision.
    pub(super) fn manage(&self) -> Planned {
        let mut planned = Planned::default();
        for (node, verdict) in &self.verdicts {
            self.manage_node(node, *verdict, &mut planned);
        }
        // Pods that wait for a node that is gone; those that ran there are the Pod collector's.
        for (node, pods) in self.pods.iter().filter(|(node, _)| !self.verdicts.contains_key(*node)) {
            let waiting = pods.iter().filter(|pod| {
                let placed = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
                !placed && !is_leaving(pod)
            });
            planned.delete.extend(waiting.map(|pod| pod.name_any()));
        }
        planned.create.truncate(BURST);
        planned.delete.truncate(BURST);
        planned
    }

    fn manage_node(&self, node: &str, verdict: Verdict, planned: &mut Planned) {
        let pods = self.on(node);
        if verdict.run && pods.is_empty() {
            planned.create.push(node.to_owned());
        } else if verdict.stay {
            let mut running: Vec<&Arc<Pod>> = Vec::new();
            for pod in pods.iter().filter(|pod| !is_leaving(pod)) {
                match phase(pod) {
                    ended @ ("Failed" | "Succeeded") => planned.ended.push(Ended {
                        pod: pod.name_any(),
                        node: node.to_owned(),
                        failed: ended == "Failed",
                    }),
                    _ => running.push(pod),
                }
            }
            by_age(&mut running);
            if self.rolls() && self.bounds().0 > 0 {
                self.surged(&running, planned);
            } else {
                planned.delete.extend(running.iter().skip(1).map(|pod| pod.name_any()));
            }
        } else {
            let there = pods.iter().filter(|pod| !is_leaving(pod));
            planned.delete.extend(there.map(|pod| pod.name_any()));
        }
    }

    /// A node may have one old and one new Pod while the new one gets ready.
    fn surged(&self, running: &[&Arc<Pod>], planned: &mut Planned) {
        if running.len() <= 1 {
            return;
        }
        let (mut new, mut old) = (None, None);
        for pod in running {
            let place = if self.is_new(pod) { &mut new } else { &mut old };
            if place.is_none() {
                *place = Some(*pod);
            } else {
                planned.delete.push(pod.name_any());
            }
        }
        if let (Some(new), Some(old)) = (new, old)
            && (!is_ready(old) || self.available(new))
        {
            planned.delete.push(old.name_any());
        }
    }

    /// The one new and the one old Pod of a node; `None` when there are several of either.
    fn pair(&self, pods: &'a [Arc<Pod>]) -> Option<Pair<'a>> {
        let (mut new, mut old) = (None, None);
        for pod in pods.iter().filter(|pod| !is_leaving(pod)) {
            let place = if self.is_new(pod) { &mut new } else { &mut old };
            if place.replace(pod).is_some() {
                return None;
            }
        }
        Some((new, old))
    }

    /// Replaces old Pods, as many as the bounds allow. Nothing with the strategy `OnDelete`.
    pub(super) fn roll(&'a self) -> Planned {
        match self.bounds() {
            _ if !self.rolls() => Planned::default(),
            (0, unavailable) => self.roll_in_place(unavailable),
            (surge, _) => self.roll_with_surge(surge),
        }
    }

    fn roll_in_place(&'a self, max_unavailable: i32) -> Planned {
        // A node that waits for its Pod has none that is available, even before the new one is there to be counted.
        let without = self.verdicts.iter().filter(|(node, verdict)| verdict.run && self.on(node).is_empty());
        let mut unavailable = i32::try_from(without.count()).unwrap_or(i32::MAX);
        let (mut broken, mut candidates) = (Vec::new(), Vec::new());
        for pods in self.pods.values() {
            match self.pair(pods) {
                // What `manage` is to put right counts as unavailable.
                None | Some((None, None) | (Some(_), Some(_))) => unavailable += 1,
                Some((Some(new), None)) => unavailable += i32::from(!self.available(new)),
                Some((None, Some(old))) if !self.available(old) => {
                    unavailable += 1;
                    broken.push(old.name_any());
                }
                Some((None, Some(old))) => candidates.push(old.name_any()),
            }
        }
        let room = usize::try_from(max_unavailable - unavailable).unwrap_or_default();
        candidates.truncate(room);
        broken.extend(candidates);
        Planned { delete: broken, ..Planned::default() }
    }

    fn roll_with_surge(&'a self, max_surge: i32) -> Planned {
        let (mut surge, mut planned, mut candidates) = (0, Planned::default(), Vec::new());
        for (node, pods) in &self.pods {
            match self.pair(pods) {
                None => surge += 1,
                Some((_, None)) => {}
                Some((None, Some(old))) if !self.available(old) => planned.create.push(node.clone()),
                Some((None, Some(_))) => candidates.push(node.clone()),
                Some((Some(new), Some(_))) if !self.available(new) => surge += 1,
                Some((Some(_), Some(old))) => planned.delete.push(old.name_any()),
            }
        }
        // A node that must not have a Pod any more gets no second one.
        candidates.retain(|node| self.verdicts.get(node).is_some_and(|verdict| verdict.run));
        planned.create.retain(|node| self.verdicts.get(node).is_some_and(|verdict| verdict.run));
        candidates.truncate(usize::try_from(max_surge - surge).unwrap_or_default());
        planned.create.extend(candidates);
        planned
    }

    /// Returns the status these Pods make.
    pub(super) fn status(&self) -> DaemonSetStatus {
        let old = self.set.status.clone().unwrap_or_default();
        let (mut current, mut misscheduled, mut ready, mut available, mut updated) = (0, 0, 0, 0, 0);
        for (node, verdict) in &self.verdicts {
            let mut pods: Vec<&Arc<Pod>> = self.on(node).iter().collect();
            by_age(&mut pods);
            match (verdict.run, pods.first()) {
                (true, Some(oldest)) => {
                    current += 1;
                    ready += i32::from(is_ready(oldest));
                    available += i32::from(is_ready(oldest) && self.available(oldest));
                    updated += i32::from(self.is_new(oldest));
                }
                (false, Some(_)) => misscheduled += 1,
                (_, None) => {}
            }
        }
        let some = |count: i32| Some(count).filter(|count| *count != 0);
        DaemonSetStatus {
            collision_count: old.collision_count,
            conditions: old.conditions,
            current_number_scheduled: current,
            desired_number_scheduled: self.desired(),
            number_available: some(available),
            number_misscheduled: misscheduled,
            number_ready: ready,
            number_unavailable: some(self.desired() - available),
            observed_generation: self.set.metadata.generation,
            updated_number_scheduled: some(updated),
        }
    }

    /// When the next Pod will have been Ready for long enough.
    pub(super) fn next_available(&self) -> Option<SignedDuration> {
        let all = self.pods.values().flatten();
        all.filter_map(|pod| available_in(pod, self.min_ready(), self.now))
            .filter(|left| left.is_positive())
            .min()
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
