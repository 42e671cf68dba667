//! Columns of Nodes, Namespaces and other kinds of the cluster.

use jiff::Timestamp;
use serde_json::Value;

use super::view::{self, flag, items, number, or, text};
use super::{Column, Printer};
use crate::meta::ObjectExt;

pub const NODES: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Status", "Whether the node is ready, and whether it takes new Pods."),
        Column::text("Roles", "Roles of the node, from its labels."),
        Column::AGE,
        Column::text("Version", "Version of the kubelet."),
        Column::text("Internal-IP", "Address of the node inside the cluster.").wide(),
        Column::text("External-IP", "Address of the node from outside.").wide(),
        Column::text("OS-Image", "Operating system of the node.").wide(),
        Column::text("Kernel-Version", "Kernel of the node.").wide(),
        Column::text("Container-Runtime", "Container runtime and its version.").wide(),
    ],
    cells: |node, now| {
        let info =
            |field: &str| or(text(node, &format!("/status/nodeInfo/{field}")), view::UNKNOWN).to_owned();
        vec![
            view::name(node),
            node_status(node).into(),
            node_roles(node).into(),
            view::age(node, now),
            text(node, "/status/nodeInfo/kubeletVersion").into(),
            node_address(node, "InternalIP").into(),
            node_address(node, "ExternalIP").into(),
            info("osImage").into(),
            info("kernelVersion").into(),
            info("containerRuntimeVersion").into(),
        ]
    },
};

fn node_status(node: &Value) -> String {
    let ready = items(node, "/status/conditions").iter().find(|c| text(c, "/type") == "Ready");
    let mut status = match ready.map(|c| text(c, "/status")) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }
    .to_owned();
    if flag(node, "/spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn node_roles(node: &Value) -> String {
    let mut roles: Vec<&str> = view::map(node, "/metadata/labels")
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| match key.strip_prefix("node-role.kubernetes.io/") {
            Some(role) => Some(role),
            None => (key == "kubernetes.io/role").then(|| value.as_str()).flatten(),
        })
        .filter(|role| !role.is_empty())
        .collect();
    roles.sort_unstable();
    roles.dedup();
    or(&roles.join(","), view::NONE).to_owned()
}

fn node_address<'a>(node: &'a Value, kind: &str) -> &'a str {
    let found = items(node, "/status/addresses").iter().find(|address| text(address, "/type") == kind);
    found.map_or(view::NONE, |address| text(address, "/address"))
}

pub const NAMESPACES: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Status", "Active, or Terminating while it is emptied."),
        Column::AGE,
    ],
    cells: |namespace, now| {
        vec![view::name(namespace), text(namespace, "/status/phase").into(), view::age(namespace, now)]
    },
};

pub const COMPONENTS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Status", "Healthy, Unhealthy, or Unknown."),
        Column::text("Message", "What the component says of itself."),
        Column::text("Error", "What is wrong with it."),
    ],
    cells: |component, _| {
        let mut conditions = component.array_at("/conditions").iter();
        let health = conditions.rfind(|condition| condition.text("type") == Some("Healthy"));
        let status = match health.map(|health| health.text("status") == Some("True")) {
            Some(true) => "Healthy",
            Some(false) => "Unhealthy",
            None => "Unknown",
        };
        let said = |key: &str| health.and_then(|health| health.text(key)).unwrap_or_default().to_owned();
        vec![view::name(component), status.into(), said("message").into(), said("error").into()]
    },
};

pub const CONFIG_MAPS: Printer = Printer {
    columns: &[Column::NAME, Column::number("Data", "Number of entries."), Column::AGE],
    cells: |map, now| {
        let entries = view::count(map, "/data") + view::count(map, "/binaryData");
        vec![view::name(map), entries.into(), view::age(map, now)]
    },
};

pub const SECRETS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::text("Type", "What the Secret is for."),
        Column::number("Data", "Number of entries."),
        Column::AGE,
    ],
    cells: |secret, now| {
        let entries = view::count(secret, "/data");
        vec![view::name(secret), text(secret, "/type").into(), entries.into(), view::age(secret, now)]
    },
};

pub const SERVICE_ACCOUNTS: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::number("Secrets", "Number of Secrets that belong to the account."),
        Column::AGE,
    ],
    cells: |account, now| {
        vec![view::name(account), items(account, "/secrets").len().into(), view::age(account, now)]
    },
};

