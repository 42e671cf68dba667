//! Columns of Pods.

use jiff::Timestamp;
use serde_json::Value;

use super::view::{self, flag, items, number, or, text};
use super::{Column, Printer};

pub const PODS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Ready", "Ready containers out of all containers of the Pod."),
        Column::text("Status", "The Pod's phase, or the reason why a container keeps it from its next one."),
        Column::text("Restarts", "How often containers were restarted, and when last."),
        Column::AGE,
        Column::text("IP", "Address of the Pod; empty until it has one.").wide(),
        Column::text("Node", "Node the Pod is bound to.").wide(),
        Column::text("Nominated Node", "Node on which room is being made for the Pod.").wide(),
        Column::text("Readiness Gates", "Fulfilled readiness gates out of all of the Pod.").wide(),
    ],
    cells,
};

fn cells(pod: &Value, now: Timestamp) -> Vec<Value> {
    let summary = summarize(pod);
    let restarts = match &summary.last_restart {
        Some(at) if summary.restarts > 0 => format!("{} ({} ago)", summary.restarts, view::since(at, now)),
        _ => summary.restarts.to_string(),
    };
    let gates = items(pod, "/spec/readinessGates");
    let open = gates.iter().filter(|gate| view::condition(pod, text(gate, "/conditionType"))).count();
    let ip = items(pod, "/status/podIPs").first().map_or("", |ip| text(ip, "/ip"));
    let ip = or(ip, text(pod, "/status/podIP"));
    vec![
        view::name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        view::age(pod, now),
        or(ip, view::NONE).into(),
        or(text(pod, "/spec/nodeName"), view::NONE).into(),
        or(text(pod, "/status/nominatedNodeName"), view::NONE).into(),
        if gates.is_empty() { view::NONE.into() } else { format!("{open}/{}", gates.len()).into() },
    ]
}

struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<String>,
}

/// Rule: `printPod` of the Kubernetes API server. The newest problem wins: init containers in their order, then
/// containers from the last to the first.
fn summarize(pod: &Value) -> Summary {
    let mut reason = or(text(pod, "/status/reason"), text(pod, "/status/phase")).to_owned();
    if items(pod, "/status/conditions")
        .iter()
        .any(|c| text(c, "/type") == "PodScheduled" && text(c, "/reason") == "SchedulingGated")
    {
        reason = "SchedulingGated".to_owned();
    }
    let sidecars =
        items(pod, "/spec/initContainers").iter().filter(|c| text(c, "/restartPolicy") == "Always").count();
    let mut summary = Summary {
        reason,
        ready: 0,
        total: items(pod, "/spec/containers").len() + sidecars,
        restarts: 0,
        last_restart: None,
    };
    let initializing = init_containers(pod, &mut summary);
    if !initializing || view::condition(pod, "Initialized") {
        containers(pod, &mut summary);
    }
    if pod.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null()) {
        let ended = matches!(text(pod, "/status/phase"), "Succeeded" | "Failed");
        if text(pod, "/status/reason") == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if !ended {
            summary.reason = "Terminating".to_owned();
        }
    }
    summary
}

