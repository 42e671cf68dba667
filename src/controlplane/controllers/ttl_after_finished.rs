//! Jobs with a time to live: deletes them, with their Pods, that long after they finished.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use kube::api::{DeleteParams, Preconditions};

use super::context::{Context, Error, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use super::job::finished_at;
use client::informer::{Cache, Key};

struct Reconciler {
    context: Context,
    jobs: Cache<Job>,
}

/// When the Job is to be deleted; `None` while it has not finished, or for ever.
fn expires(job: &Job) -> Option<Timestamp> {
    let ttl = job.spec.as_ref()?.ttl_seconds_after_finished?;
    finished_at(job)?.checked_add(SignedDuration::from_secs(ttl.into())).ok()
}

pub(super) fn start(context: &Context) {
    let jobs = context.cache::<Job>();
    let mut harness = Harness::new(context);
    harness.watches(&jobs, |change, queue| {
        if let Some(job) = change.new.filter(|job| expires(job).is_some()) {
            queue.add(Key::of(&job.metadata));
        }
    });
    harness.run(2, Arc::new(Reconciler { context: context.clone(), jobs }));
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(job) = self.jobs.get(key).filter(|job| job.metadata.deletion_timestamp.is_none()) else {
            return Ok(Outcome::Done);
        };
        let Some(expires) = expires(&job) else { return Ok(Outcome::Done) };
        let left = expires.duration_since(self.context.now());
        if left.is_positive() {
            return Ok(Outcome::after(Some(left)));
        }
        // The version that was decided on: a longer time to live may have been set meanwhile.
        let preconditions = Preconditions {
            uid: job.metadata.uid.clone(),
            resource_version: job.metadata.resource_version.clone(),
        };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::foreground() };
        ignore_not_found(self.context.api::<Job>(&key.namespace).delete(&key.name, &params).await)?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn finished_jobs_expire() {
        let check = |ttl: Value, kind: &str, expect: Option<&str>| {
            let job: Job = from_value(json!({"spec": {"template": {}, "ttlSecondsAfterFinished": ttl},
                "status": {"conditions": [{"type": kind, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}))
            .unwrap();
            assert_eq!(expires(&job).map(|at| at.to_string()).as_deref(), expect, "{ttl} {kind}");
        };
        check(json!(90), "Complete", Some("2026-01-01T00:01:30Z"));
        check(json!(0), "Failed", Some("2026-01-01T00:00:00Z"));
        check(json!(90), "Suspended", None);
        check(Value::Null, "Complete", None);
    }
}
