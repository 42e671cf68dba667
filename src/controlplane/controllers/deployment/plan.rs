//! What to do for one Deployment: a pure function of what is observed.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus, ReplicaSet};
use kube::ResourceExt;

use super::arithmetic::{Bounds, DESIRED, proportional, shrink_old};
use super::{revision, status};

/// One step; they are carried out in order, and the first failure ends the round.
#[derive(Debug, PartialEq)]
pub(super) enum Op {
    Create(Box<ReplicaSet>),
    /// Writes a ReplicaSet of another size than `from`.
    Scale {
        set: Box<ReplicaSet>,
        from: i32,
    },
    /// Writes a ReplicaSet whose notes or template-independent settings changed.
    Update(Box<ReplicaSet>),
    Delete {
        name: String,
        uid: String,
    },
    /// Notes the present revision on the Deployment.
    Revision(String),
    Status(Box<DeploymentStatus>),
    /// Time alone will make a difference: look again then.
    RequeueAfter(SignedDuration),
}

/// Everything the plan depends on.
pub(super) struct Observed<'a> {
    pub deployment: &'a Deployment,
    /// The ReplicaSets it controls.
    pub sets: Vec<ReplicaSet>,
    /// Whether a ReplicaSet (by uid) has Pods that have not ended.
    pub pods_running: &'a dyn Fn(&str) -> bool,
    pub now: Timestamp,
}

pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

struct Planner<'a> {
    deployment: &'a Deployment,
    bounds: Bounds,
    new: Option<ReplicaSet>,
    /// By age, oldest first.
    old: Vec<ReplicaSet>,
    pods_running: &'a dyn Fn(&str) -> bool,
    now: Timestamp,
    ops: Vec<Op>,
}

/// What to do next for a Deployment. Every change of its ReplicaSets brings it back here.
pub(super) fn plan(observed: Observed<'_>) -> Vec<Op> {
    let Observed { deployment, mut sets, pods_running, now } = observed;
    let Some(spec) = &deployment.spec else { return Vec::new() };
    sets.sort_by_key(|set| (set.metadata.creation_timestamp.clone(), set.metadata.name.clone()));
    let at = sets.iter().position(|set| revision::is_current(deployment, set));
    let new = at.map(|at| sets.remove(at));
    let bounds = Bounds::of(spec);
    let mut planner = Planner { deployment, bounds, new, old: sets, pods_running, now, ops: Vec::new() };
    if deployment.metadata.deletion_timestamp.is_some() {
        planner.plain_status();
    } else if let Some(changed) = status::paused(deployment, now) {
        // Written alone: what follows starts from it.
        planner.ops.push(Op::Status(Box::new(changed)));
    } else if spec.paused == Some(true) {
        planner.note_revision();
        planner.scale();
        planner.clean_up();
        planner.plain_status();
    } else if planner.is_scaling() {
        planner.note_revision();
        planner.scale();
        planner.plain_status();
    } else if bounds.rolling {
        planner.roll();
    } else {
        planner.recreate();
    }
    planner.ops
}

