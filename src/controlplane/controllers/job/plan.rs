//! What to do for one Job: a pure function of what is observed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::super::rank::first_to_go;
use super::index_set::IndexSet;
use super::pods::{
    ended_at, index_failures, index_of, is_indexed, is_leaving, is_terminating, is_tracked, new_pod, phase,
    restarts,
};
use super::policy::{Verdict, judge, success_rule};
use client::typed::{is_active, is_ready, is_terminal};
use rt::Backoff;

/// Between failed Pods of a Job and their replacements, as upstream defines.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(10), max: Duration::from_mins(10) };
/// At most this many Pods are created or deleted at once.
const BURST: usize = 500;
const BACKOFF_LIMIT: i32 = 6;

/// Something to tell about the Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Notice {
    pub warning: bool,
    pub reason: String,
    pub message: String,
}

/// What is to be done: Pods are made and removed, then the status is written, then counted Pods are let go.
#[derive(Debug)]
pub(super) struct Planned {
    pub status: JobStatus,
    pub create: Vec<Pod>,
    pub delete: Vec<Arc<Pod>>,
    pub untrack: Vec<Arc<Pod>>,
    pub notices: Vec<Notice>,
    pub look_again: Option<SignedDuration>,
}

/// Returns a Job's condition of a type, when it is true.
pub(in super::super) fn condition<'a>(status: &'a JobStatus, kind: &str) -> Option<&'a JobCondition> {
    status.conditions.iter().flatten().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// Whether the Job has come to its end.
pub(in super::super) fn is_finished(job: &Job) -> bool {
    let status = job.status.as_ref();
    status.is_some_and(|s| condition(s, "Complete").is_some() || condition(s, "Failed").is_some())
}

/// Whether a deleted Pod is replaced only once it has ended.
fn replaces_ended_only(spec: &JobSpec) -> bool {
    spec.pod_replacement_policy.as_deref() == Some("Failed")
        || spec.pod_replacement_policy.is_none() && spec.pod_failure_policy.is_some()
}

/// The counts of a Job while they are worked out.
struct Count<'a> {
    job: &'a Job,
    spec: &'a JobSpec,
    pods: &'a [Arc<Pod>],
    now: Timestamp,
    indexed: bool,
    succeeded: i32,
    failed: i32,
    completed: IndexSet,
    failed_indexes: IndexSet,
    uncounted_succeeded: Vec<String>,
    uncounted_failed: Vec<String>,
    untrack: Vec<Arc<Pod>>,
    fail_job: Option<String>,
}

impl<'a> Count<'a> {
    fn new(job: &'a Job, spec: &'a JobSpec, pods: &'a [Arc<Pod>], now: Timestamp) -> Self {
        let status = job.status.clone().unwrap_or_default();
        let completions = spec.completions.unwrap_or_default();
        let indexes = |text: Option<String>| IndexSet::parse(&text.unwrap_or_default(), completions);
        let uncounted = status.uncounted_terminated_pods.unwrap_or_default();
        Self {
            job,
            spec,
            pods,
            now,
            indexed: is_indexed(job),
            succeeded: status.succeeded.unwrap_or_default(),
            failed: status.failed.unwrap_or_default(),
            completed: indexes(status.completed_indexes),
            failed_indexes: indexes(status.failed_indexes),
            uncounted_succeeded: uncounted.succeeded.unwrap_or_default(),
            uncounted_failed: uncounted.failed.unwrap_or_default(),
            untrack: Vec::new(),
            fail_job: None,
        }
    }

    /// Takes those into the counts whose Pods were let go meanwhile.
    fn settle(&mut self) {
        let held: BTreeSet<&str> = self
            .pods
            .iter()
            .filter(|pod| is_tracked(pod))
            .filter_map(|pod| pod.metadata.uid.as_deref())
            .collect();
        let settle = |uids: &mut Vec<String>| {
            let before = uids.len();
            uids.retain(|uid| held.contains(uid.as_str()));
            i32::try_from(before - uids.len()).unwrap_or(i32::MAX)
        };
        self.succeeded += settle(&mut self.uncounted_succeeded);
        self.failed += settle(&mut self.uncounted_failed);
    }