/// Goes through the init containers; true while one of them is still to finish.
fn init_containers(pod: &Value, summary: &mut Summary) -> bool {
    let specs = items(pod, "/spec/initContainers");
    let is_sidecar =
        |name: &str| specs.iter().any(|c| text(c, "/name") == name && text(c, "/restartPolicy") == "Always");
    let (mut side_restarts, mut side_last) = (0, None);
    let mut initializing = false;
    for (index, status) in items(pod, "/status/initContainerStatuses").iter().enumerate() {
        let sidecar = is_sidecar(text(status, "/name"));
        count_restarts(status, &mut summary.restarts, &mut summary.last_restart);
        if sidecar {
            count_restarts(status, &mut side_restarts, &mut side_last);
        }
        let terminated = status.pointer("/state/terminated");
        if terminated.is_some_and(|end| number(end, "/exitCode") == 0) {
            continue;
        }
        if sidecar && flag(status, "/started") {
            summary.ready += usize::from(flag(status, "/ready"));
            continue;
        }
        let waiting = text(status, "/state/waiting/reason");
        summary.reason = match terminated {
            Some(end) => format!("Init:{}", end_reason(end)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{index}/{}", specs.len()),
        };
        initializing = true;
        break;
    }
    if !initializing || view::condition(pod, "Initialized") {
        // Init containers that have done their work no longer count.
        (summary.restarts, summary.last_restart) = (side_restarts, side_last);
    }
    initializing
}

fn containers(pod: &Value, summary: &mut Summary) {
    let mut running = false;
    for status in items(pod, "/status/containerStatuses").iter().rev() {
        count_restarts(status, &mut summary.restarts, &mut summary.last_restart);
        let waiting = text(status, "/state/waiting/reason");
        if !waiting.is_empty() {
            summary.reason = waiting.to_owned();
        } else if let Some(end) = status.pointer("/state/terminated") {
            summary.reason = end_reason(end);
        } else if flag(status, "/ready") && status.pointer("/state/running").is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        let ready = view::condition(pod, "Ready");
        summary.reason = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}

fn count_restarts(status: &Value, restarts: &mut i64, last: &mut Option<String>) {
    *restarts += number(status, "/restartCount");
    let finished = text(status, "/lastState/terminated/finishedAt");
    // RFC 3339 in UTC sorts as text.
    if !finished.is_empty() && last.as_deref().is_none_or(|at| at < finished) {
        *last = Some(finished.to_owned());
    }
}

fn end_reason(end: &Value) -> String {
    match (text(end, "/reason"), number(end, "/signal")) {
        ("", 0) => format!("ExitCode:{}", number(end, "/exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(status: Value, extra: Value, expect: [&str; 3]) {
        let mut pod = json!({
            "metadata": {"name": "p"},
            "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}]},
            "status": status,
        });
        json_patch::merge(&mut pod, &extra);
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let row = cells(&pod, now);
        assert_eq!([&row[1], &row[2], &row[3]], expect.map(Value::from).each_ref());
    }

    #[test]
    fn status_tells_the_newest_problem() {
        let running = json!({"name": "a", "ready": true, "state": {"running": {}}});
        let none = json!({});
        check(json!({"phase": "Pending"}), none.clone(), ["0/3", "Pending", "0"]);
        check(
            json!({"phase": "Running", "containerStatuses": [running, {"name": "b", "ready": false, "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"finishedAt": "2026-01-01T00:00:55Z"}}}]}),
            none.clone(),
            ["1/3", "CrashLoopBackOff", "3 (5s ago)"],
        );
        check(
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
            none.clone(),
            ["0/3", "Init:0/2", "0"],
        );
        check(
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 2}}}]}),
            none.clone(),
            ["0/3", "Init:ExitCode:2", "0"],
        );
        check(
            json!({"phase": "Succeeded", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
            none.clone(),
            ["0/3", "Completed", "0"],
        );
        check(
            json!({"phase": "Running", "containerStatuses": [running]}),
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            ["1/3", "Terminating", "0"],
        );
        check(
            json!({"phase": "Failed", "reason": "Evicted"}),
            json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
            ["0/3", "Evicted", "0"],
        );
        check(
            json!({"phase": "Running", "conditions": [{"type": "Initialized", "status": "True"}],
                "initContainerStatuses": [{"name": "i", "restartCount": 4, "state": {"terminated": {"exitCode": 0}}},
                    {"name": "s", "started": true, "ready": true, "state": {"running": {}}}],
                "containerStatuses": [running, {"name": "b", "ready": true, "state": {"running": {}}}]}),
            none,
            ["3/3", "Running", "0"],
        );
    }
}
