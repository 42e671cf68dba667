//! Questions about typed Pods.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodCondition};

/// A Pod's condition of a type.
pub fn pod_condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// The condition `Ready`, when it is true.
pub fn ready_condition(pod: &Pod) -> Option<&PodCondition> {
    pod_condition(pod, "Ready").filter(|condition| condition.status == "True")
}

/// Whether the Pod says that it is Ready.
pub fn is_ready(pod: &Pod) -> bool {
    ready_condition(pod).is_some()
}

/// How long until the Pod has been Ready for `min_ready_seconds`: zero when it is available, `None`
/// when it is not Ready.
pub fn available_in(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> Option<SignedDuration> {
    let ready = ready_condition(pod)?;
    if min_ready_seconds <= 0 {
        return Some(SignedDuration::ZERO);
    }
    let since = ready.last_transition_time.as_ref()?.0;
    let left = since.duration_since(now) + SignedDuration::from_secs(min_ready_seconds.into());
    Some(left.max(SignedDuration::ZERO))
}

/// Whether the Pod has been Ready for at least `min_ready_seconds`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_in(pod, min_ready_seconds, now).is_some_and(|left| left.is_zero())
}

/// Whether the Pod has ended for good (`Succeeded` or `Failed`).
pub fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the Pod counts as a replica: neither ended nor being deleted.
pub fn is_active(pod: &Pod) -> bool {
    !is_terminal(pod) && pod.metadata.deletion_timestamp.is_none()
}
