//! What a Job's policies say about its Pods: which failures count, and when enough has succeeded.

use k8s_openapi::api::batch::v1::{
    Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, SuccessPolicyRule,
};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt;

use super::index_set::IndexSet;
use client::typed::pod_condition;

/// What a failed Pod means for its Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Count,
    Ignore,
    FailIndex,
    /// The whole Job fails, for this reason.
    FailJob(String),
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let main = status.and_then(|status| status.container_statuses.as_ref());
    let init = status.and_then(|status| status.init_container_statuses.as_ref());
    main.into_iter().chain(init).flatten()
}

/// The container that ended as the requirement says, with its code.
fn by_exit_code<'a>(
    pod: &'a Pod,
    requirement: &PodFailurePolicyOnExitCodesRequirement,
) -> Option<(&'a str, i32)> {
    statuses(pod).find_map(|status| {
        let code = status.state.as_ref()?.terminated.as_ref()?.exit_code;
        let named = requirement.container_name.as_ref().is_none_or(|name| *name == status.name);
        let listed = requirement.values.contains(&code);
        let holds = if requirement.operator == "NotIn" { !listed } else { listed };
        (code != 0 && named && holds).then_some((status.name.as_str(), code))
    })
}

fn by_condition<'a>(pod: &Pod, patterns: &'a [PodFailurePolicyOnPodConditionsPattern]) -> Option<&'a str> {
    let holds = |pattern: &&PodFailurePolicyOnPodConditionsPattern| {
        let wanted = pattern.status.as_deref().unwrap_or("True");
        pod_condition(pod, &pattern.type_).is_some_and(|condition| condition.status == wanted)
    };
    patterns.iter().find(holds).map(|pattern| pattern.type_.as_str())
}

/// Decides about a failed Pod by the first rule that matches. Only Pods that ended are judged by rules.
pub(super) fn judge(job: &Job, pod: &Pod) -> Verdict {
    let failed = pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Failed");
    let policy = job.spec.as_ref().and_then(|spec| spec.pod_failure_policy.as_ref()).filter(|_| failed);
    let name = || format!("{}/{}", pod.namespace().unwrap_or_default(), pod.name_any());
    for (at, rule) in policy.iter().flat_map(|policy| policy.rules.iter().enumerate()) {
        let action = &rule.action;
        let why = if let Some(requirement) = &rule.on_exit_codes {
            by_exit_code(pod, requirement).map(|(container, code)| {
                format!("Container {container} for pod {} failed with exit code {code} matching {action} rule at index {at}", name())
            })
        } else {
            by_condition(pod, rule.on_pod_conditions.as_deref().unwrap_or_default()).map(|kind| {
                format!("Pod {} has condition {kind} matching {action} rule at index {at}", name())
            })
        };
        match (why, action.as_str()) {
            (None, _) => {}
            (Some(why), "FailJob") => return Verdict::FailJob(why),
            (Some(_), "Ignore") => return Verdict::Ignore,
            (Some(_), "FailIndex") => return Verdict::FailIndex,
            (Some(_), _) => return Verdict::Count,
        }
    }
    Verdict::Count
}

/// Returns the place of the first success rule that what succeeded fulfils.
pub(super) fn success_rule(job: &Job, completed: &IndexSet) -> Option<usize> {
    let spec = job.spec.as_ref()?;
    let completions = spec.completions.unwrap_or_default();
    let holds = |rule: &SuccessPolicyRule| match (&rule.succeeded_indexes, rule.succeeded_count) {
        (Some(text), count) => {
            let wanted = IndexSet::parse(text, completions);
            wanted.common(completed) >= count.unwrap_or_else(|| wanted.len())
        }
        (None, Some(count)) => completed.len() >= count,
        (None, None) => false,
    };
    spec.success_policy.as_ref()?.rules.iter().position(holds)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn the_first_matching_rule_judges() {
        let job: Job = from_value(
            json!({"metadata": {"name": "j"}, "spec": {"template": {}, "podFailurePolicy": {"rules": [
            {"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [42]}},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [7]}},
            {"action": "Count", "onExitCodes": {"operator": "NotIn", "values": [9]}}]}}}),
        )
        .unwrap();
        let check = |status: Value, expect: Verdict| {
            let pod: Pod =
                from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "status": status})).unwrap();
            assert_eq!(judge(&job, &pod), expect, "{status}");
        };
        let ended = |phase: &str, code: i32| {
            json!({"phase": phase, "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
                "restartCount": 0, "state": {"terminated": {"exitCode": code}}}]})
        };
        let why = "Container c for pod ns/p failed with exit code 42 matching FailJob rule at index 0";
        check(ended("Failed", 42), Verdict::FailJob(why.to_owned()));
        check(ended("Running", 42), Verdict::Count);
        check(ended("Failed", 7), Verdict::FailIndex);
        check(ended("Failed", 1), Verdict::Count);
        let disrupted =
            json!({"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True"}]});
        check(disrupted, Verdict::Ignore);
    }

    #[test]
    fn success_rules_hold_by_indexes_and_counts() {
        let check = |rules: Value, completed: &str, expect: Option<usize>| {
            let job: Job = from_value(json!({"spec": {"template": {}, "completions": 10,
                "successPolicy": {"rules": rules}}}))
            .unwrap();
            assert_eq!(success_rule(&job, &IndexSet::parse(completed, 10)), expect, "{completed}");
        };
        let both = json!([{"succeededIndexes": "0-2", "succeededCount": 2}, {"succeededCount": 5}]);
        check(both.clone(), "0", None);
        check(both.clone(), "0,2", Some(0));
        check(both, "3-7", Some(1));
        check(json!([{"succeededIndexes": "1,2"}]), "1", None);
        check(json!([{"succeededIndexes": "1,2"}]), "0-4", Some(0));
    }
}
