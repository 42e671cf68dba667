//! What to do for one CronJob: a pure function of what is observed.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{Resource, ResourceExt};

use super::super::job::{condition, is_finished};
use api::cron::{Schedule, zone};
use client::typed::owner_ref;

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// More missed runs than this are told about (upstream's limit).
const MANY_MISSED: i64 = 100;
/// A schedule is looked at this long after its time, so that the clock has surely reached it.
const MARGIN: SignedDuration = SignedDuration::from_millis(100);

/// Something to tell about the CronJob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub warning: bool,
    pub reason: &'static str,
    pub message: String,
}

fn normal(reason: &'static str, message: String) -> Notice {
    Notice { warning: false, reason, message }
}

fn warning(reason: &'static str, message: String) -> Notice {
    Notice { warning: true, reason, message }
}

/// What is to be done: Jobs are removed, then one may be made, then the status is written.
#[derive(Debug, Default)]
pub(super) struct Planned {
    pub status: CronJobStatus,
    pub delete: Vec<String>,
    pub create: Option<(Box<Job>, Timestamp)>,
    pub notices: Vec<Notice>,
    pub look_again: Option<SignedDuration>,
}

/// The reference by which a status names an active Job.
pub(super) fn reference(job: &Job) -> ObjectReference {
    ObjectReference { resource_version: job.resource_version(), ..job.object_ref(&()) }
}

fn started(job: &Job) -> Option<Timestamp> {
    let start = job.status.as_ref().and_then(|status| status.start_time.as_ref());
    start.or(job.metadata.creation_timestamp.as_ref()).map(|at| at.0)
}

/// Brings the list of active Jobs up to date. `missing` are uids that the list names and that are known to be gone.
fn note_jobs(planned: &mut Planned, jobs: &[Arc<Job>], missing: &BTreeSet<String>) {
    let mut active = planned.status.active.take().unwrap_or_default();
    for job in jobs {
        let uid = job.uid();
        let listed = active.iter().any(|reference| reference.uid == uid);
        let name = job.name_any();
        let finished = is_finished(job);
        if !listed && !finished {
            let message = format!("Saw a job that the controller did not create or forgot: {name}");
            planned.notices.push(warning("UnexpectedJob", message));
        } else if listed && finished {
            active.retain(|reference| reference.uid != uid);
            let complete = job.status.as_ref().is_some_and(|s| condition(s, "Complete").is_some());
            let kind = if complete { "Complete" } else { "Failed" };
            let message = format!("Saw completed job: {name}, condition: {kind}");
            planned.notices.push(normal("SawCompletedJob", message));
        }
        let done = job.status.as_ref().filter(|status| condition(status, "Complete").is_some());
        if let Some(at) = done.and_then(|status| status.completion_time.clone())
            && planned.status.last_successful_time.as_ref().is_none_or(|last| last.0 < at.0)
        {
            planned.status.last_successful_time = Some(at);
        }
    }
    active.retain(|reference| {
        let gone = reference.uid.as_ref().is_some_and(|uid| missing.contains(uid));
        if gone {
            let name = reference.name.clone().unwrap_or_default();
            planned.notices.push(normal("MissingJob", format!("Active job went missing: {name}")));
        }
        !gone
    });
    planned.status.active = Some(active).filter(|active| !active.is_empty());
}

/// The finished Jobs beyond what is to be kept of each kind, oldest first.
fn history(spec: &CronJobSpec, jobs: &[Arc<Job>]) -> Vec<String> {
    let surplus = |kind: &str, keep: Option<i32>, default: i32| {
        let keep = usize::try_from(keep.unwrap_or(default)).unwrap_or_default();
        let mut ended: Vec<&Arc<Job>> = jobs
            .iter()
            .filter(|job| job.status.as_ref().is_some_and(|status| condition(status, kind).is_some()))
            .filter(|job| job.metadata.deletion_timestamp.is_none())
            .collect();
        ended.sort_by_key(|job| (started(job), job.name_any()));
        let many = ended.len().saturating_sub(keep);
        ended.into_iter().take(many).map(|job| job.name_any()).collect::<Vec<_>>()
    };
    let mut all = surplus("Failed", spec.failed_jobs_history_limit, 1);
    all.extend(surplus("Complete", spec.successful_jobs_history_limit, 3));
    all
}

/// The latest time a run was due and has not been made, and how many were due.
fn most_recent(
    schedule: &Schedule,
    zone: &TimeZone,
    since: Timestamp,
    now: Timestamp,
) -> Option<(Timestamp, i64)> {
    let first = schedule.next_after(since, zone).filter(|first| *first <= now)?;
    let Some(second) = schedule.next_after(first, zone).filter(|second| *second <= now) else {
        return Some((first, 1));
    };
    let period = second.duration_since(first).as_secs().max(1);
    let missed = now.duration_since(first).as_secs() / period + 1;
    // Whatever the schedule, the last runs are found by stepping through them; the many before are skipped.
    let skipped = SignedDuration::from_secs(period * (missed - 2).max(0));
    let mut last = first.checked_add(skipped).ok().filter(|at| *at <= now && missed > MANY_MISSED);
    last = last.and_then(|at| schedule.next_after(at - SignedDuration::from_secs(period), zone));
    let mut last = last.filter(|at| *at <= now).unwrap_or(first);
    while let Some(next) = schedule.next_after(last, zone).filter(|next| *next <= now) {
        last = next;
    }
    Some((last, missed))
}

