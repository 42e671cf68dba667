//! Which Pods go first when there are too many, by upstream's rules in their order.

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use client::typed::ready_condition;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

fn node(pod: &Pod) -> &str {
    pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default()
}

fn cost(pod: &Pod) -> i32 {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(DELETION_COST)).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_ref());
    containers.into_iter().flatten().map(|container| container.restart_count).max().unwrap_or(0)
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    ready_condition(pod)?.last_transition_time.as_ref().map(|time| time.0)
}

/// Of two ages the difference counts only when it is large: both in the same power of two of seconds
/// are equally old.
fn age(since: Option<Timestamp>, now: Timestamp) -> u32 {
    let seconds = since.map_or(0, |since| now.duration_since(since).as_secs().max(0));
    i64::BITS - seconds.leading_zeros()
}

/// The first `count` to delete of `active`; `related` are all Pods of the same workload.
pub(super) fn first_to_go(active: &[Arc<Pod>], related: &[Arc<Pod>], count: usize) -> Vec<Arc<Pod>> {
    if count >= active.len() {
        return active.to_vec();
    }
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for pod in related {
        *crowd.entry(node(pod)).or_default() += 1;
    }
    let stamps = active.iter().flat_map(|pod| {
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        [created, ready_since(pod)].into_iter().flatten()
    });
    // Ages are told apart from the newest stamp on, so that the order needs no clock.
    let now = stamps.max().unwrap_or_default();
    let mut order = active.to_vec();
    order.sort_by(|a, b| compare(a, b, &crowd, now));
    order.truncate(count);
    order
}

fn compare(a: &Pod, b: &Pod, crowd: &HashMap<&str, usize>, now: Timestamp) -> Ordering {
    let phase = |pod: &Pod| match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Running") => 2,
        Some("Unknown") => 1,
        _ => 0,
    };
    let crowded = |pod: &Pod| Reverse(crowd.get(node(pod)).copied().unwrap_or_default());
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let first =
        |pod: &Pod| (!node(pod).is_empty(), phase(pod), ready_since(pod).is_some(), cost(pod), crowded(pod));
    let then = |pod: &Pod| (age(ready_since(pod), now), Reverse(restarts(pod)), age(created(pod), now));
    let last = |pod: &Pod| pod.metadata.uid.clone();
    first(a).cmp(&first(b)).then_with(|| then(a).cmp(&then(b))).then_with(|| last(a).cmp(&last(b)))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn pod(name: &str, rest: Value) -> Arc<Pod> {
        let mut value = json!({"metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"nodeName": "n1", "containers": []},
            "status": {"phase": "Running", "conditions":
                [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        json_patch::merge(&mut value, &rest);
        Arc::new(from_value(value).unwrap())
    }

    #[test]
    fn the_least_useful_goes_first() {
        let check = |what: &str, goes: Value| {
            let pods = [pod("a", json!({})), pod("z", goes), pod("b", json!({}))];
            let first = first_to_go(&pods, &pods, 1);
            assert_eq!(first[0].metadata.name.as_deref(), Some("z"), "{what}");
        };
        check("no node", json!({"spec": {"nodeName": null}}));
        check("pending", json!({"status": {"phase": "Pending"}}));
        check("not ready", json!({"status": {"conditions": []}}));
        check("cheap", json!({"metadata": {"annotations": {DELETION_COST: "-5"}}}));
        let late = json!([{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T01:00:00Z"}]);
        check("ready later", json!({"status": {"conditions": late}}));
        check(
            "restarted",
            json!({"status": {"containerStatuses":
            [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 3}]}}),
        );
        check("younger", json!({"metadata": {"creationTimestamp": "2026-01-01T02:00:00Z"}}));
    }

    #[test]
    fn the_crowded_node_is_relieved() {
        let other = pod("a", json!({"spec": {"nodeName": "n2"}}));
        let pods = [other, pod("b", json!({})), pod("c", json!({}))];
        assert_eq!(first_to_go(&pods, &pods, 1)[0].metadata.name.as_deref(), Some("b"));
    }
}
