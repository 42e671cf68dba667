//! What to do for one StatefulSet: a pure function of what is observed.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::super::history::REVISION_LABEL;
use super::pods::{new_pod, ordinal};
use client::typed::{available_in, is_available, is_ready, is_terminal, scaled};

/// A revision: its name, and its template.
pub(super) struct Revision {
    pub name: String,
    pub template: PodTemplateSpec,
}

/// What is to be done, in this order.
#[derive(Debug)]
pub(super) enum Op {
    /// Makes a Pod, and its claims before it.
    Create(Box<Pod>, i32),
    /// Puts a standing Pod's claims right; `true` when the set has been scaled down below it.
    Claims(Arc<Pod>, i32, bool),
    /// Deletes a Pod that has ended, to make it again.
    Renew(Arc<Pod>),
    Delete(Arc<Pod>),
}

/// What a StatefulSet sees.
pub(super) struct Seen<'a> {
    pub set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    current: &'a Revision,
    update: &'a Revision,
    /// By number, those within the wanted range.
    replicas: BTreeMap<i32, Arc<Pod>>,
    /// Those beyond it, the highest first.
    condemned: Vec<(i32, Arc<Pod>)>,
    now: Timestamp,
}

fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

fn is_running_and_ready(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running") && is_ready(pod)
}

fn is_healthy(pod: &Pod) -> bool {
    is_running_and_ready(pod) && !is_leaving(pod)
}

impl<'a> Seen<'a> {
    pub(super) fn new(
        set: &'a StatefulSet,
        spec: &'a StatefulSetSpec,
        revisions: (&'a Revision, &'a Revision),
        owned: &[Arc<Pod>],
        now: Timestamp,
    ) -> Self {
        let start = start(spec);
        let wanted = start..start + spec.replicas.unwrap_or(1);
        let (mut replicas, mut condemned) = (BTreeMap::new(), Vec::new());
        for pod in owned {
            let Some(number) = ordinal(set, pod) else { continue };
            if wanted.contains(&number) {
                replicas.insert(number, Arc::clone(pod));
            } else {
                condemned.push((number, Arc::clone(pod)));
            }
        }
        condemned.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
        Self { set, spec, current: revisions.0, update: revisions.1, replicas, condemned, now }
    }

    fn ordered(&self) -> bool {
        self.spec.pod_management_policy.as_deref() != Some("Parallel")
    }

    fn rolls(&self) -> bool {
        let kind = self.spec.update_strategy.as_ref().and_then(|strategy| strategy.type_.as_deref());
        kind != Some("OnDelete")
    }

    fn wanted(&self) -> std::ops::Range<i32> {
        start(self.spec)..start(self.spec) + self.spec.replicas.unwrap_or(1)
    }

    fn partition(&self) -> Option<i32> {
        self.spec.update_strategy.as_ref()?.rolling_update.as_ref()?.partition
    }

    fn max_unavailable(&self) -> usize {
        let rolling =
            self.spec.update_strategy.as_ref().and_then(|strategy| strategy.rolling_update.as_ref());
        let one = IntOrString::Int(1);
        let max = rolling.and_then(|rolling| rolling.max_unavailable.as_ref()).unwrap_or(&one);
        usize::try_from(scaled(max, self.spec.replicas.unwrap_or(1), true)).unwrap_or_default().max(1)
    }

    fn available(&self, pod: &Pod) -> bool {
        is_available(pod, self.spec.min_ready_seconds.unwrap_or_default(), self.now)
    }

    fn pod_for(&self, number: i32) -> Pod {
        let done = self.set.status.as_ref().and_then(|status| status.current_replicas).unwrap_or_default();
        let old = self.rolls() && number < start(self.spec) + self.partition().unwrap_or(done);
        // Without a partition the numbers below those that are current already stay so until their turn comes.
        let revision = if old { self.current } else { self.update };
        new_pod(self.set, &revision.template, &revision.name, number)
    }

    /// Decides what to do now. Ordered sets take one step at a time, and only while everything before it is well.
    pub(super) fn plan(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        if self.set.metadata.deletion_timestamp.is_some() {
            return ops;
        }
        if self.fill(&mut ops) && self.shrink(&mut ops) && self.rolls() {
            self.roll(&mut ops);
        }
        ops
    }

