//! Roles and their bindings, and requests for certificates.

use base64::Engine as _;
use serde_json::Value;

use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{
    Check, FieldError, Path, check, check_at, dns1123_label, dns1123_subdomain, path_segment_name,
};

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

/// Of requests by a version of the API that is gone.
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// What is wrong with the name of a signer. Rule: `ValidateSignerName`.
fn signer(name: &str, path: &Path) -> Vec<FieldError> {
    if name.is_empty() {
        return Vec::new();
    }
    if name == LEGACY_SIGNER {
        let why = "the legacy signerName is not allowed via this API version";
        return vec![FieldError::invalid(path, name, why)];
    }
    let Some((domain, rest)) = name.split_once('/').filter(|(_, rest)| !rest.contains('/')) else {
        let why = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        return vec![FieldError::invalid(path, name, why)];
    };
    let mut errors = Vec::new();
    let mut labels = |text: &str, rule: fn(&str) -> Vec<String>| {
        for label in text.split('.') {
            let wrong = rule(label).into_iter().map(|why| format!("validating label {label:?}: {why}"));
            errors.extend(wrong.map(|why| FieldError::invalid(path, text, why)));
        }
    };
    labels(domain, dns1123_label);
    labels(rest, dns1123_subdomain);
    if !domain.contains('.') {
        let why = "should be a domain with at least two segments separated by dots";
        errors.push(FieldError::invalid(path, domain, why));
    }
    errors
}

fn usages(said: &[Value], path: &Path) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (at, usage) in said.iter().enumerate() {
        let text = usage.as_str().unwrap_or_default();
        if !USAGES.contains(&text) {
            errors.push(FieldError::not_supported(path.index(at), text, &USAGES));
        }
        if said[..at].contains(usage) {
            errors.push(FieldError::duplicate(path.index(at), text));
        }
    }
    errors
}

/// CertificateSigningRequests: what was asked for never changes.
pub struct SigningRequest;

impl Strategy for SigningRequest {
    /// Rule: whether a request is approved or denied is not the signer's to say: those conditions stay as stored.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        let decides = |condition: &&Value| matches!(condition.text("type"), Some("Approved" | "Denied"));
        let kept: Vec<Value> = old.array_at("/status/conditions").iter().filter(decides).cloned().collect();
        let sent = new.array_at("/status/conditions").iter().filter(|condition| !decides(condition)).cloned();
        let conditions: Vec<Value> = kept.into_iter().chain(sent).collect();
        if !conditions.is_empty() || new.pointer("/status/conditions").is_some() {
            new.open("status").put("conditions", conditions);
        }
    }

    /// A certificate that is there is one.
    fn validate_status(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let certificate = new["status"].text("certificate").unwrap_or_default();
        if !certificate.is_empty() && certificate != old["status"].text("certificate").unwrap_or_default() {
            let pem = base64::prelude::BASE64_STANDARD.decode(certificate).unwrap_or_default();
            let block = b"-----BEGIN CERTIFICATE-----";
            if !pem.windows(block.len()).any(|part| part == block) {
                let why = "must contain at least one CERTIFICATE PEM block";
                errors.push(FieldError::invalid("status.certificate", "<certificate data>", why));
            }
        }
        errors
    }

    fn prepare_update(&self, new: &mut Value, old: &Value) {
        if let Some(spec) = old.get("spec") {
            new.put("spec", spec.clone());
        }
    }

    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let path = Path::new("spec");
        let mut errors = Vec::new();
        // What is asked for never changes: what stands was good when it was asked.
        if old.is_none() {
            errors.extend(signer(
                new.str_at("/spec/signerName").unwrap_or_default(),
                &path.child("signerName"),
            ));
            errors.extend(usages(new.array_at("/spec/usages"), &path.child("usages")));
        }
        for field in ["request", "signerName"] {
            if new["spec"].text(field).unwrap_or_default().is_empty() {
                errors.push(FieldError::required(path.child(field), ""));
            }
        }
        if new.array_at("/spec/usages").is_empty() {
            errors.push(FieldError::required(path.child("usages"), "usages must be specified"));
        }
        if new.int_at("/spec/expirationSeconds").is_some_and(|seconds| seconds < 600) {
            let why = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::invalid(
                path.child("expirationSeconds"),
                new["spec"]["expirationSeconds"].clone(),
                why,
            ));
        }
        errors
    }

    fn selectable_fields(&self, request: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", request.str_at("/spec/signerName").unwrap_or_default().to_owned())]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_names_a_signer_and_usages_that_there_are() {
        let case = |signer: &str, usages: Value, expect: &[&str]| {
            let request = json!({"spec": {"request": "x", "signerName": signer, "usages": usages}});
            let errors = SigningRequest.validate(&request, None);
            let said: Vec<String> =
                errors.iter().map(|e| format!("{} {}", e.field, e.kind.cause())).collect();
            assert_eq!(said, expect, "{errors:?}");
            assert_eq!(SigningRequest.validate(&request, Some(&request)).len(), 0, "it stands");
        };
        case("example.com/a.b", json!(["client auth"]), &[]);
        case("kubernetes.io/legacy-unknown", json!(["client auth"]), &["spec.signerName FieldValueInvalid"]);
        case("example", json!(["client auth"]), &["spec.signerName FieldValueInvalid"]);
        case("com/a", json!(["client auth"]), &["spec.signerName FieldValueInvalid"]);
        case("EX.com/a", json!(["client auth"]), &["spec.signerName FieldValueInvalid"]);
        case(
            "example.com/a",
            json!(["any", "odd", "any"]),
            &["spec.usages[1] FieldValueNotSupported", "spec.usages[2] FieldValueDuplicate"],
        );
    }
}