impl Planner<'_> {
    fn all(&self) -> Vec<&ReplicaSet> {
        self.old.iter().chain(&self.new).collect()
    }

    /// Whether the Deployment's size changed since its ReplicaSets were sized.
    fn is_scaling(&self) -> bool {
        let active = self.all().into_iter().filter(|set| replicas(set) > 0);
        let mut desired = active.filter_map(|set| revision::annotation_number::<i32>(set, DESIRED));
        desired.any(|desired| desired != self.bounds.replicas)
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(revision::number).max().unwrap_or(0) + 1
    }

    /// Numbers the new ReplicaSet and the Deployment.
    fn note_revision(&mut self) {
        let next = self.next_revision();
        let Some(new) = &mut self.new else { return };
        if let Some(fresh) = revision::refreshed(self.deployment, new, next) {
            self.ops.push(Op::Update(Box::new(fresh.clone())));
            // The write gives it another resourceVersion: later steps wait for the next round.
            *new = fresh;
            return;
        }
        let number = revision::number(new).to_string();
        if self.deployment.annotations().get(revision::REVISION) != Some(&number) {
            self.ops.push(Op::Revision(number));
        }
        if let Some(found) = status::found(self.deployment, &new.name_any(), self.now) {
            self.ops.push(Op::Status(Box::new(found)));
        }
    }

    /// Makes the new ReplicaSet. The rest follows when it is seen.
    fn create_new(&mut self) {
        let next = self.next_revision();
        let all: Vec<&ReplicaSet> = self.old.iter().collect();
        let size = self.bounds.new_size(&all, 0);
        let set = revision::make(self.deployment, next, size, self.bounds);
        let name = set.name_any();
        self.ops.push(Op::Create(Box::new(set.clone())));
        self.ops.push(Op::Revision(next.to_string()));
        self.new = Some(set);
        let (all, new) = (self.all(), self.new.as_ref());
        let mut status = status::counted(self.deployment, self.bounds, &all, new, self.now);
        status::created(self.deployment, &mut status, &name, self.now);
        self.ops.push(Op::Status(Box::new(status)));
    }

    /// Sizes a ReplicaSet; true when that changes it.
    fn resize(&mut self, set: &ReplicaSet, size: i32) -> bool {
        let from = replicas(set);
        let mut sized = set.clone();
        revision::note_scale(&mut sized, self.bounds);
        if let Some(spec) = &mut sized.spec {
            spec.replicas = Some(size);
        }
        if from == size && sized.annotations() == set.annotations() {
            return false;
        }
        self.ops.push(Op::Scale { set: Box::new(sized), from });
        true
    }

    /// True when the new ReplicaSet was just written: another write would conflict with that one.
    fn refreshing(&self) -> bool {
        self.ops.iter().any(|op| matches!(op, Op::Update(_)))
    }

    fn roll(&mut self) {
        let Some(new) = self.new.clone() else { return self.create_new() };
        self.note_revision();
        if self.refreshing() {
            return;
        }
        let (size, wanted) = (replicas(&new), self.bounds.replicas);
        let target = if size > wanted { wanted } else { self.bounds.new_size(&self.all(), size) };
        let mut scaled = size != target && self.resize(&new, target);
        if !scaled {
            let old: Vec<&ReplicaSet> = self.old.iter().collect();
            let sizes = shrink_old(self.bounds, &old, Some(&new));
            for (set, size) in self.old.clone().iter().zip(sizes) {
                scaled |= replicas(set) != size && self.resize(set, size);
            }
        }
        if !scaled && self.is_complete() {
            self.clean_up();
        }
        self.rollout_status();
    }

    fn recreate(&mut self) {
        self.note_revision();
        if self.refreshing() {
            return;
        }
        let mut scaled = false;
        for set in self.old.clone() {
            scaled |= replicas(&set) > 0 && self.resize(&set, 0);
        }
        let running = self.old.iter().filter_map(|set| set.uid()).any(|uid| (self.pods_running)(&uid));
        if scaled || running {
            return self.rollout_status();
        }
        let Some(new) = self.new.clone() else { return self.create_new() };
        if replicas(&new) != self.bounds.replicas {
            self.resize(&new, self.bounds.replicas);
        } else if self.is_complete() {
            self.clean_up();
        }
        self.rollout_status();
    }

    /// Spreads a changed size over the ReplicaSets, without moving the rollout on.
    fn scale(&mut self) {
        if self.refreshing() {
            return;
        }
        let all: Vec<ReplicaSet> = self.all().into_iter().cloned().collect();
        let active: Vec<&ReplicaSet> = all.iter().filter(|set| replicas(set) > 0).collect();
        let only = match active.as_slice() {
            [] => self.new.clone().or_else(|| self.old.last().cloned()),
            [only] => Some(ReplicaSet::clone(only)),
            _ => None,
        };
        if let Some(only) = only {
            self.resize(&only, self.bounds.replicas);
        } else if let Some(new) = self.new.clone().filter(|new| self.is_saturated(new)) {
            for set in active.iter().filter(|set| set.metadata.uid != new.metadata.uid) {
                self.resize(set, 0);
            }
        } else if self.bounds.rolling {
            for (i, size) in proportional(self.deployment, self.bounds, &active) {
                self.resize(active[i], size);
            }
        }
    }

    fn is_saturated(&self, set: &ReplicaSet) -> bool {
        let wanted = self.bounds.replicas;
        revision::annotation_number(set, DESIRED) == Some(wanted)
            && replicas(set) == wanted
            && available(set) == wanted
    }

    fn is_complete(&self) -> bool {
        let status = self.deployment.status.as_ref();
        status.is_some_and(|status| status::complete(self.deployment, self.bounds, status))
    }

    /// Deletes the oldest revisions beyond the history limit.
    fn clean_up(&mut self) {
        let limit = self.deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit);
        let Some(limit) = limit.filter(|limit| *limit != i32::MAX) else { return };
        let limit = usize::try_from(limit).unwrap_or_default();
        let mut kept: Vec<&ReplicaSet> =
            self.old.iter().filter(|set| set.metadata.deletion_timestamp.is_none()).collect();
        kept.sort_by_key(|set| revision::number(set));
        let excess = kept.len().saturating_sub(limit);
        let idle = |set: &&ReplicaSet| {
            let status = set.status.clone().unwrap_or_default();
            let seen = status.observed_generation.unwrap_or_default();
            replicas(set) == 0 && status.replicas == 0 && set.metadata.generation.unwrap_or_default() <= seen
        };
        let gone = kept.into_iter().take(excess).filter(idle);
        let ops = gone.map(|set| Op::Delete { name: set.name_any(), uid: set.uid().unwrap_or_default() });
        let ops: Vec<Op> = ops.collect();
        self.ops.extend(ops);
    }

    fn plain_status(&mut self) {
        let status = status::counted(self.deployment, self.bounds, &self.all(), self.new.as_ref(), self.now);
        self.push_status(status);
    }

    fn rollout_status(&mut self) {
        let status = status::rollout(self.deployment, self.bounds, &self.all(), self.new.as_ref(), self.now);
        let check = status::next_check(self.deployment, self.bounds, &status, self.now);
        self.push_status(status);
        self.ops.extend(check.map(Op::RequeueAfter));
    }

    fn push_status(&mut self, status: DeploymentStatus) {
        if self.ops.iter().any(|op| matches!(op, Op::Status(_))) {
            // One status a round; the event of this one starts the next.
            return;
        }
        if self.deployment.status.as_ref() != Some(&status) {
            self.ops.push(Op::Status(Box::new(status)));
        }
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
