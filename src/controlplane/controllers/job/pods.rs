//! A Job's Pods: how they are made, and what they say about themselves.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStatus, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::ResourceExt;

use super::super::pod_control::template_pod;
use client::typed::{is_terminal, pod_condition};

/// Keeps a Pod until its Job has counted it.
pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
pub(super) const JOB_NAME: &str = "batch.kubernetes.io/job-name";
const INDEX: &str = "batch.kubernetes.io/job-completion-index";
const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";

/// Whether the Job gives its Pods indexes.
pub(super) fn is_indexed(job: &Job) -> bool {
    job.spec.as_ref().and_then(|spec| spec.completion_mode.as_deref()) == Some("Indexed")
}

/// Returns a Pod's completion index, if it has a valid one.
pub(super) fn index_of(pod: &Pod) -> Option<i32> {
    let text = pod.annotations().get(INDEX).or_else(|| pod.labels().get(INDEX))?;
    text.parse().ok().filter(|index| *index >= 0)
}

/// How often the Pod's index had failed when it was made.
pub(super) fn index_failures(pod: &Pod) -> i32 {
    pod.annotations().get(INDEX_FAILURES).and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.finalizers().iter().any(|finalizer| finalizer == TRACKING)
}

pub(super) fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

pub(super) fn is_leaving(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Deleted, and not ended yet.
pub(super) fn is_terminating(pod: &Pod) -> bool {
    is_leaving(pod) && !is_terminal(pod)
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let main = status.and_then(|status| status.container_statuses.as_ref());
    let init = status.and_then(|status| status.init_container_statuses.as_ref());
    main.into_iter().chain(init).flatten()
}

/// How often the kubelet has restarted the Pod's containers.
pub(super) fn restarts(pod: &Pod) -> i32 {
    containers(pod).map(|status| status.restart_count).sum()
}

/// When the Pod ended, as well as can be told.
pub(super) fn ended_at(pod: &Pod) -> Timestamp {
    let terminated = |status: &ContainerStatus| {
        status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|at| at.0)
    };
    let ready =
        || pod_condition(pod, "Ready").and_then(|ready| ready.last_transition_time.as_ref()).map(|at| at.0);
    let created = || pod.metadata.creation_timestamp.as_ref().map(|at| at.0);
    let deleted = || pod.metadata.deletion_timestamp.as_ref().map(|at| at.0);
    let found = containers(pod).filter_map(terminated).max().or_else(deleted).or_else(ready).or_else(created);
    found.unwrap_or_default()
}

/// Makes a Pod. With an index it is told so by annotation, label, environment and host name; `failures` is how often
/// that index has failed, where that has a limit.
pub(super) fn new_pod(job: &Job, index: Option<i32>, failures: Option<i32>) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = template_pod(&template, job);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    let Some(index) = index else { return pod };
    let name = job.name_any();
    pod.metadata.generate_name = Some(format!("{name}-{index}-"));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(INDEX.to_owned(), index.to_string());
    if let Some(failures) = failures {
        annotations.insert(INDEX_FAILURES.to_owned(), failures.to_string());
    }
    pod.metadata.labels.get_or_insert_default().insert(INDEX.to_owned(), index.to_string());
    let spec = pod.spec.get_or_insert_default();
    if spec.hostname.is_none() {
        spec.hostname = Some(format!("{name}-{index}"));
    }
    let variable = EnvVar {
        name: INDEX_ENV.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: Some("v1".to_owned()),
                field_path: format!("metadata.labels['{INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    };
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        let env = container.env.get_or_insert_default();
        if !env.iter().any(|known| known.name == INDEX_ENV) {
            env.push(variable.clone());
        }
    }
    pod
}