    /// Makes what is missing; false when the rest must wait.
    fn fill(&self, ops: &mut Vec<Op>) -> bool {
        let ordered = self.ordered();
        for number in self.wanted() {
            let Some(pod) = self.replicas.get(&number) else {
                ops.push(Op::Create(Box::new(self.pod_for(number)), number));
                if ordered {
                    return false;
                }
                continue;
            };
            if is_terminal(pod) {
                if !is_leaving(pod) {
                    ops.push(Op::Renew(Arc::clone(pod)));
                }
                if ordered {
                    return false;
                }
                continue;
            }
            if !is_leaving(pod) {
                ops.push(Op::Claims(Arc::clone(pod), number, false));
            }
            let well = is_healthy(pod) && self.available(pod);
            if ordered && !well {
                return false;
            }
        }
        true
    }

    /// Removes what is too much, from the top; false when the rest must wait.
    fn shrink(&self, ops: &mut Vec<Op>) -> bool {
        let ordered = self.ordered();
        let standing = self.condemned.iter().filter(|(_, pod)| !is_leaving(pod));
        ops.extend(standing.map(|(number, pod)| Op::Claims(Arc::clone(pod), *number, true)));
        let all = self.replicas.values().chain(self.condemned.iter().rev().map(|(_, pod)| pod));
        let unhealthy = all.into_iter().find(|pod| !is_healthy(pod)).and_then(|pod| pod.uid());
        for (_, pod) in &self.condemned {
            if is_leaving(pod) {
                if ordered {
                    return false;
                }
                continue;
            }
            if ordered && !is_running_and_ready(pod) && pod.uid() != unhealthy {
                return false;
            }
            ops.push(Op::Delete(Arc::clone(pod)));
            if ordered {
                return false;
            }
        }
        true
    }

    /// Replaces Pods of other revisions from the top down to the partition, within what may be unavailable.
    fn roll(&self, ops: &mut Vec<Op>) {
        let lowest = start(self.spec) + self.partition().unwrap_or(0);
        let max = self.max_unavailable();
        let well = |pod: &Pod| is_healthy(pod) && self.available(pod);
        let mut down = self.wanted().filter(|n| !self.replicas.get(n).is_some_and(|pod| well(pod))).count();
        let mut above = 0;
        for (number, pod) in self.replicas.range(lowest..).rev() {
            if above >= max {
                return;
            }
            let old = pod.labels().get(REVISION_LABEL) != Some(&self.update.name);
            if !well(pod) {
                above += 1;
            }
            if !old || is_leaving(pod) {
                continue;
            }
            if well(pod) {
                if down >= max {
                    return;
                }
                down += 1;
                above += 1;
            }
            debug_assert!(self.wanted().contains(number));
            ops.push(Op::Delete(Arc::clone(pod)));
        }
    }

    /// Returns the status these Pods make.
    pub(super) fn status(&self) -> StatefulSetStatus {
        let old = self.set.status.clone().unwrap_or_default();
        let pods: Vec<&Arc<Pod>> =
            self.replicas.values().chain(self.condemned.iter().map(|(_, pod)| pod)).collect();
        let count = |test: &dyn Fn(&Pod) -> bool| {
            i32::try_from(pods.iter().filter(|pod| test(pod)).count()).unwrap_or(i32::MAX)
        };
        let of = |pod: &Pod, revision: &Revision| {
            !is_leaving(pod) && pod.labels().get(REVISION_LABEL) == Some(&revision.name)
        };
        let wanted = self.spec.replicas.unwrap_or(1);
        let ready = count(&is_running_and_ready);
        let updated = count(&|pod| of(pod, self.update));
        let mut current = count(&|pod| of(pod, self.current));
        let mut current_revision = self.current.name.clone();
        let replicas = count(&|_| true);
        if self.rolls() && [updated, ready, replicas] == [wanted; 3] {
            (current, current_revision) = (updated, self.update.name.clone());
        }
        let some = |count: i32| Some(count).filter(|count| *count != 0);
        StatefulSetStatus {
            available_replicas: Some(count(&|pod| is_running_and_ready(pod) && self.available(pod))),
            collision_count: old.collision_count.or(Some(0)),
            conditions: old.conditions,
            current_replicas: some(current),
            current_revision: Some(current_revision),
            observed_generation: self.set.metadata.generation,
            ready_replicas: some(ready),
            replicas,
            update_revision: Some(self.update.name.clone()),
            updated_replicas: some(updated),
        }
    }

    /// When the next Pod will have been Ready for long enough.
    pub(super) fn next_available(&self) -> Option<SignedDuration> {
        let min = self.spec.min_ready_seconds.unwrap_or_default();
        let all = self.replicas.values();
        all.filter_map(|pod| available_in(pod, min, self.now)).filter(|left| left.is_positive()).min()
    }
}

/// The number of the first Pod.
fn start(spec: &StatefulSetSpec) -> i32 {
    spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0)
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