/// Makes the Job of a run.
fn new_job(cron: &CronJob, at: Timestamp, zone: &TimeZone) -> Job {
    let spec = &cron.spec;
    let meta = spec.job_template.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let local = at.to_zoned(zone.clone());
    let stamp = match local.offset().is_zero() {
        true => at.to_string(),
        false => local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
    };
    annotations.insert(SCHEDULED_AT.to_owned(), stamp);
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{}", cron.name_any(), at.as_second() / 60)),
            namespace: cron.namespace(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![owner_ref(cron)]),
            ..ObjectMeta::default()
        },
        spec: spec.job_template.spec.clone(),
        status: None,
    }
}

/// The schedule and its zone, or why they cannot be followed.
fn timing(spec: &CronJobSpec) -> Result<(Schedule, TimeZone), Notice> {
    let zone = match spec.time_zone.as_deref() {
        None => TimeZone::UTC,
        Some(name) => zone(name).ok_or_else(|| {
            warning("UnknownTimeZone", format!("invalid timeZone: {name:?}: unknown time zone {name}"))
        })?,
    };
    let schedule = Schedule::parse(&spec.schedule).map_err(|why| {
        warning("UnparseableSchedule", format!("unparseable schedule: {:?} : {why}", spec.schedule))
    })?;
    Ok((schedule, zone))
}

/// Decides about a CronJob.
pub(super) fn plan(cron: &CronJob, jobs: &[Arc<Job>], missing: &BTreeSet<String>, now: Timestamp) -> Planned {
    let spec = &cron.spec;
    let mut planned = Planned { status: cron.status.clone().unwrap_or_default(), ..Planned::default() };
    note_jobs(&mut planned, jobs, missing);
    if cron.metadata.deletion_timestamp.is_some() {
        return planned;
    }
    planned.delete = history(spec, jobs);
    if spec.suspend.unwrap_or_default() {
        return planned;
    }
    let (schedule, zone) = match timing(spec) {
        Ok(timing) => timing,
        Err(notice) => {
            planned.notices.push(notice);
            return planned;
        }
    };
    planned.look_again = schedule.next_after(now, &zone).map(|next| next.duration_since(now) + MARGIN);
    let created = cron.metadata.creation_timestamp.as_ref().map_or(now, |at| at.0);
    let last = planned.status.last_schedule_time.as_ref().map(|at| at.0);
    let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
    let since = last.unwrap_or(created);
    let since =
        deadline.and_then(|deadline| now.checked_sub(deadline).ok()).map_or(since, |at| since.max(at));
    let Some((at, missed)) = most_recent(&schedule, &zone, since, now) else { return planned };
    if missed > MANY_MISSED {
        let message = format!(
            "too many missed start times: {missed}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
        );
        planned.notices.push(warning("TooManyMissedTimes", message));
    }
    start(cron, at, &zone, &mut planned);
    planned
}

/// Makes a run that is due, as the concurrency policy allows.
fn start(cron: &CronJob, at: Timestamp, zone: &TimeZone, planned: &mut Planned) {
    let job = new_job(cron, at, zone);
    let active = planned.status.active.clone().unwrap_or_default();
    let again = planned.status.last_schedule_time.as_ref().is_some_and(|last| last.0 == at)
        || active.iter().any(|reference| reference.name == job.metadata.name);
    if again {
        return;
    }
    match cron.spec.concurrency_policy.as_deref() {
        Some("Forbid") if !active.is_empty() => {
            let message =
                "Not starting job because prior execution is running and concurrency policy is Forbid";
            planned.notices.push(normal("JobAlreadyActive", message.to_owned()));
            return;
        }
        Some("Replace") => {
            planned.delete.extend(active.iter().filter_map(|reference| reference.name.clone()));
            planned.status.active = None;
        }
        _ => {}
    }
    planned.create = Some((Box::new(job), at));
}