pub const EVENTS: Printer = Printer {
    columns: &[
        Column::text("Last Seen", "Time since it happened last."),
        Column::text("Type", "Normal or Warning."),
        Column::text("Reason", "What happened, in one word."),
        Column::text("Object", "What it happened to."),
        Column::text("Subobject", "Which part of it.").wide(),
        Column::text("Source", "Which component says so.").wide(),
        Column::text("Message", "What happened, in words."),
        Column::text("First Seen", "Time since it happened first.").wide(),
        Column::number("Count", "How often it happened.").wide(),
        Column { priority: 1, ..Column::NAME },
    ],
    cells: event,
};

/// Both forms, of the core group and of `events.k8s.io`, which name the same things differently.
fn event(event: &Value, now: Timestamp) -> Vec<Value> {
    let either = |old: &str, new: &str| or(text(event, old), text(event, new)).to_owned();
    let since = |at: &str| view::since(at, now);
    let first_at = or(text(event, "/firstTimestamp"), text(event, "/deprecatedFirstTimestamp"));
    let first = since(or(first_at, text(event, "/eventTime")));
    let series = text(event, "/series/lastObservedTime");
    let last_at = or(text(event, "/lastTimestamp"), text(event, "/deprecatedLastTimestamp"));
    let last = match (series, last_at) {
        ("", "") => first.clone(),
        ("", at) => since(at),
        (at, _) => since(at),
    };
    let count = match number(event, "/series/count") {
        0 => (number(event, "/count") + number(event, "/deprecatedCount")).max(1),
        count => count,
    };
    let kind = either("/involvedObject/kind", "/regarding/kind").to_lowercase();
    let name = either("/involvedObject/name", "/regarding/name");
    let target = if name.is_empty() { kind } else { format!("{kind}/{name}") };
    let component = either("/source/component", "/reportingComponent");
    let component = or(&component, text(event, "/reportingController")).to_owned();
    let host = either("/source/host", "/reportingInstance");
    let source = if host.is_empty() { component } else { format!("{component}, {host}") };
    vec![
        last.into(),
        text(event, "/type").into(),
        text(event, "/reason").into(),
        target.into(),
        either("/involvedObject/fieldPath", "/regarding/fieldPath").into(),
        source.into(),
        either("/message", "/note").trim().into(),
        first.into(),
        count.into(),
        view::name(event),
    ]
}

pub const LEASES: Printer = Printer {
    columns: &[Column::NAME, Column::text("Holder", "Who holds the lease."), Column::AGE],
    cells: |lease, now| {
        vec![view::name(lease), text(lease, "/spec/holderIdentity").into(), view::age(lease, now)]
    },
};

pub const PRIORITY_CLASSES: Printer = Printer {
    columns: &[
        Column::NAME,
        Column::number("Value", "Priority of Pods of this class."),
        Column {
            kind: "boolean",
            ..Column::text("Global-Default", "Whether Pods without a class get this one.")
        },
        Column::AGE,
        Column::text("PreemptionPolicy", "Whether such Pods may displace others."),
    ],
    cells: |class, now| {
        vec![
            view::name(class),
            number(class, "/value").into(),
            flag(class, "/globalDefault").into(),
            view::age(class, now),
            text(class, "/preemptionPolicy").into(),
        ]
    },
};

pub const RUNTIME_CLASSES: Printer = Printer {
    columns: &[Column::NAME, Column::text("Handler", "Name of the handler in the runtime."), Column::AGE],
    cells: |class, now| vec![view::name(class), text(class, "/handler").into(), view::age(class, now)],
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_says_status_and_roles() {
        let node = json!({
            "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge"}},
            "spec": {"unschedulable": true},
            "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]},
        });
        let row = (NODES.cells)(&node, Timestamp::UNIX_EPOCH);
        assert_eq!(row[1..3], [json!("Ready,SchedulingDisabled"), json!("control-plane,edge")]);
        assert_eq!(row[5..7], [json!("10.0.0.1"), json!("<none>")]);
    }

    #[test]
    fn both_forms_of_events_give_one_row() {
        let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
        let old = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "f"}, "type": "Normal", "reason": "Started",
            "message": "m ", "source": {"component": "kubelet", "host": "n"}, "firstTimestamp": "2026-01-01T00:00:00Z", "lastTimestamp": "2026-01-01T00:00:30Z", "count": 2});
        let new = json!({"metadata": {"name": "e"}, "regarding": {"kind": "Pod", "name": "p", "fieldPath": "f"}, "type": "Normal", "reason": "Started",
            "note": "m", "reportingController": "kubelet", "reportingInstance": "n", "eventTime": "2026-01-01T00:00:00.000000Z",
            "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:30.000000Z"}});
        let expect = json!(["30s", "Normal", "Started", "pod/p", "f", "kubelet, n", "m", "60s", 2, "e"]);
        assert_eq!(Value::Array(event(&old, now)), expect);
        assert_eq!(Value::Array(event(&new, now)), expect);
    }
}
