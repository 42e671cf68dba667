//! The default roles and bindings.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";
/// Where the aggregating roles and their parts agree on a label.
const AGGREGATE_TO: &str = "rbac.authorization.k8s.io/aggregate-to-";
/// The user that this server's own controllers run as.
const CONTROLLERS_USER: &str = "User system:kube-controller-manager";

/// `templates/rbac.yaml`; its head says what the short forms mean.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Policy {
    cluster_roles: BTreeMap<String, ClusterRole>,
    cluster_role_bindings: BTreeMap<String, Vec<String>>,
    named_bindings: BTreeMap<String, Binding>,
    controllers: BTreeMap<String, Vec<Vec<String>>>,
    roles: BTreeMap<String, Vec<Vec<String>>>,
    role_bindings: BTreeMap<String, Binding>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ClusterRole {
    aggregate: Option<String>,
    to: Option<String>,
    rules: Vec<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Binding {
    role: Option<String>,
    to: Vec<String>,
}

/// The default roles and bindings as API objects, roles before bindings.
pub fn objects() -> Result<Vec<Value>, String> {
    let text = include_str!("../../../../templates/rbac.yaml");
    let policy: Policy = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    let mut roles = Vec::new();
    let mut bindings = Vec::new();
    for (name, role) in &policy.cluster_roles {
        roles.push(cluster_role(name, role));
    }
    for (name, to) in &policy.cluster_role_bindings {
        bindings.push(binding("ClusterRoleBinding", name, None, ("ClusterRole", name), to));
    }
    for (name, named) in &policy.named_bindings {
        let role = named.role.as_deref().unwrap_or(name);
        bindings.push(binding("ClusterRoleBinding", name, None, ("ClusterRole", role), &named.to));
    }
    let events = vec!["core,events.k8s.io".to_owned(), "events".to_owned(), "create,patch,update".to_owned()];
    for (controller, rules) in &policy.controllers {
        let name = format!("system:controller:{controller}");
        let rules = rules.iter().cloned().chain([events.clone()]).collect();
        roles.push(cluster_role(&name, &ClusterRole { rules, ..ClusterRole::default() }));
        let to = [format!("ServiceAccount kube-system/{controller}"), CONTROLLERS_USER.to_owned()];
        bindings.push(binding("ClusterRoleBinding", &name, None, ("ClusterRole", &name), &to));
    }
    for (path, rules) in &policy.roles {
        let (namespace, name) = split(path);
        let mut role = head("Role", name, Some(namespace));
        role["rules"] = rules.iter().map(|parts| rule(parts)).collect();
        roles.push(role);
    }
    for (path, named) in &policy.role_bindings {
        let (namespace, name) = split(path);
        let role = named.role.as_deref().unwrap_or(name);
        bindings.push(binding("RoleBinding", name, Some(namespace), ("Role", role), &named.to));
    }
    roles.append(&mut bindings);
    Ok(roles)
}

fn split(path: &str) -> (&str, &str) {
    path.split_once('/').unwrap_or(("kube-system", path))
}

fn head(kind: &str, name: &str, namespace: Option<&str>) -> Value {
    let mut metadata = json!({
        "name": name,
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
    });
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata})
}