/// Notes in the status that a Job was made for a time.
pub(super) fn note_created(status: &mut CronJobStatus, job: &Job, at: Timestamp) {
    let active = status.active.get_or_insert_default();
    if !active.iter().any(|known| known.uid == job.uid()) {
        active.push(reference(job));
    }
    status.last_schedule_time = Some(Time(at));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn cron(spec: Value, status: Value) -> CronJob {
        let mut all = json!({"schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {}}}});
        json_patch::merge(&mut all, &spec);
        from_value(json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u",
            "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": all, "status": status}))
        .unwrap()
    }

    fn job(name: &str, kind: &str) -> Arc<Job> {
        let conditions = match kind {
            "" => json!([]),
            kind => json!([{"type": kind, "status": "True"}]),
        };
        Arc::new(
            from_value(json!({"metadata": {"name": name, "uid": name}, "spec": {"template": {}},
                "status": {"conditions": conditions, "startTime": "2026-01-01T00:00:00Z",
                    "completionTime": "2026-01-01T00:01:00Z"}}))
            .unwrap(),
        )
    }

    fn run(spec: Value, status: Value, jobs: &[Arc<Job>], now: &str) -> Planned {
        let cron = cron(spec, status);
        plan(&cron, jobs, &BTreeSet::new(), now.parse().unwrap())
    }

    fn check(spec: Value, status: Value, now: &str, expect: Option<&str>) -> Planned {
        let planned = run(spec.clone(), status, &[], now);
        let made = planned.create.as_ref().map(|(_, at)| at.to_string());
        assert_eq!(made.as_deref(), expect, "{spec} at {now}");
        planned
    }

    #[test]
    fn runs_are_made_when_they_are_due() {
        let never = || Value::Null;
        check(json!({}), never(), "2026-01-01T00:04:59Z", None);
        check(json!({}), never(), "2026-01-01T00:05:00Z", Some("2026-01-01T00:05:00Z"));
        check(json!({}), never(), "2026-01-01T00:27:00Z", Some("2026-01-01T00:25:00Z"));
        let last = json!({"lastScheduleTime": "2026-01-01T00:25:00Z"});
        let planned = check(json!({}), last, "2026-01-01T00:27:00Z", None);
        assert_eq!(planned.look_again.unwrap().as_secs(), 180);
        check(json!({"suspend": true}), never(), "2026-01-01T00:27:00Z", None);
        check(json!({"startingDeadlineSeconds": 60}), never(), "2026-01-01T00:27:00Z", None);
        check(
            json!({"startingDeadlineSeconds": 180}),
            never(),
            "2026-01-01T00:27:00Z",
            Some("2026-01-01T00:25:00Z"),
        );
        let zurich = json!({"schedule": "0 8 * * *", "timeZone": "Europe/Zurich"});
        let planned = check(zurich, never(), "2026-01-01T07:00:01Z", Some("2026-01-01T07:00:00Z"));
        let (job, _) = planned.create.unwrap();
        assert_eq!(job.annotations()[SCHEDULED_AT], "2026-01-01T08:00:00+01:00");
        assert_eq!(job.name_any(), "c-29454180");
    }

    #[test]
    fn many_missed_runs_are_told_and_the_last_one_made() {
        let planned = check(
            json!({"schedule": "* * * * *"}),
            Value::Null,
            "2026-01-03T00:00:30Z",
            Some("2026-01-03T00:00:00Z"),
        );
        assert!(planned.notices.iter().any(|notice| notice.reason == "TooManyMissedTimes"));
        for (spec, reason) in [
            (json!({"schedule": "x"}), "UnparseableSchedule"),
            (json!({"timeZone": "Atlantis/Capital"}), "UnknownTimeZone"),
        ] {
            let planned = check(spec, Value::Null, "2026-01-03T00:00:30Z", None);
            assert_eq!(planned.notices[0].reason, reason);
        }
    }

    #[test]
    fn runs_that_overlap_follow_the_policy() {
        let status = json!({"active": [{"name": "old", "uid": "old"}]});
        let check = |policy: &str, creates: bool, deletes: &[&str]| {
            let spec = json!({"concurrencyPolicy": policy});
            let planned = run(spec, status.clone(), &[job("old", "")], "2026-01-01T00:05:00Z");
            assert_eq!(planned.create.is_some(), creates, "{policy}");
            assert_eq!(planned.delete, deletes, "{policy}");
        };
        check("Allow", true, &[]);
        check("Forbid", false, &[]);
        check("Replace", true, &["old"]);
    }

    #[test]
    fn finished_jobs_leave_the_list_and_old_ones_go() {
        let status = json!({"active": [{"name": "a", "uid": "a"}, {"name": "z", "uid": "z"}]});
        let jobs = [job("a", "Complete"), job("b", "Failed"), job("c", "Failed")];
        let planned = run(json!({"successfulJobsHistoryLimit": 0}), status, &jobs, "2026-01-01T00:01:00Z");
        let active = planned.status.active.unwrap();
        assert_eq!(active.len(), 1, "what is not known to be gone stays");
        assert_eq!(planned.status.last_successful_time.unwrap().0.to_string(), "2026-01-01T00:01:00Z");
        assert_eq!(planned.delete, ["b", "a"]);
        assert_eq!(planned.notices[0].message, "Saw completed job: a, condition: Complete");
    }
}
