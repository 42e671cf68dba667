use crate::controlplane::apiserver::rbac::{Action, Rule};
use crate::controlplane::apiserver::user::UserInfo;

/// What a node's identity may do: its kubelet, its service proxy and its DNS. The group's rules are upstream's
/// `system:node` with the reads of `system:node-proxier`; that a node changes only what is its own is kept by the
/// admission plugin NodeRestriction, as upstream.
const RULES: &[(&str, &[&str], &[&str])] = &[
    ("authentication.k8s.io", &["tokenreviews"], &["create"]),
    ("authorization.k8s.io", &["subjectaccessreviews", "localsubjectaccessreviews"], &["create"]),
    ("", &["services", "endpoints", "namespaces"], READ),
    ("", &["nodes"], &["create", "get", "list", "watch", "update", "patch"]),
    ("", &["nodes/status"], &["update", "patch"]),
    ("", &["events"], &["create", "update", "patch"]),
    ("events.k8s.io", &["events"], &["create", "update", "patch"]),
    ("", &["pods"], &["create", "delete", "get", "list", "watch"]),
    ("", &["pods/status"], &["get", "update", "patch"]),
    ("", &["pods/eviction"], &["create"]),
    ("", &["secrets", "configmaps", "persistentvolumeclaims", "persistentvolumes"], READ),
    ("", &["persistentvolumeclaims/status"], &["get", "update", "patch"]),
    ("", &["serviceaccounts"], &["get"]),
    ("", &["serviceaccounts/token"], &["create"]),
    ("discovery.k8s.io", &["endpointslices"], READ),
    ("networking.k8s.io", &["servicecidrs"], &["list", "watch"]),
    // What the agent does beside upstream's node: it enforces policies and serves Ingresses.
    ("networking.k8s.io", &["networkpolicies", "ingresses", "ingressclasses"], READ),
    ("networking.k8s.io", &["ingresses/status"], &["get", "update", "patch"]),
    ("certificates.k8s.io", &["certificatesigningrequests"], &["create", "get", "list", "watch"]),
    ("certificates.k8s.io", &["certificatesigningrequests/selfnodeserver"], &["create"]),
    ("certificates.k8s.io", &["certificatesigningrequests/selfnodeclient"], &["create"]),
    ("coordination.k8s.io", &["leases"], &["create", "get", "update", "patch", "delete"]),
    ("storage.k8s.io", &["volumeattachments"], &["get"]),
    ("storage.k8s.io", &["csidrivers"], READ),
    ("storage.k8s.io", &["csinodes"], &["create", "delete", "get", "patch", "update"]),
    ("node.k8s.io", &["runtimeclasses"], READ),
    ("resource.k8s.io", &["resourceclaims"], &["get"]),
    (
        "resource.k8s.io",
        &["resourceslices"],
        &["get", "list", "watch", "create", "update", "patch", "delete"],
    ),
];

const READ: &[&str] = &["get", "list", "watch"];

/// Whether the node rules allow the action.
pub(super) fn allows(user: &UserInfo, action: &Action<'_>) -> bool {
    if user.node().is_none() || !action.is_resource {
        return false;
    }
    RULES.iter().any(|(group, resources, verbs)| {
        *group == action.group
            && verbs.contains(&action.verb)
            && resources.iter().any(|own| match own.split_once('/') {
                None => action.subresource.is_empty() && *own == action.resource,
                Some((main, sub)) => main == action.resource && sub == action.subresource,
            })
    })
}

/// The node rules as RBAC would write them.
pub(super) fn rules() -> Vec<Rule> {
    let strings = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    let rules = RULES.iter().map(|(group, resources, verbs)| Rule {
        verbs: strings(verbs),
        api_groups: strings(&[group]),
        resources: strings(resources),
        ..Rule::default()
    });
    rules.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_do_a_nodes_work() {
        let node = UserInfo::new("system:node:n1", &[UserInfo::NODES]);
        let check =
            |action: Action<'_>, expect: bool| assert_eq!(allows(&node, &action), expect, "{action:?}");
        check(Action::on("watch", "", "pods", "", ""), true);
        check(Action { subresource: "status", ..Action::on("patch", "", "pods", "default", "p") }, true);
        check(Action { subresource: "exec", ..Action::on("create", "", "pods", "default", "p") }, false);
        check(Action::on("create", "apps", "deployments", "default", ""), false);
        check(Action::on("watch", "discovery.k8s.io", "endpointslices", "", ""), true);
        assert!(!allows(&UserInfo::new("system:node:n1", &[]), &Action::on("watch", "", "pods", "", "")));
    }
}
