//! Jobs: runs Pods until as many as asked for have succeeded, or too many have failed.
//!
//! ```text
//! Pod ended -> named in the status as uncounted -> its finalizer goes -> counted -> all ended: Complete or Failed
//! ```
//!
//! A Pod is held by a finalizer until the Job's status has its uid, so none is lost and none counts twice.

mod index_set;
mod plan;
mod pods;
mod policy;

use std::sync::Arc;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use self::plan::{Planned, plan};
use self::pods::{JOB_NAME, TRACKING, is_tracked};
use super::claim::{candidates, claim, settle};
use super::context::{Context, Error, ignore_not_found};
use super::expectations::Expectations;
use super::harness::{Harness, Outcome, Reconcile};
use super::indexes;
use super::pod_control::{PodControl, watch_owners, watch_pods};
use super::writes::Writes;
use client::informer::{Cache, Key};
use client::typed::controller_of;

pub(super) use self::plan::{condition, is_finished};

/// The name under which this controller takes care of Jobs in `spec.managedBy`.
const MANAGER: &str = "kubernetes.io/job-controller";

struct Reconciler {
    context: Context,
    expectations: Expectations,
    jobs: Cache<Job>,
    pods: Cache<Pod>,
    /// The last status written of each Job: what an older one counts is not to be acted on.
    writes: Writes,
}

pub(super) fn start(context: &Context) {
    let expectations = Expectations::default();
    let (jobs, pods) = (indexes::by_owner::<Job>(context), indexes::pods(context));
    let mut harness = Harness::new(context);
    watch_owners(&mut harness, &jobs, &expectations);
    watch_pods(&mut harness, &pods, &expectations, &jobs, |job: &Job| job.spec.as_ref()?.selector.clone());
    // A Pod that is held by a Job that has let it go, or never will.
    harness.watches(&pods, |change, queue| {
        if let Some(pod) = change.new.filter(|pod| is_tracked(pod) && controller_of(&pod.metadata).is_none())
        {
            queue.add(Key::new(pod.namespace().unwrap_or_default(), held_for(pod)));
        }
    });
    let (context, writes) = (context.clone(), Writes::default());
    harness.run(5, Arc::new(Reconciler { context, expectations, jobs, pods, writes }));
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let job = self.jobs.get(key);
        self.release_orphans(key, job.as_deref()).await?;
        let Some(job) = job else {
            self.expectations.forget(key);
            self.writes.gone(key, key);
            return Ok(Outcome::Done);
        };
        if !self.writes.settled(key, std::iter::once(&job.metadata), self.context.now()) {
            // The watch brings what was written, and with it this key.
            return Ok(Outcome::Done);
        }
        let Some(spec) = &job.spec else { return Ok(Outcome::Done) };
        let Some(selector) = &spec.selector else { return Ok(Outcome::Done) };
        if spec.managed_by.as_deref().is_some_and(|manager| manager != MANAGER) {
            return Ok(Outcome::Done);
        }
        let trusted = self.expectations.satisfied(key, self.context.now());
        let claim = claim(&*job, selector, candidates(&*job, &self.pods));
        let pods = settle(&self.context, &*job, claim).await?;
        if is_finished(&job) {
            self.untrack(&pods).await?;
            return Ok(Outcome::Done);
        }
        let planned = plan(&job, spec, &pods, trusted, self.context.now());
        self.act(key, &job, planned).await
    }
}

impl Reconciler {
    async fn act(&self, key: &Key, job: &Job, planned: Planned) -> Result<Outcome, Error> {
        let about = job.object_ref(&());
        let control = PodControl {
            context: &self.context,
            expectations: &self.expectations,
            key,
            about: about.clone(),
        };
        let created = match planned.create.is_empty() {
            true => Ok(()),
            false => control.create(planned.create).await,
        };
        let deleted = match planned.delete.is_empty() {
            true => Ok(()),
            false => control.delete(&planned.delete).await,
        };
        created.and(deleted)?;
        if job.status.as_ref() != Some(&planned.status) {
            let api = self.context.api::<Job>(&key.namespace);
            let changed = Job { status: Some(planned.status), ..job.clone() };
            let written = api.replace_status(&key.name, &PostParams::default(), &changed).await;
            let Some(written) = ignore_not_found(written)? else { return Ok(Outcome::Done) };
            self.writes.note(key, &written.metadata, self.context.now());
        }
        for notice in planned.notices {
            let recorder = &self.context.recorder;
            match notice.warning {
                true => recorder.warning(about.clone(), &notice.reason, notice.message),
                false => recorder.normal(about.clone(), &notice.reason, notice.message),
            }
        }
        self.untrack(&planned.untrack).await?;
        Ok(Outcome::after(planned.look_again))
    }

    /// Lets Pods go that are counted.
    async fn untrack(&self, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let held = pods.iter().filter(|pod| is_tracked(pod));
        let one = async |pod: &Pod| {
            let patch =
                json!({"metadata": {"uid": pod.uid(), "$deleteFromPrimitiveList/finalizers": [TRACKING]}});
            let api = self.context.api::<Pod>(&pod.namespace().unwrap_or_default());
            let patched = api.patch(&pod.name_any(), &PatchParams::default(), &Patch::Strategic(patch)).await;
            ignore_not_found(patched)
        };
        let results = futures::future::join_all(held.map(|pod| one(pod))).await;
        results.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(())
    }

    /// Pods that are held in the name of this Job and are not, or no longer, its own.
    async fn release_orphans(&self, key: &Key, job: Option<&Job>) -> Result<(), Error> {
        let uid = job.and_then(|job| job.metadata.uid.as_deref());
        let orphans: Vec<Arc<Pod>> = self
            .pods
            .in_namespace(&key.namespace)
            .into_iter()
            .filter(|pod| {
                let lost = match controller_of(&pod.metadata) {
                    Some(owner) => {
                        owner.kind == "Job" && owner.name == key.name && Some(owner.uid.as_str()) != uid
                    }
                    None => job.is_none() && held_for(pod) == key.name,
                };
                lost && is_tracked(pod)
            })
            .collect();
        if orphans.is_empty() {
            return Ok(());
        }
        if key.name.is_empty() {
            return self.untrack(&orphans).await;
        }
        // The cache may be behind: only the API server knows that the Job is gone.
        let fresh = self.context.api::<Job>(&key.namespace).get_opt(&key.name).await?;
        let fresh = fresh.as_ref().and_then(|job| job.metadata.uid.as_deref());
        let lost = orphans
            .into_iter()
            .filter(|pod| controller_of(&pod.metadata).is_none_or(|owner| Some(owner.uid.as_str()) != fresh));
        let lost: Vec<Arc<Pod>> = lost.collect();
        self.untrack(&lost).await
    }
}

/// Returns the name of the Job that a Pod without an owner was made for; empty where its labels are gone too: nobody but
/// this controller lets it go then.
fn held_for(pod: &Pod) -> &str {
    pod.labels().get(JOB_NAME).map_or("", String::as_str)
}

/// When the Job finished: the time of its last condition.
pub(super) fn finished_at(job: &Job) -> Option<jiff::Timestamp> {
    let status = job.status.as_ref()?;
    let last = condition(status, "Complete").or_else(|| condition(status, "Failed"))?;
    last.last_transition_time.as_ref().map(|at| at.0)
}
