//! Jobs and CronJobs.

mod cron_job;
mod failure_policy;
mod job;
mod job_update;

pub use cron_job::CronJob;
pub use job::Job;
