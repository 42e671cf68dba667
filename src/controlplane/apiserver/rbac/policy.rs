//! Roles and bindings, compiled: which rules a user has where, and which one allows an action.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::rule::{Action, Rule};
use crate::user::UserInfo;

/// Roles and bindings, compiled for evaluation. It is fed with the objects as they are written.
#[derive(Default)]
pub struct Rbac {
    cluster_roles: HashMap<String, Arc<[Rule]>>,
    /// By namespace and name.
    roles: HashMap<(String, String), Arc<[Rule]>>,
    cluster_bindings: Bindings,
    /// By namespace.
    bindings: HashMap<String, Bindings>,
}

/// Bindings by name, and by whom they concern: a request looks at its user's own, however many others there are.
#[derive(Default)]
struct Bindings {
    by_name: BTreeMap<String, Binding>,
    by_subject: HashMap<Subject, BTreeSet<String>>,
}

impl Bindings {
    fn set(&mut self, name: &str, binding: Option<Binding>) {
        if let Some(before) = self.by_name.remove(name) {
            for subject in before.subjects {
                if let Some(names) = self.by_subject.get_mut(&subject) {
                    names.remove(name);
                    if names.is_empty() {
                        self.by_subject.remove(&subject);
                    }
                }
            }
        }
        if let Some(binding) = binding {
            for subject in &binding.subjects {
                self.by_subject.entry(subject.clone()).or_default().insert(name.to_owned());
            }
            self.by_name.insert(name.to_owned(), binding);
        }
    }

    /// The bindings that concern the user, by name.
    fn of(&self, user: &UserInfo) -> impl Iterator<Item = (&String, &Binding)> {
        let whom = Subject::all_of(user);
        let names: BTreeSet<&String> =
            whom.iter().filter_map(|subject| self.by_subject.get(subject)).flatten().collect();
        names.into_iter().filter_map(|name| self.by_name.get_key_value(name))
    }
}

#[derive(Clone, Debug)]
struct Binding {
    role: RoleRef,
    subjects: Vec<Subject>,
}

/// The role that a binding gives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RoleRef {
    pub kind: String,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
struct Subject {
    kind: String,
    name: String,
    namespace: String,
}

impl Subject {
    /// Every subject that means the user.
    fn all_of(user: &UserInfo) -> Vec<Self> {
        let of = |kind: &str, name: &str, namespace: &str| Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
        };
        let mut all = vec![of("User", &user.name, "")];
        all.extend(user.groups.iter().map(|group| of("Group", group, "")));
        all.extend(user.as_service_account().map(|(namespace, name)| of("ServiceAccount", name, namespace)));
        all
    }
}

/// The kinds that [`Rbac`] is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RbacKind {
    ClusterRole,
    Role,
    ClusterRoleBinding,
    RoleBinding,
}

impl RbacKind {
    /// By the plural in storage keys.
    pub fn of(plural: &str) -> Option<Self> {
        Some(match plural {
            "clusterroles" => Self::ClusterRole,
            "roles" => Self::Role,
            "clusterrolebindings" => Self::ClusterRoleBinding,
            "rolebindings" => Self::RoleBinding,
            _ => return None,
        })
    }
}

/// One granted rule and where it comes from.
pub struct Grant<'a> {
    pub rule: &'a Rule,
    binding_kind: &'static str,
    binding: &'a str,
    binding_namespace: &'a str,
    role: &'a RoleRef,
    subject: &'a Subject,
}

impl Grant<'_> {
    /// As upstream explains an allowed request.
    pub fn reason(&self) -> String {
        let subject = match self.subject.kind.as_str() {
            "ServiceAccount" => {
                format!("ServiceAccount \"{}/{}\"", self.subject.name, self.subject.namespace)
            }
            kind => format!("{kind} {:?}", self.subject.name),
        };
        let binding = match self.binding_namespace {
            "" => format!("{:?}", self.binding),
            namespace => format!("\"{}/{namespace}\"", self.binding),
        };
        format!(
            "RBAC: allowed by {} {binding} of {} {:?} to {subject}",
            self.binding_kind, self.role.kind, self.role.name
        )
    }
}

