//! DaemonSets: one Pod on every node that fits, replaced node by node when the template changes.

mod fit;
mod plan;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::api::PostParams;
use kube::{Resource, ResourceExt};

use self::plan::{Ended, Planned, Seen};
use super::claim::{candidates, claim, settle};
use super::context::{Context, Error, ignore_not_found};
use super::expectations::Expectations;
use super::harness::{Harness, Outcome, Reconcile};
use super::history::{REVISION_LABEL, Revised, Settled, truncate};
use super::indexes;
use super::pod_control::{PodControl, watch_owners, watch_pods};
use client::informer::{Cache, Key};
use rt::Backoff;

/// Between replacements of a Pod that keeps failing on one node (upstream's failedPodsBackoff).
const FAILED: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_mins(15) };

struct Reconciler {
    context: Context,
    expectations: Expectations,
    sets: Cache<DaemonSet>,
    pods: Cache<Pod>,
    nodes: Cache<Node>,
    revisions: Cache<ControllerRevision>,
    /// How often a DaemonSet's Pod has failed on a node, and when the last one was replaced.
    failed: Mutex<HashMap<(Key, String), (u32, Timestamp)>>,
}

pub(super) fn start(context: &Context) {
    let expectations = Expectations::default();
    let (sets, pods) = (context.cache::<DaemonSet>(), indexes::pods(context));
    let (nodes, revisions) = (context.cache::<Node>(), indexes::by_owner::<ControllerRevision>(context));
    let mut harness = Harness::new(context);
    watch_owners(&mut harness, &sets, &expectations);
    watch_pods(&mut harness, &pods, &expectations, &sets, |set: &DaemonSet| {
        set.spec.as_ref().map(|spec| spec.selector.clone())
    });
    let all = sets.clone();
    harness.watches(&nodes, move |change, queue| {
        if change.new.map(|node| face(node)) != change.old.map(|node| face(node)) {
            all.list().iter().for_each(|set| queue.add(Key::of(&set.metadata)));
        }
    });
    harness.reads(&revisions);
    let failed = Mutex::default();
    let context = context.clone();
    harness.run(2, Arc::new(Reconciler { context, expectations, sets, pods, nodes, revisions, failed }));
}

/// What of a node decides about DaemonSets.
fn face(node: &Node) -> impl PartialEq + '_ {
    (node.metadata.labels.as_ref(), node.spec.as_ref().and_then(|spec| spec.taints.as_ref()))
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _), _| of != key);
            return Ok(Outcome::Done);
        };
        let Some(spec) = &set.spec else { return Ok(Outcome::Done) };
        if spec.selector == LabelSelector::default() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.context.recorder.warning(set.object_ref(&()), "SelectingAll", message);
            return Ok(Outcome::Done);
        }
        if set.metadata.deletion_timestamp.is_some() {
            return Ok(Outcome::Done);
        }
        let trusted = self.expectations.satisfied(key, self.context.now());
        let revisions = claim(&*set, &spec.selector, candidates(&*set, &self.revisions));
        let revisions = settle(&self.context, &*set, revisions).await?;
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let revised = Revised { owner: &*set, template: &spec.template, collisions, label: REVISION_LABEL };
        let current = match revised.settle(&self.context, &revisions).await? {
            Settled::Revision(current) => current,
            Settled::Collision => return self.collided(&set).await,
        };
        let hash = current.labels().get(REVISION_LABEL).cloned().unwrap_or_default();
        let pods =
            settle(&self.context, &*set, claim(&*set, &spec.selector, candidates(&*set, &self.pods))).await?;
        let seen = Seen::new(&set, &hash, &self.nodes.list(), &pods, self.context.now());
        let (done, look_again) = match trusted {
            true => self.act(key, &seen).await,
            false => (Ok(()), None),
        };
        if trusted && done.is_ok() {
            let live = |revision: &ControllerRevision| {
                let label = revision.labels().get(REVISION_LABEL);
                label == Some(&hash) || pods.iter().any(|pod| pod.labels().get(REVISION_LABEL) == label)
            };
            truncate(&self.context, key, &revisions, &live, spec.revision_history_limit).await?;
        }
        self.update_status(&set, seen.status()).await?;
        done?;
        Ok(Outcome::after([seen.next_available(), look_again].into_iter().flatten().min()))
    }
}

