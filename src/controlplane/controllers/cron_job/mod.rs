//! CronJobs: makes a Job every time the schedule says so.

mod plan;

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use kube::api::{DeleteParams, PostParams};
use kube::{Resource, ResourceExt};

use self::plan::{Planned, note_created, plan};
use super::context::{Context, Error, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use super::indexes;
use super::pod_control::{explain, is_terminating};
use client::informer::{Cache, Key};
use client::typed::{controller_of, is_controlled_by};

struct Reconciler {
    context: Context,
    crons: Cache<CronJob>,
    jobs: Cache<Job>,
}

pub(super) fn start(context: &Context) {
    let (crons, jobs) = (context.cache::<CronJob>(), indexes::by_owner::<Job>(context));
    let mut harness = Harness::new(context);
    harness.watches(&crons, |change, queue| {
        change.new.into_iter().for_each(|cron| queue.add(Key::of(&cron.metadata)));
    });
    harness.watches(&jobs, |change, queue| {
        for job in change.both() {
            let owner = controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob");
            let namespace = job.namespace().unwrap_or_default();
            owner.into_iter().for_each(|owner| queue.add(Key::new(namespace.clone(), &owner.name)));
        }
    });
    harness.run(5, Arc::new(Reconciler { context: context.clone(), crons, jobs }));
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(cron) = self.crons.get(key) else { return Ok(Outcome::Done) };
        let uid = cron.uid().unwrap_or_default();
        let jobs = indexes::controlled_by(&self.jobs, &uid);
        let missing = self.missing(key, &cron, &jobs).await?;
        let planned = plan(&cron, &jobs, &missing, self.context.now());
        let outcome = Outcome::after(planned.look_again);
        self.act(key, &cron, planned).await?;
        Ok(outcome)
    }
}

impl Reconciler {
    /// The uids of Jobs that the status calls active and that the API server does not have any more.
    async fn missing(&self, key: &Key, cron: &CronJob, jobs: &[Arc<Job>]) -> Result<BTreeSet<String>, Error> {
        let mut missing = BTreeSet::new();
        let active = cron.status.iter().flat_map(|status| status.active.iter().flatten());
        for reference in active.filter(|reference| jobs.iter().all(|job| job.uid() != reference.uid)) {
            let name = reference.name.as_deref().unwrap_or_default();
            let found = self.context.api::<Job>(&key.namespace).get_opt(name).await?;
            if found.is_none_or(|job| job.uid() != reference.uid) {
                missing.extend(reference.uid.clone());
            }
        }
        Ok(missing)
    }

    async fn act(&self, key: &Key, cron: &CronJob, planned: Planned) -> Result<(), Error> {
        let (recorder, about) = (&self.context.recorder, cron.object_ref(&()));
        for notice in planned.notices {
            match notice.warning {
                true => recorder.warning(about.clone(), notice.reason, notice.message),
                false => recorder.normal(about.clone(), notice.reason, notice.message),
            }
        }
        let mut status = planned.status;
        let api = self.context.api::<Job>(&key.namespace);
        for name in planned.delete {
            if let Err(error) = ignore_not_found(api.delete(&name, &DeleteParams::background()).await) {
                recorder.warning(about.clone(), "FailedDelete", format!("Deleted job: {}", explain(&error)));
                return Err(error.into());
            }
            recorder.normal(about.clone(), "SuccessfulDelete", format!("Deleted job {name}"));
        }
        if let Some((job, at)) = planned.create
            && let Some(made) = self.create(key, cron, &job).await?
        {
            note_created(&mut status, &made, at);
        }
        self.update_status(cron, status).await
    }

    /// Makes a Job, or finds it made already; `None` when its namespace is on its way out.
    async fn create(&self, key: &Key, cron: &CronJob, job: &Job) -> Result<Option<Job>, Error> {
        let (recorder, about) = (&self.context.recorder, cron.object_ref(&()));
        let api = self.context.api::<Job>(&key.namespace);
        match api.create(&PostParams::default(), job).await {
            Ok(made) => {
                recorder.normal(about, "SuccessfulCreate", format!("Created job {}", made.name_any()));
                Ok(Some(made))
            }
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let there = api.get(&job.name_any()).await?;
                let ours =
                    is_controlled_by(&there.metadata, cron.metadata.uid.as_deref().unwrap_or_default());
                match ours {
                    true => Ok(Some(there)),
                    false => Err(kube::Error::Api(status).into()),
                }
            }
            Err(error) if is_terminating(&error) => Ok(None),
            Err(error) => {
                recorder.warning(about, "FailedCreate", format!("Error creating job: {}", explain(&error)));
                Err(error.into())
            }
        }
    }

    async fn update_status(&self, cron: &CronJob, status: CronJobStatus) -> Result<(), Error> {
        if *cron.status.as_ref().unwrap_or(&CronJobStatus::default()) == status {
            return Ok(());
        }
        let api = self.context.api::<CronJob>(&cron.namespace().unwrap_or_default());
        let changed = CronJob { status: Some(status), ..cron.clone() };
        ignore_not_found(api.replace_status(&cron.name_any(), &PostParams::default(), &changed).await)?;
        Ok(())
    }
}