fn cluster_role(name: &str, role: &ClusterRole) -> Value {
    let mut object = head("ClusterRole", name, None);
    if let Some(to) = &role.to {
        object["metadata"]["labels"][format!("{AGGREGATE_TO}{to}")] = "true".into();
    }
    if let Some(what) = &role.aggregate {
        let labels = json!({format!("{AGGREGATE_TO}{what}"): "true"});
        object["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
    }
    object["rules"] = role.rules.iter().map(|parts| rule(parts)).collect();
    object
}

fn rule(parts: &[String]) -> Value {
    match parts {
        [urls, verbs_of] => json!({"nonResourceURLs": words(urls), "verbs": verbs(verbs_of)}),
        [groups, resources, verbs_of, names @ ..] => {
            let groups: Vec<&str> = groups.split(',').map(|g| if g == "core" { "" } else { g }).collect();
            let mut rule =
                json!({"apiGroups": groups, "resources": words(resources), "verbs": verbs(verbs_of)});
            if let Some(names) = names.first() {
                rule["resourceNames"] = words(names).into();
            }
            rule
        }
        _ => Value::Null,
    }
}

fn words(list: &str) -> Vec<&str> {
    list.split(',').collect()
}

fn verbs(list: &str) -> Vec<&str> {
    let mut verbs: Vec<&str> = Vec::new();
    for word in list.split(',') {
        match word {
            "read" => verbs.extend(["get", "list", "watch"]),
            "write" => verbs.extend(["create", "delete", "deletecollection", "patch", "update"]),
            verb => verbs.push(verb),
        }
    }
    verbs
}

fn binding(kind: &str, name: &str, namespace: Option<&str>, role: (&str, &str), to: &[String]) -> Value {
    let mut object = head(kind, name, namespace);
    object["roleRef"] = json!({"apiGroup": GROUP, "kind": role.0, "name": role.1});
    let subjects: Vec<Value> = to.iter().map(|subject| subject_of(subject)).collect();
    if !subjects.is_empty() {
        object["subjects"] = subjects.into();
    }
    object
}

fn subject_of(text: &str) -> Value {
    match text.split_once(' ') {
        Some(("ServiceAccount", path)) => {
            let (namespace, name) = split(path);
            json!({"kind": "ServiceAccount", "namespace": namespace, "name": name})
        }
        Some((kind, name)) => json!({"apiGroup": GROUP, "kind": kind, "name": name}),
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::{Action, Rbac, RbacKind, decide};
    use crate::index::Known;
    use crate::user::UserInfo;

    fn index() -> Rbac {
        let mut rbac = Rbac::default();
        for object in objects().unwrap() {
            let kind = object["kind"].as_str().unwrap();
            let plural = format!("{}s", kind.to_lowercase());
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
            rbac.set(RbacKind::of(&plural).unwrap(), &namespace, &name, Some(&object));
        }
        rbac
    }

    #[test]
    fn every_rule_and_subject_is_understood() {
        let objects = objects().unwrap();
        for object in &objects {
            let rules = object["rules"].as_array().into_iter().flatten();
            let subjects = object["subjects"].as_array().into_iter().flatten();
            assert!(rules.chain(subjects).all(Value::is_object), "{object}");
        }
        for name in [
            "cluster-admin",
            "admin",
            "edit",
            "view",
            "system:node-bootstrapper",
            "system:controller:deployment-controller",
        ] {
            assert!(
                objects.iter().any(|o| o["kind"] == "ClusterRole" && o["metadata"]["name"] == name),
                "{name}"
            );
        }
    }

    #[test]
    fn the_defaults_allow_what_upstream_allows() {
        let mut known = Known::default();
        known.rbac = index();
        // A controller gives the aggregates the rules of their parts.
        for (user, parts) in
            [("admin", &["admin", "edit", "view"][..]), ("edit", &["edit", "view"]), ("view", &["view"])]
        {
            for part in parts {
                let binding = json!({"roleRef": {"kind": "ClusterRole", "name": format!("system:aggregate-to-{part}")},
                    "subjects": [{"kind": "User", "name": user}]});
                known.rbac.set(RbacKind::RoleBinding, "default", &format!("{user}-{part}"), Some(&binding));
            }
        }
        let check = |user: &str, groups: &[&str], action: Action<'_>, expect: bool| {
            let user = UserInfo::new(user, groups);
            assert_eq!(decide(&known, &user, &action).allowed, expect, "{} {action:?}", user.name);
        };
        let pods = |verb: &'static str| Action::on(verb, "", "pods", "default", "p");
        check("view", &[], pods("get"), true);
        check("view", &[], pods("delete"), false);
        check("view", &[], Action::on("get", "", "secrets", "default", "s"), false);
        check("edit", &[], pods("delete"), true);
        check("edit", &[], pods("get"), true);
        check("edit", &[], Action::on("create", "rbac.authorization.k8s.io", "roles", "default", ""), false);
        check("admin", &[], Action::on("create", "rbac.authorization.k8s.io", "roles", "default", ""), true);
        check("admin", &[], Action { namespace: "other", ..pods("get") }, false);
        let replicas = Action::on("create", "apps", "replicasets", "default", "");
        check("system:kube-controller-manager", &[], replicas, true);
        check("system:kube-scheduler", &[], Action { subresource: "binding", ..pods("create") }, true);
        let csr = Action::on("create", "certificates.k8s.io", "certificatesigningrequests", "", "");
        check("system:bootstrap:abc", &["system:bootstrappers:kubeadm:default-node-token"], csr, true);
        let version = Action { verb: "get", path: "/version", ..Action::default() };
        assert!(decide(&known, &UserInfo::anonymous(), &version).allowed);
        assert!(!decide(&known, &UserInfo::anonymous(), &Action { path: "/api", ..version }).allowed);
        check("root", &[UserInfo::MASTERS], Action::on("nuke", "x", "y", "", ""), true);
    }
}
