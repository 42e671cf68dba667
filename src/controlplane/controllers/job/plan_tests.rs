//! Tests of the Jobs' plan.

use serde_json::{Value, from_value, json};

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn job(spec: Value, status: Value) -> Job {
    let mut all = json!({"template": {"metadata": {"labels": {"job": "j"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}},
        "selector": {"matchLabels": {"job": "j"}}});
    json_patch::merge(&mut all, &spec);
    from_value(json!({"metadata": {"name": "j", "namespace": "ns", "uid": "u", "generation": 1},
        "spec": all, "status": status}))
    .unwrap()
}

/// `name phase [index] [flags…]`: `held` has the finalizer, `leaving` is deleted, `ready` is Ready, `code=N`, `fails=N`.
fn pod(text: &str) -> Arc<Pod> {
    let mut words = text.split(' ');
    let (name, phase) = (words.next().unwrap(), words.next().unwrap());
    let mut value = json!({"metadata": {"name": name, "namespace": "ns", "uid": name, "annotations": {}},
        "spec": {"containers": [], "nodeName": "n"}, "status": {"phase": phase, "conditions": []}});
    let finished = json!("2026-01-01T00:00:00Z");
    for word in words {
        match word.split_once('=') {
            Some(("code", code)) => {
                let code: i32 = code.parse().unwrap();
                value["status"]["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "", "ready": false,
                    "restartCount": 0, "state": {"terminated": {"exitCode": code, "finishedAt": finished}}}]);
            }
            Some(("restarts", count)) => {
                let count: i32 = count.parse().unwrap();
                value["status"]["containerStatuses"] = json!([{"name": "c", "image": "", "imageID": "", "ready": false,
                    "restartCount": count}]);
            }
            Some(("fails", count)) => {
                value["metadata"]["annotations"]["batch.kubernetes.io/job-index-failure-count"] =
                    json!(count);
            }
            _ => match word {
                "held" => value["metadata"]["finalizers"] = json!(["batch.kubernetes.io/job-tracking"]),
                "leaving" => value["metadata"]["deletionTimestamp"] = finished.clone(),
                "ready" => value["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]),
                index => {
                    value["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] =
                        json!(index);
                }
            },
        }
    }
    Arc::new(from_value(value).unwrap())
}

fn run(spec: Value, status: Value, pods: &[&str]) -> Planned {
    let job = job(spec, status);
    let pods: Vec<_> = pods.iter().map(|text| pod(text)).collect();
    plan(&job, job.spec.as_ref().unwrap(), &pods, true, at("2026-01-01T01:00:00Z"))
}

/// What stands in the plan, in a line: created, deleted, let go, the counts, the conditions.
fn told(planned: &Planned) -> String {
    let names = |pods: &[Arc<Pod>]| pods.iter().map(|pod| pod.name_any()).collect::<Vec<_>>().join(",");
    let index =
        |pod: &Pod| super::super::pods::index_of(pod).map_or("x".to_owned(), |index| index.to_string());
    let created: Vec<String> = planned.create.iter().map(index).collect();
    let status = &planned.status;
    let conditions = status.conditions.iter().flatten().filter(|condition| condition.status == "True");
    let conditions: Vec<String> = conditions
        .map(|condition| format!("{}:{}", condition.type_, condition.reason.as_deref().unwrap_or_default()))
        .collect();
    let number = |count: Option<i32>| count.unwrap_or(0);
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    format!(
        "+{} -{} ~{} a{} s{}+{} f{}+{} {}",
        created.join(","),
        names(&planned.delete),
        names(&planned.untrack),
        number(status.active),
        number(status.succeeded),
        uncounted.succeeded.map_or(0, |uids| uids.len()),
        number(status.failed),
        uncounted.failed.map_or(0, |uids| uids.len()),
        conditions.join(",")
    )
}

fn check(spec: Value, status: Value, pods: &[&str], expect: &str) {
    assert_eq!(told(&run(spec.clone(), status.clone(), pods)).trim(), expect, "{spec} {status} {pods:?}");
}

#[test]
fn as_many_run_as_are_wanted() {
    let three = || json!({"completions": 3, "parallelism": 2});
    check(three(), Value::Null, &[], "+x,x - ~ a2 s0+0 f0+0");
    check(three(), Value::Null, &["a Running held"], "+x - ~ a2 s0+0 f0+0");
    check(three(), json!({"succeeded": 2}), &["a Running held"], "+ - ~ a1 s2+0 f0+0");
    check(three(), json!({"succeeded": 2}), &["a Running held", "b Pending held"], "+ -b ~ a1 s2+0 f0+0");
    check(json!({"parallelism": 2}), json!({"succeeded": 1}), &["a Running held"], "+ - ~ a1 s1+0 f0+0");
    check(
        json!({"completions": 1, "suspend": true}),
        Value::Null,
        &["a Running held"],
        "+ -a ~ a0 s0+0 f0+0 Suspended:JobSuspended",
    );
}

#[test]
fn ended_pods_are_counted_once() {
    let one = || json!({"completions": 1});
    let reached = "SuccessCriteriaMet:CompletionsReached";
    check(one(), Value::Null, &["a Succeeded held"], &format!("+ - ~a a0 s0+1 f0+0 {reached}"));
    let noted = json!({"uncountedTerminatedPods": {"succeeded": ["a"]}});
    check(one(), noted.clone(), &["a Succeeded held"], &format!("+ - ~a a0 s0+1 f0+0 {reached}"));
    check(
        one(),
        noted,
        &["a Succeeded"],
        &format!("+ - ~ a0 s1+0 f0+0 {reached},Complete:CompletionsReached"),
    );
    // A deleted Pod is a failure at once, unless only ended ones are replaced.
    check(one(), Value::Null, &["a Running held leaving"], "+x - ~a a1 s0+0 f0+1");
    let patient = json!({"completions": 1, "podReplacementPolicy": "Failed"});
    check(patient, Value::Null, &["a Running held leaving"], "+ - ~ a0 s0+0 f0+0");
}

#[test]
fn jobs_fail_for_reasons() {
    let limited = |limit: i32| json!({"completions": 1, "backoffLimit": limit});
    let failed = ["a Failed held code=1"];
    check(limited(0), Value::Null, &failed, "+ - ~a a0 s0+0 f0+1 FailureTarget:BackoffLimitExceeded");
    check(limited(1), Value::Null, &failed, "+x - ~a a1 s0+0 f0+1");
    let noted = json!({"uncountedTerminatedPods": {"failed": ["a"]},
        "conditions": [{"type": "FailureTarget", "status": "True", "reason": "BackoffLimitExceeded", "message": "m"}]});
    let ended = "FailureTarget:BackoffLimitExceeded,Failed:BackoffLimitExceeded";
    check(limited(0), noted, &["a Failed code=1"], &format!("+ - ~ a0 s0+0 f1+0 {ended}"));
    let restarting = json!({"backoffLimit": 2, "template": {"spec": {"restartPolicy": "OnFailure"}}});
    check(
        restarting,
        Value::Null,
        &["a Running held restarts=2"],
        "+ -a ~ a0 s0+0 f0+0 FailureTarget:BackoffLimitExceeded",
    );
    let late = json!({"startTime": "2026-01-01T00:00:00Z"});
    check(
        json!({"activeDeadlineSeconds": 60}),
        late,
        &["a Running held"],
        "+ -a ~ a0 s0+0 f0+0 FailureTarget:DeadlineExceeded",
    );
    let policy = json!({"completions": 1, "podFailurePolicy": {"rules": [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}});
    check(
        policy,
        Value::Null,
        &["a Failed held code=42"],
        "+ - ~a a0 s0+0 f0+1 FailureTarget:PodFailurePolicy",
    );
}

#[test]
fn replacements_of_failures_wait() {
    let job = job(json!({"completions": 1}), Value::Null);
    let pods = [pod("a Failed code=1"), pod("b Failed code=1")];
    let planned = plan(&job, job.spec.as_ref().unwrap(), &pods, true, at("2026-01-01T00:00:05Z"));
    assert!(planned.create.is_empty());
    assert_eq!(planned.look_again, Some(SignedDuration::from_secs(15)));
}

#[test]
fn every_index_is_done_once() {
    let three = || json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"});
    check(three(), Value::Null, &[], "+0,1,2 - ~ a3 s0+0 f0+0");
    check(three(), Value::Null, &["a Succeeded 1 held", "b Running 0 held"], "+2 - ~a a2 s1+0 f0+0");
    let planned = run(three(), json!({"completedIndexes": "0,1"}), &["a Succeeded 2 held"]);
    assert_eq!(planned.status.completed_indexes.as_deref(), Some("0-2"));
    let twice = ["a Running 0 held", "b Running 0 held", "c Running 1 held", "d Running 2 held"];
    check(three(), Value::Null, &twice, "+ -b ~ a3 s0+0 f0+0");
    let limited = || json!({"completions": 2, "parallelism": 2, "completionMode": "Indexed", "backoffLimitPerIndex": 1});
    check(limited(), Value::Null, &["a Failed 0 held code=1", "b Running 1 held"], "+0 - ~a a2 s0+0 f0+1");
    let planned = run(limited(), Value::Null, &["a Failed 0 held code=1"]);
    let again = planned.create.iter().find(|pod| index_of(pod) == Some(0)).unwrap();
    assert_eq!(index_failures(again), 1);
    let worn = run(limited(), json!({"completedIndexes": "1"}), &["a Failed 0 held code=1 fails=1"]);
    assert_eq!(worn.status.failed_indexes.as_deref(), Some("0"));
    assert!(told(&worn).contains("FailureTarget:FailedIndexes"));
    let enough = json!({"completions": 3, "completionMode": "Indexed", "parallelism": 3,
        "successPolicy": {"rules": [{"succeededCount": 1}]}});
    check(
        enough,
        Value::Null,
        &["a Succeeded 1 held", "b Running 0 held"],
        "+ -b ~a a0 s1+0 f0+0 SuccessCriteriaMet:SuccessPolicy",
    );
}

#[test]
fn time_starts_again_when_a_job_goes_on() {
    let stopped = json!({"startTime": "2026-01-01T00:00:00Z",
        "conditions": [{"type": "Suspended", "status": "True", "reason": "JobSuspended"}]});
    let planned = run(json!({"completions": 1}), stopped, &[]);
    assert_eq!(planned.status.start_time, Some(Time(at("2026-01-01T01:00:00Z"))));
    assert_eq!(planned.notices[0].reason, "Resumed");
    assert_eq!(planned.create.len(), 1);
}