impl Rbac {
    /// Takes a written object in (`Some`) or out (`None`).
    pub fn set(&mut self, kind: RbacKind, namespace: &str, name: &str, object: Option<&Value>) {
        match (kind, object) {
            (RbacKind::ClusterRole, object) => match object {
                Some(object) => drop(self.cluster_roles.insert(name.to_owned(), rules(object))),
                None => drop(self.cluster_roles.remove(name)),
            },
            (RbacKind::Role, Some(object)) => {
                self.roles.insert((namespace.to_owned(), name.to_owned()), rules(object));
            }
            (RbacKind::Role, None) => drop(self.roles.remove(&(namespace.to_owned(), name.to_owned()))),
            (RbacKind::ClusterRoleBinding, object) => {
                self.cluster_bindings.set(name, object.map(|object| Binding::of(object, "")));
            }
            (RbacKind::RoleBinding, object) => {
                let bindings = self.bindings.entry(namespace.to_owned()).or_default();
                bindings.set(name, object.map(|object| Binding::of(object, namespace)));
                if bindings.by_name.is_empty() {
                    self.bindings.remove(namespace);
                }
            }
        }
    }

    /// Calls `visit` for every rule that applies to the user in the namespace (empty: cluster scope), until it
    /// answers false. Returns the roles that bindings name and that do not exist.
    pub fn visit<'a>(
        &'a self,
        user: &UserInfo,
        namespace: &str,
        visit: &mut dyn FnMut(Grant<'a>) -> bool,
    ) -> Vec<String> {
        let mut missing = Vec::new();
        for (name, binding) in self.cluster_bindings.of(user) {
            let Some(subject) = binding.subject_for(user) else { continue };
            let from = ("ClusterRoleBinding", name.as_str(), "");
            if !self.visit_role(from, binding, subject, visit, &mut missing) {
                return missing;
            }
        }
        let Some((namespace, bindings)) = self.bindings.get_key_value(namespace) else { return missing };
        for (name, binding) in bindings.of(user) {
            let Some(subject) = binding.subject_for(user) else { continue };
            let from = ("RoleBinding", name.as_str(), namespace.as_str());
            if !self.visit_role(from, binding, subject, visit, &mut missing) {
                return missing;
            }
        }
        missing
    }

    fn visit_role<'a>(
        &'a self,
        (binding_kind, name, namespace): (&'static str, &'a str, &'a str),
        binding: &'a Binding,
        subject: &'a Subject,
        visit: &mut dyn FnMut(Grant<'a>) -> bool,
        missing: &mut Vec<String>,
    ) -> bool {
        let role = &binding.role;
        let Some(rules) = self.role_rules(role, namespace) else {
            let kind = role.kind.to_lowercase();
            missing.push(format!("{kind}.rbac.authorization.k8s.io {:?} not found", role.name));
            return true;
        };
        rules.iter().all(|rule| {
            visit(Grant { rule, binding_kind, binding: name, binding_namespace: namespace, role, subject })
        })
    }

    /// The rules behind a reference made in `namespace`; `None` if the role does not exist. An aggregate's are written in it.
    pub fn role_rules<'a>(&'a self, role: &RoleRef, namespace: &str) -> Option<&'a [Rule]> {
        let rules = match role.kind.as_str() {
            "Role" => self.roles.get(&(namespace.to_owned(), role.name.clone()))?,
            _ => self.cluster_roles.get(&role.name)?,
        };
        Some(rules)
    }

    /// The first grant that allows the action, or the roles found missing on the way.
    pub fn find(&self, user: &UserInfo, action: &Action<'_>) -> Result<String, Vec<String>> {
        let mut found = None;
        let missing = self.visit(user, action.namespace, &mut |grant| {
            if grant.rule.allows(action) {
                found = Some(grant.reason());
            }
            found.is_none()
        });
        found.ok_or(missing)
    }

    /// All rules that apply to the user in the namespace.
    pub fn rules_for(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let mut all = Vec::new();
        self.visit(user, namespace, &mut |grant| {
            all.push(grant.rule.clone());
            true
        });
        all
    }
}