    /// Notes the Pods that ended and are held: the status names them before they are let go.
    fn note_ended(&mut self) {
        let ended_only = replaces_ended_only(self.spec);
        for pod in self.pods.iter().filter(|pod| is_tracked(pod)) {
            let success = match phase(pod) {
                "Succeeded" => true,
                "Failed" => false,
                _ if is_leaving(pod) && !ended_only => false,
                _ => continue,
            };
            self.untrack.push(Arc::clone(pod));
            let uid = pod.uid().unwrap_or_default();
            let index = index_of(pod).filter(|index| *index < self.spec.completions.unwrap_or_default());
            match (success, self.indexed, index) {
                (true, true, Some(index)) => {
                    self.completed.insert(index);
                }
                (true, true, None) => {}
                (true, false, _) => {
                    if !self.uncounted_succeeded.contains(&uid) {
                        self.uncounted_succeeded.push(uid);
                    }
                }
                (false, _, index) => self.note_failed(pod, uid, index),
            }
        }
    }

    fn note_failed(&mut self, pod: &Pod, uid: String, index: Option<i32>) {
        let verdict = judge(self.job, pod);
        if verdict == Verdict::Ignore {
            return;
        }
        let limit = self.spec.backoff_limit_per_index;
        let worn_out =
            verdict == Verdict::FailIndex || limit.is_some_and(|limit| index_failures(pod) >= limit);
        if let (Some(index), true, Some(_)) = (index, worn_out, limit)
            && !self.completed.contains(index)
        {
            self.failed_indexes.insert(index);
        }
        if let Verdict::FailJob(why) = verdict {
            self.fail_job.get_or_insert(why);
        }
        if !self.uncounted_failed.contains(&uid) {
            self.uncounted_failed.push(uid);
        }
    }

    fn all_succeeded(&self) -> i32 {
        match self.indexed {
            true => self.completed.len(),
            false => self.succeeded + count(self.uncounted_succeeded.len()),
        }
    }

    fn all_failed(&self) -> i32 {
        self.failed + count(self.uncounted_failed.len())
    }

    fn active(&self) -> Vec<Arc<Pod>> {
        self.pods.iter().filter(|pod| is_active(pod)).cloned().collect()
    }

