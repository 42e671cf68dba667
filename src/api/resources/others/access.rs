//! Roles and their bindings.

use serde_json::Value;

use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{Check, FieldError, Path, check, check_at, dns1123_subdomain, path_segment_name};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Roles and ClusterRoles.
pub struct Role;

impl Strategy for Role {
    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (index, rule) in new.array_at("/rules").iter().enumerate() {
            let at = Path::new("rules").index(index);
            let empty = |field: &str| rule.array_at(&format!("/{field}")).is_empty();
            if empty("verbs") {
                errors.push(FieldError::required(at.child("verbs"), "verbs must contain at least one value"));
            }
            if !empty("nonResourceURLs") {
                if !new.namespace().is_empty() {
                    let why = "namespaced rules cannot apply to non-resource URLs";
                    errors.push(FieldError::invalid(
                        at.child("nonResourceURLs"),
                        rule["nonResourceURLs"].clone(),
                        why,
                    ));
                }
                if ["apiGroups", "resources", "resourceNames"].iter().any(|field| !empty(field)) {
                    let why = "rules cannot apply to both regular resources and non-resource URLs";
                    errors.push(FieldError::invalid(
                        at.child("nonResourceURLs"),
                        rule["nonResourceURLs"].clone(),
                        why,
                    ));
                }
                continue;
            }
            if empty("apiGroups") {
                let why = "resource rules must supply at least one api group";
                errors.push(FieldError::required(at.child("apiGroups"), why));
            }
            if empty("resources") {
                let why = "resource rules must supply at least one resource";
                errors.push(FieldError::required(at.child("resources"), why));
            }
        }
        errors
    }
}

/// RoleBindings and ClusterRoleBindings.
pub struct Binding;

impl Strategy for Binding {
    fn default(&self, binding: &mut Value) {
        binding.within("roleRef", |role| role.fill_text("apiGroup", RBAC));
        binding.each("subjects", |subject| {
            if matches!(subject.text("kind"), Some("User" | "Group")) {
                subject.fill_text("apiGroup", RBAC);
            }
        });
    }

    /// Rule: `ValidateRoleBinding`.
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let role = Path::new("roleRef");
        let group = new.str_at("/roleRef/apiGroup").unwrap_or_default();
        if group != RBAC {
            errors.push(FieldError::not_supported(role.child("apiGroup"), group, &[RBAC]));
        }
        let kind = new.str_at("/roleRef/kind").unwrap_or_default();
        let allowed: &[&str] =
            if new.namespace().is_empty() { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
        if !allowed.contains(&kind) {
            errors.push(FieldError::not_supported(role.child("kind"), kind, allowed));
        }
        errors.extend(check(new, "roleRef", |role| role.need_named("name", path_segment_name)));
        let namespaced = !new.namespace().is_empty();
        errors.extend(check_at(new, &Path::default(), |binding| {
            binding.each("subjects", |subject| one_subject(subject, namespaced));
        }));
        if old.is_some_and(|old| old["roleRef"] != new["roleRef"]) {
            errors.push(FieldError::invalid(&role, new["roleRef"].clone(), "cannot change roleRef"));
        }
        errors
    }
}

/// Rule: `ValidateRoleBindingSubject`.
fn one_subject(subject: &mut Check<'_, '_>, namespaced: bool) {
    let name = subject.need("name", "");
    match subject.text("kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                subject.follow("name", dns1123_subdomain(name));
            }
            if !subject.text("apiGroup").is_empty() {
                subject.one_of("apiGroup", &[""]);
            }
            if !namespaced {
                subject.need("namespace", "");
            }
        }
        "User" | "Group" => subject.one_of("apiGroup", &[RBAC]),
        _ => subject.one_of("kind", &["ServiceAccount", "User", "Group"]),
    }
}