impl Reconciler {
    /// Another template has the name of this one's revision: the next round finds another name.
    async fn collided(&self, set: &DaemonSet) -> Result<Outcome, Error> {
        let mut status = set.status.clone().unwrap_or_default();
        status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
        self.update_status(set, status).await?;
        Ok(Outcome::Done)
    }

    /// Carries out what is missing on the nodes; only when that is nothing is the update taken a step further.
    async fn act(&self, key: &Key, seen: &Seen<'_>) -> (Result<(), Error>, Option<SignedDuration>) {
        let mut managed = seen.manage();
        let look_again = self.replace_ended(key, seen, &mut managed);
        let done = self.carry_out(key, seen, managed).await;
        if done.is_err() || !self.expectations.satisfied(key, self.context.now()) {
            return (done, look_again);
        }
        (self.carry_out(key, seen, seen.roll()).await, look_again)
    }

    /// Deletes Pods that ended, each node's later and later; returns when the next one's time comes.
    fn replace_ended(&self, key: &Key, seen: &Seen<'_>, planned: &mut Planned) -> Option<SignedDuration> {
        let mut look_again = None;
        let now = self.context.now();
        for Ended { pod, node, failed } in std::mem::take(&mut planned.ended) {
            let about = seen.set.object_ref(&());
            let full = format!("{}/{pod}", key.namespace);
            if !failed {
                let message =
                    format!("Found succeeded daemon pod {full} on node {node}, will try to delete it");
                self.context.recorder.normal(about, "SucceededDaemonPod", message);
                planned.delete.push(pod);
                continue;
            }
            let mut all = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            let (count, last) = all.entry((key.clone(), node.clone())).or_insert((0, now));
            let wait = SignedDuration::try_from(FAILED.delay(*count)).unwrap_or(SignedDuration::MAX);
            let since = now.duration_since(*last);
            if since > SignedDuration::try_from(FAILED.max * 2).unwrap_or(SignedDuration::MAX) {
                *count = 0;
            }
            let left = wait - since;
            if left.is_positive() {
                look_again = Some(look_again.map_or(left, |other: SignedDuration| other.min(left)));
                continue;
            }
            (*count, *last) = (count.saturating_add(1), now);
            drop(all);
            let message = format!("Found failed daemon pod {full} on node {node}, will try to kill it");
            self.context.recorder.warning(about, "FailedDaemonPod", message);
            planned.delete.push(pod);
        }
        look_again
    }

    async fn carry_out(&self, key: &Key, seen: &Seen<'_>, planned: Planned) -> Result<(), Error> {
        let control = PodControl {
            context: &self.context,
            expectations: &self.expectations,
            key,
            about: seen.set.object_ref(&()),
        };
        let delete: Vec<Arc<Pod>> = seen
            .pods
            .values()
            .flatten()
            .filter(|pod| planned.delete.contains(&pod.name_any()))
            .cloned()
            .collect();
        let bare = fit::bare_pod(seen.set, seen.hash);
        let create = planned.create.iter().map(|node| fit::tie(bare.clone(), node)).collect();
        let created = control.create(create).await;
        let deleted = control.delete(&delete).await;
        created.and(deleted)
    }

    async fn update_status(&self, set: &DaemonSet, status: DaemonSetStatus) -> Result<(), Error> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api = self.context.api::<DaemonSet>(&set.namespace().unwrap_or_default());
        let changed = DaemonSet { status: Some(status), ..set.clone() };
        ignore_not_found(api.replace_status(&set.name_any(), &PostParams::default(), &changed).await)?;
        Ok(())
    }
}