impl Binding {
    fn of(object: &Value, namespace: &str) -> Self {
        let read = |field: &str| object.get(field).cloned().unwrap_or_default();
        let mut subjects: Vec<Subject> = serde_json::from_value(read("subjects")).unwrap_or_default();
        for subject in &mut subjects {
            match subject.kind.as_str() {
                "ServiceAccount" if subject.namespace.is_empty() => {
                    namespace.clone_into(&mut subject.namespace)
                }
                "ServiceAccount" => {}
                // It means nothing there, and subjects are compared whole.
                _ => subject.namespace.clear(),
            }
        }
        Self { role: serde_json::from_value(read("roleRef")).unwrap_or_default(), subjects }
    }

    fn subject_for(&self, user: &UserInfo) -> Option<&Subject> {
        self.subjects.iter().find(|subject| match subject.kind.as_str() {
            "User" => subject.name == user.name,
            "Group" => user.in_group(&subject.name),
            "ServiceAccount" => {
                user.as_service_account() == Some((subject.namespace.as_str(), subject.name.as_str()))
            }
            _ => false,
        })
    }
}

/// The rules of a Role or ClusterRole object.
pub fn rules(object: &Value) -> Arc<[Rule]> {
    let rules = object.get("rules").cloned().unwrap_or_default();
    serde_json::from_value::<Vec<Rule>>(rules).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn index() -> Rbac {
        let mut rbac = Rbac::default();
        let rule =
            |verb: &str, resource: &str| json!({"verbs": [verb], "apiGroups": [""], "resources": [resource]});
        rbac.set(RbacKind::ClusterRole, "", "reader", Some(&json!({"rules": [rule("get", "pods")]})));
        rbac.set(RbacKind::Role, "dev", "writer", Some(&json!({"rules": [rule("create", "pods")]})));
        let binding = |kind: &str, role: &str, subjects: Value| json!({"roleRef": {"kind": kind, "name": role}, "subjects": subjects});
        let jane = json!([{"kind": "User", "name": "jane"}]);
        let robots = json!([{"kind": "ServiceAccount", "name": "robot"}]);
        rbac.set(RbacKind::RoleBinding, "dev", "jane-writes", Some(&binding("Role", "writer", jane.clone())));
        rbac.set(
            RbacKind::RoleBinding,
            "dev",
            "robot-reads",
            Some(&binding("ClusterRole", "reader", robots)),
        );
        rbac.set(RbacKind::ClusterRoleBinding, "", "gone", Some(&binding("ClusterRole", "gone", jane)));
        rbac
    }

    fn check(user: &UserInfo, action: Action<'_>, expect: Result<&str, &[&str]>) {
        let got = index().find(user, &action);
        let expect = expect.map(str::to_owned).map_err(|m| m.iter().map(|m| (*m).to_owned()).collect());
        assert_eq!(got, expect, "{action:?}");
    }

    #[test]
    fn bindings_grant_in_their_namespace_only() {
        let jane = UserInfo::new("jane", &[]);
        let robot = UserInfo::service_account("dev", "robot", "");
        let gone = &[r#"clusterrole.rbac.authorization.k8s.io "gone" not found"#][..];
        let writes = r#"RBAC: allowed by RoleBinding "jane-writes/dev" of Role "writer" to User "jane""#;
        check(&jane, Action::on("create", "", "pods", "dev", ""), Ok(writes));
        check(&jane, Action::on("create", "", "pods", "prod", ""), Err(gone));
        check(&jane, Action::on("create", "", "pods", "", ""), Err(gone));
        let reads = r#"RBAC: allowed by RoleBinding "robot-reads/dev" of ClusterRole "reader" to ServiceAccount "robot/dev""#;
        check(&robot, Action::on("get", "", "pods", "dev", "x"), Ok(reads));
        check(&robot, Action::on("get", "", "pods", "prod", "x"), Err(&[]));
    }
}
