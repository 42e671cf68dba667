//! What nodes may do.

use crate::index::{NodeUses, Used};
use crate::rbac::{Action, Rule};
use crate::user::UserInfo;
use config::NodeConfig;

/// What a node's identity may do: its kubelet, its service proxy and its DNS. The group's rules are upstream's
/// `system:node` with the reads of `system:node-proxier`; [`allows`] narrows them to what the node's Pods use, and what an
/// object may say is kept by the admission plugin NodeRestriction, as upstream.
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
    // What the agent does beside upstream's node: it enforces policies and serves Ingresses and Gateways.
    ("networking.k8s.io", &["networkpolicies", "ingresses", "ingressclasses"], READ),
    (
        "gateway.networking.k8s.io",
        &["gatewayclasses", "gateways", "httproutes", "grpcroutes", "tlsroutes", "referencegrants"],
        READ,
    ),
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

/// Whether the node rules allow the action: a rule must name it, and what it is about must be the node's own, or be used
/// by a Pod that is bound to the node.
pub(super) fn allows(uses: &NodeUses, user: &UserInfo, action: &Action<'_>) -> bool {
    let Some(node) = user.node().filter(|_| action.is_resource) else { return false };
    let named = RULES.iter().any(|(group, resources, verbs)| {
        *group == action.group
            && verbs.contains(&action.verb)
            && resources.iter().any(|own| match own.split_once('/') {
                None => action.subresource.is_empty() && *own == action.resource,
                Some((main, sub)) => main == action.resource && sub == action.subresource,
            })
    });
    named && concerns(uses, node, action)
}

fn concerns(uses: &NodeUses, node: &str, action: &Action<'_>) -> bool {
    let Action { verb, group, resource, namespace, name, .. } = *action;
    // A create names its object in the body: NodeRestriction looks at that.
    let own = name == node || (verb == "create" && name.is_empty());
    let used = |kind: Used| uses.uses(node, kind, namespace, name);
    match (group, resource) {
        ("", "configmaps") => used(Used::ConfigMap) || (namespace, name) == NodeConfig::DNS_CONFIG_MAP,
        // Ingresses and Gateways are served on every node.
        ("", "secrets") => {
            used(Used::Secret) || uses.is_served(namespace, name) || uses.is_for_driver(node, namespace, name)
        }
        ("", "persistentvolumeclaims") => used(Used::Claim),
        ("", "persistentvolumes") => uses.uses_volume(node, name),
        ("", "serviceaccounts") => used(Used::ServiceAccount),
        ("resource.k8s.io", "resourceclaims") => used(Used::ResourceClaim),
        // Every node follows all nodes: their routes and their Pods' networks.
        ("", "nodes") => own || matches!(verb, "get" | "list" | "watch"),
        ("coordination.k8s.io", "leases") => own && namespace == "kube-node-lease",
        ("storage.k8s.io", "csinodes") => own,
        _ => true,
    }
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
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_do_a_nodes_work_for_what_is_theirs() {
        let node = UserInfo::new("system:node:n1", &[UserInfo::NODES]);
        let mut uses = NodeUses::default();
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n1", "serviceAccountName": "robot",
            "containers": [{"envFrom": [{"secretRef": {"name": "used"}}, {"configMapRef": {"name": "used"}}]}]}});
        uses.set_pod("default", "p", Some(&pod));
        let ingress = json!({"spec": {"tls": [{"hosts": ["a"], "secretName": "served"}]}});
        uses.set_ingress("default", "web", Some(&ingress));
        let refs = json!([{"name": "own"}, {"namespace": "far", "name": "far"}]);
        let gateway = json!({"spec": {"listeners": [{"tls": {"certificateRefs": refs}}]}});
        uses.set_gateway("default", "gw", Some(&gateway));
        for (namespace, name, expect) in [
            ("default", "served", true),
            ("other", "served", false),
            ("default", "own", true),
            ("far", "far", true),
            ("default", "far", false),
        ] {
            let action = Action::on("watch", "", "secrets", namespace, name);
            assert_eq!(allows(&uses, &node, &action), expect, "{namespace}/{name}");
        }
        let check = |action: Action<'_>, expect: bool| {
            assert_eq!(allows(&uses, &node, &action), expect, "{action:?}");
        };
        check(Action::on("watch", "", "pods", "", ""), true);
        check(Action { subresource: "status", ..Action::on("patch", "", "pods", "default", "p") }, true);
        check(Action { subresource: "exec", ..Action::on("create", "", "pods", "default", "p") }, false);
        for plural in ["secrets", "configmaps"] {
            for verb in ["get", "list", "watch"] {
                check(Action::on(verb, "", plural, "default", "used"), true);
                check(Action::on(verb, "", plural, "default", "other"), false);
                check(Action::on(verb, "", plural, "kube-system", "used"), false);
                check(Action::on(verb, "", plural, "kube-system", "minik-dns"), plural == "configmaps");
                check(Action::on(verb, "", plural, "default", ""), false);
                check(Action::on(verb, "", plural, "", ""), false);
            }
            check(Action::on("update", "", plural, "default", "used"), false);
        }
        let token = |name| Action {
            subresource: "token",
            ..Action::on("create", "", "serviceaccounts", "default", name)
        };
        check(token("robot"), true);
        check(token("admin"), false);
        check(Action::on("patch", "", "nodes", "", "n1"), true);
        check(Action::on("patch", "", "nodes", "", "n2"), false);
        check(Action::on("create", "", "nodes", "", ""), true);
        check(Action::on("update", "coordination.k8s.io", "leases", "kube-node-lease", "n1"), true);
        check(Action::on("update", "coordination.k8s.io", "leases", "kube-node-lease", "n2"), false);
        check(Action::on("update", "coordination.k8s.io", "leases", "kube-system", "n1"), false);
        check(Action::on("create", "apps", "deployments", "default", ""), false);
        check(Action::on("watch", "discovery.k8s.io", "endpointslices", "", ""), true);
        let stranger = UserInfo::new("system:node:n1", &[]);
        assert!(!allows(
            &uses,
            &stranger,
            &Action::on("watch", "discovery.k8s.io", "endpointslices", "", "")
        ));
    }
}