    /// Whether the Job must fail, with reason and message.
    fn failure(&self, status: &JobStatus) -> Option<(&'static str, String)> {
        if let Some(why) = &self.fail_job {
            return Some(("PodFailurePolicy", why.clone()));
        }
        let per_index = self.spec.backoff_limit_per_index.is_some();
        let limit = self.spec.backoff_limit.unwrap_or(if per_index { i32::MAX } else { BACKOFF_LIMIT });
        let policy = self.spec.template.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
        let restarted = || {
            let restarts: i32 = self.active().iter().map(|pod| restarts(pod)).sum();
            if limit == 0 { restarts > 0 } else { restarts >= limit }
        };
        if self.all_failed() > limit || policy == Some("OnFailure") && restarted() {
            return Some(("BackoffLimitExceeded", "Job has reached the specified backoff limit".to_owned()));
        }
        if self.deadline_left(status).is_some_and(|left| !left.is_positive()) {
            return Some(("DeadlineExceeded", "Job was active longer than specified deadline".to_owned()));
        }
        if !per_index {
            return None;
        }
        if self.spec.max_failed_indexes.is_some_and(|max| self.failed_indexes.len() > max) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(("MaxFailedIndexesExceeded", message.to_owned()));
        }
        let ended = self.completed.len() + self.failed_indexes.len();
        let all = ended >= self.spec.completions.unwrap_or(i32::MAX);
        (all && self.failed_indexes.len() > 0).then(|| ("FailedIndexes", "Job has failed indexes".to_owned()))
    }

    /// Whether the Job has done what it was to do, with reason and message.
    fn success(&self) -> Option<(&'static str, String)> {
        if self.indexed
            && let Some(at) = success_rule(self.job, &self.completed)
        {
            return Some(("SuccessPolicy", format!("Matched rules at index {at}")));
        }
        let succeeded = self.all_succeeded();
        let done = match self.spec.completions {
            Some(completions) => succeeded >= completions,
            None => succeeded > 0 && self.active().is_empty(),
        };
        done.then(|| ("CompletionsReached", "Reached expected number of succeeded pods".to_owned()))
    }

    fn deadline_left(&self, status: &JobStatus) -> Option<SignedDuration> {
        let deadline = self.spec.active_deadline_seconds?;
        let start = status.start_time.as_ref()?.0;
        Some(start.duration_since(self.now) + SignedDuration::from_secs(deadline))
    }

    /// How long a replacement has to wait: longer with every failure since the last success.
    fn backoff(&self, of: &dyn Fn(&Pod) -> bool) -> SignedDuration {
        let relevant = || self.pods.iter().filter(|pod| of(pod));
        let last_success = relevant().filter(|pod| phase(pod) == "Succeeded").map(|pod| ended_at(pod)).max();
        let failed = relevant().filter(|pod| phase(pod) == "Failed").map(|pod| ended_at(pod));
        let failed: Vec<Timestamp> =
            failed.filter(|at| last_success.is_none_or(|success| *at > success)).collect();
        let Some(last) = failed.iter().max() else { return SignedDuration::ZERO };
        let delay = BACKOFF.delay(u32::try_from(failed.len()).unwrap_or(u32::MAX));
        (last.duration_since(self.now) + SignedDuration::try_from(delay).unwrap_or_default())
            .max(SignedDuration::ZERO)
    }

    /// How many Pods should be active.
    fn wanted(&self, active: i32) -> i32 {
        let parallelism = self.spec.parallelism.unwrap_or(1);
        match self.spec.completions {
            Some(completions) => {
                parallelism.min(completions - self.all_succeeded() - self.failed_indexes.len()).max(0)
            }
            None if self.all_succeeded() > 0 => active.min(parallelism),
            None => parallelism,
        }
    }

    /// The Pods to make, and how long to wait for those that may not be made yet.
    fn creations(&self, missing: i32) -> (Vec<Pod>, Option<SignedDuration>) {
        let missing = usize::try_from(missing).unwrap_or_default().min(BURST);
        if !self.indexed {
            let wait = self.backoff(&|_| true);
            return match wait.is_positive() {
                true => (Vec::new(), Some(wait)),
                false => (vec![new_pod(self.job, None, None); missing], None),
            };
        }
        let per_index = self.spec.backoff_limit_per_index.is_some();
        let common = if per_index { SignedDuration::ZERO } else { self.backoff(&|_| true) };
        if common.is_positive() {
            return (Vec::new(), Some(common));
        }
        let ended_only = replaces_ended_only(self.spec);
        let held = |pod: &&Arc<Pod>| is_active(pod) || ended_only && is_terminating(pod);
        let taken: BTreeSet<i32> = self.pods.iter().filter(held).filter_map(|pod| index_of(pod)).collect();
        let open = (0..self.spec.completions.unwrap_or_default()).filter(|index| {
            !taken.contains(index)
                && !self.completed.contains(*index)
                && !self.failed_indexes.contains(*index)
        });
        let (mut pods, mut soonest) = (Vec::new(), None::<SignedDuration>);
        for index in open {
            if pods.len() >= missing {
                break;
            }
            let wait = if per_index { self.backoff(&|pod| index_of(pod) == Some(index)) } else { common };
            if wait.is_positive() {
                soonest = Some(soonest.map_or(wait, |other| other.min(wait)));
                continue;
            }
            let failures = per_index.then(|| self.failures_of(index));
            pods.push(new_pod(self.job, Some(index), failures));
        }
        (pods, soonest)
    }

    /// How often an index has failed, without failures that the policy ignores.
    fn failures_of(&self, index: i32) -> i32 {
        let of_index = self.pods.iter().filter(|pod| index_of(pod) == Some(index) && !is_active(pod));
        let failures = of_index
            .filter(|pod| phase(pod) != "Succeeded")
            .map(|pod| index_failures(pod) + i32::from(judge(self.job, pod) != Verdict::Ignore));
        failures.max().unwrap_or(0)
    }

    /// Active Pods that are too many: for indexes that are done or taken twice first, then the least useful.
    fn removals(&self, active: &[Arc<Pod>], surplus: i32) -> Vec<Arc<Pod>> {
        let mut gone: Vec<Arc<Pod>> = Vec::new();
        let mut rest: Vec<Arc<Pod>> = Vec::new();
        let mut taken = BTreeMap::new();
        for pod in active {
            let needed = !self.indexed
                || index_of(pod).is_some_and(|index| {
                    index < self.spec.completions.unwrap_or_default()
                        && !self.completed.contains(index)
                        && !self.failed_indexes.contains(index)
                        && taken.insert(index, ()).is_none()
                });
            if needed { rest.push(Arc::clone(pod)) } else { gone.push(Arc::clone(pod)) }
        }
        let surplus = usize::try_from(surplus).unwrap_or_default().saturating_sub(gone.len());
        if self.indexed {
            rest.sort_by_key(|pod| std::cmp::Reverse(index_of(pod)));
            gone.extend(rest.into_iter().take(surplus));
        } else {
            gone.extend(first_to_go(&rest, &rest, surplus));
        }
        gone.truncate(BURST);
        gone
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn some(number: i32) -> Option<i32> {
    Some(number).filter(|number| *number != 0)
}

fn set_condition(
    status: &mut JobStatus,
    kind: &str,
    truth: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let all = status.conditions.get_or_insert_default();
    if all.iter().any(|known| known.type_ == kind && known.status == truth) {
        return false;
    }
    all.retain(|known| known.type_ != kind);
    all.push(JobCondition {
        type_: kind.to_owned(),
        status: truth.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    });
    true
}

/// Decides about a Job that has not finished. With `trusted` false the cache may lack what was done last, and no Pod
/// is made or removed.
pub(super) fn plan(job: &Job, spec: &JobSpec, pods: &[Arc<Pod>], trusted: bool, now: Timestamp) -> Planned {
    let mut status = job.status.clone().unwrap_or_default();
    let mut notices = Vec::new();
    let mut counts = Count::new(job, spec, pods, now);
    counts.settle();
    counts.note_ended();
    let ending =
        condition(&status, "FailureTarget").or_else(|| condition(&status, "SuccessCriteriaMet")).is_some();
    if !ending {
        suspend(&mut status, spec, &mut notices, now);
        if let Some((reason, message)) = counts.failure(&status) {
            set_condition(&mut status, "FailureTarget", "True", reason, &message, now);
        } else if let Some((reason, message)) = counts.success() {
            set_condition(&mut status, "SuccessCriteriaMet", "True", reason, &message, now);
        }
    }
    let ending =
        condition(&status, "FailureTarget").or_else(|| condition(&status, "SuccessCriteriaMet")).is_some();
    let suspended = spec.suspend.unwrap_or_default();
    let active = counts.active();
    let (mut create, mut delete, mut look_again) = (Vec::new(), Vec::new(), None);
    if trusted && job.metadata.deletion_timestamp.is_none() {
        if ending || suspended {
            delete = active.clone();
        } else {
            let wanted = counts.wanted(count(active.len()));
            delete = counts.removals(&active, count(active.len()) - wanted);
            let staying = count(active.len() - delete.len());
            let waited_for = match replaces_ended_only(spec) {
                true => count(pods.iter().filter(|pod| is_terminating(pod)).count()),
                false => 0,
            };
            if delete.is_empty() {
                (create, look_again) = counts.creations(wanted - staying - waited_for);
            }
        }
    }
    if !ending && !suspended {
        let deadline = counts.deadline_left(&status).filter(|left| left.is_positive());
        look_again = [look_again, deadline].into_iter().flatten().min();
    }
    let staying = count(active.len() - delete.len() + create.len());
    write_counts(&mut status, &counts, staying, &delete);
    finish(&mut status, &counts, staying, &mut notices);
    Planned { status, create, delete, untrack: counts.untrack, notices, look_again }
}

/// Says when the Job was stopped and when it went on; its time counts from when it (last) began.
fn suspend(status: &mut JobStatus, spec: &JobSpec, notices: &mut Vec<Notice>, now: Timestamp) {
    let notice = |reason: &str, message: &str| Notice {
        warning: false,
        reason: reason.to_owned(),
        message: message.to_owned(),
    };
    if spec.suspend.unwrap_or_default() {
        if set_condition(status, "Suspended", "True", "JobSuspended", "Job suspended", now) {
            notices.push(notice("Suspended", "Job suspended"));
        }
        return;
    }
    if condition(status, "Suspended").is_some() {
        set_condition(status, "Suspended", "False", "JobResumed", "Job resumed", now);
        notices.push(notice("Resumed", "Job resumed"));
        status.start_time = Some(Time(now));
    }
    status.start_time.get_or_insert(Time(now));
}

fn write_counts(status: &mut JobStatus, counts: &Count<'_>, active: i32, delete: &[Arc<Pod>]) {
    let stays = |pod: &&Arc<Pod>| is_active(pod) && !delete.iter().any(|going| going.uid() == pod.uid());
    let ready = counts.pods.iter().filter(stays).filter(|pod| is_ready(pod)).count();
    let terminating = counts.pods.iter().filter(|pod| is_terminating(pod)).count() + delete.len();
    status.active = some(active);
    status.ready = Some(count(ready));
    status.terminating = Some(count(terminating));
    status.failed = some(counts.failed);
    let list = |uids: &[String]| Some(uids.to_vec()).filter(|uids| !uids.is_empty());
    status.uncounted_terminated_pods = Some(UncountedTerminatedPods {
        succeeded: list(&counts.uncounted_succeeded),
        failed: list(&counts.uncounted_failed),
    });
    if counts.indexed {
        status.succeeded = some(counts.completed.len());
        status.completed_indexes = Some(counts.completed.to_string()).filter(|text| !text.is_empty());
        if counts.spec.backoff_limit_per_index.is_some() {
            status.failed_indexes = Some(counts.failed_indexes.to_string());
        }
    } else {
        status.succeeded = some(counts.succeeded);
    }
}

/// The last condition comes when every Pod has ended and is counted.
fn finish(status: &mut JobStatus, counts: &Count<'_>, active: i32, notices: &mut Vec<Notice>) {
    let pending = !counts.uncounted_succeeded.is_empty()
        || !counts.uncounted_failed.is_empty()
        || active > 0
        || counts.pods.iter().any(|pod| !is_terminal(pod));
    if pending {
        return;
    }
    let text = |condition: &JobCondition| {
        (condition.reason.clone().unwrap_or_default(), condition.message.clone().unwrap_or_default())
    };
    if let Some((reason, message)) = condition(status, "FailureTarget").map(text) {
        set_condition(status, "Failed", "True", &reason, &message, counts.now);
        notices.push(Notice { warning: true, reason, message });
    } else if let Some((reason, message)) = condition(status, "SuccessCriteriaMet").map(text) {
        set_condition(status, "Complete", "True", &reason, &message, counts.now);
        status.completion_time = Some(Time(counts.now));
        notices.push(Notice {
            warning: false,
            reason: "Completed".to_owned(),
            message: "Job completed".to_owned(),
        });
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
