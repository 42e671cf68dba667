//! Webhook configurations and admission policies: the rules that other people add to admission.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::policy::{condition_problems, policy_problems};
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{
    Check, FieldError, Path, check, check_at, client_config, dns1035_label, dns1123_label, dns1123_subdomain,
    label_selector, qualified_name,
};

const FAILURES: &[&str] = &["Fail", "Ignore"];
const MATCHES: &[&str] = &["Equivalent", "Exact"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const MOST_CONDITIONS: usize = 64;

/// Mutating and validating webhook configurations.
pub struct Webhooks {
    pub mutating: bool,
}

impl Strategy for Webhooks {
    /// Rule: `SetDefaults_MutatingWebhook`, `SetDefaults_ValidatingWebhook`.
    fn default(&self, object: &mut Value) {
        object.each("webhooks", |hook| {
            hook.fill("failurePolicy", "Fail");
            hook.fill("matchPolicy", "Equivalent");
            hook.fill("namespaceSelector", json!({}));
            hook.fill("objectSelector", json!({}));
            hook.fill("timeoutSeconds", 10);
            if self.mutating {
                hook.fill("reinvocationPolicy", "Never");
            }
            hook.within("clientConfig", |client| {
                client.within("service", |service| service.fill("port", 443));
            });
            hook.each("rules", |rule| rule.fill("scope", "*"));
        });
    }

    fn desired_state_changed(&self, new: &Value, old: &Value) -> bool {
        new.get("webhooks") != old.get("webhooks")
    }

    /// Rule: `ValidateMutatingWebhookConfiguration`, `ValidateValidatingWebhookConfiguration`.
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut names = BTreeSet::new();
        let mut errors = check_at(new, &Path::default(), |configuration| {
            configuration.each("webhooks", |hook| {
                webhook(hook);
                if self.mutating {
                    hook.maybe_one_of("reinvocationPolicy", &["IfNeeded", "Never"]);
                }
                let name = hook.text("name");
                if !name.is_empty() && !names.insert(name) {
                    hook.duplicate("name");
                }
            });
        });
        errors.extend(condition_problems(new, old));
        errors
    }
}

fn webhook(hook: &mut Check<'_, '_>) {
    let name = hook.need("name", "");
    if !name.is_empty() {
        hook.named("name", dns1123_subdomain);
        if dns1123_subdomain(name).is_empty() && name.split('.').count() < 3 {
            hook.invalid("name", "should be a domain with at least three segments separated by dots");
        }
    }
    label_selector(hook, "namespaceSelector");
    label_selector(hook, "objectSelector");
    hook.need_one_of("sideEffects", &["None", "NoneOnDryRun"], "must specify one of None, NoneOnDryRun");
    if hook.int("timeoutSeconds").is_some_and(|seconds| !(1..=30).contains(&seconds)) {
        hook.invalid("timeoutSeconds", "the timeout value must be between 1 and 30 seconds");
    }
    hook.maybe_one_of("failurePolicy", FAILURES);
    hook.maybe_one_of("matchPolicy", MATCHES);
    review_versions(hook);
    hook.each("rules", |rule| match_rule(rule, true));
    client_config(hook);
    match_conditions(hook);
}

fn review_versions(hook: &mut Check<'_, '_>) {
    if hook.list("admissionReviewVersions").is_empty() {
        hook.required("admissionReviewVersions", "must specify one of v1, v1beta1");
        return;
    }
    let mut seen = BTreeSet::new();
    hook.each("admissionReviewVersions", |version| {
        let name = version.value.as_str().unwrap_or_default();
        if seen.insert(name) {
            version.follow_here(dns1035_label(name));
        } else {
            version.wrong("duplicate version");
        }
    });
    if !seen.contains("v1") && !seen.contains("v1beta1") {
        hook.invalid("admissionReviewVersions", "must include at least one of v1, v1beta1");
    }
}

/// Conditions in CEL; that they compile is checked where they are compiled, when admission takes them in.
fn match_conditions(owner: &mut Check<'_, '_>) {
    let count = owner.list("matchConditions").len();
    if count > MOST_CONDITIONS {
        owner.push(FieldError::too_many(owner.at("matchConditions"), count, MOST_CONDITIONS));
    }
    let mut names = BTreeSet::new();
    owner.each("matchConditions", |condition| {
        condition.need("expression", "");
        let name = condition.need("name", "");
        condition.named("name", qualified_name);
        if !name.is_empty() && !names.insert(name) {
            condition.duplicate("name");
        }
    });
}

/// Rule: `validateRuleWithOperations`, `validateRule`.
fn match_rule(rule: &mut Check<'_, '_>, subresources: bool) {
    const NEEDED: [(&str, &str); 4] = [
        ("operations", "operations"),
        ("apiGroups", "API groups"),
        ("apiVersions", "API versions"),
        ("resources", "resources"),
    ];
    for (key, word) in NEEDED {
        let list = rule.list(key);
        if list.is_empty() {
            rule.required(key, "");
        }
        if list.len() > 1 && list.iter().any(|item| item == "*") {
            let tail = if key == "resources" { " without subresources" } else { "" };
            let bare = |item: &Value| item.as_str().is_some_and(|item| !item.contains('/'));
            if key != "resources" || list.iter().filter(|item| bare(item)).count() > 1 {
                rule.invalid(key, format!("if '*' is present, must not specify other {word}{tail}"));
            }
        }
    }
    rule.each("operations", |operation| {
        let name = operation.value.as_str().unwrap_or_default();
        if !OPERATIONS.contains(&name) {
            operation.push(FieldError::not_supported(&operation.path, name, OPERATIONS));
        }
    });
    for key in ["apiVersions", "resources"] {
        rule.each(key, |item| {
            let text = item.value.as_str().unwrap_or_default();
            if text.is_empty() {
                item.push(FieldError::required(&item.path, ""));
            } else if key == "resources" && !subresources && text.contains('/') {
                item.wrong("must not specify subresources");
            }
        });
    }
    let all = rule.list("resources");
    if all.len() > 1 && all.iter().any(|item| item == "*/*") {
        rule.invalid("resources", "if '*/*' is present, must not specify other resources");
    }
    rule.maybe_one_of("scope", SCOPES);
}

/// What a policy or binding speaks of.
fn match_resources(owner: &mut Check<'_, '_>, key: &str) {
    owner.within(key, |resources| {
        label_selector(resources, "namespaceSelector");
        label_selector(resources, "objectSelector");
        resources.each("resourceRules", |rule| match_rule(rule, true));
        resources.each("excludeResourceRules", |rule| match_rule(rule, true));
        resources.maybe_one_of("matchPolicy", MATCHES);
    });
}

fn default_match(owner: &mut Value, key: &str) {
    owner.within(key, |resources| {
        resources.fill("matchPolicy", "Equivalent");
        resources.fill("namespaceSelector", json!({}));
        resources.fill("objectSelector", json!({}));
        for rules in ["resourceRules", "excludeResourceRules"] {
            resources.each(rules, |rule| rule.fill("scope", "*"));
        }
    });
}

/// ValidatingAdmissionPolicies and MutatingAdmissionPolicies.
pub struct AdmissionPolicy {
    pub mutating: bool,
}

impl Strategy for AdmissionPolicy {
    fn default(&self, policy: &mut Value) {
        let mutating = self.mutating;
        policy.within("spec", |spec| {
            spec.fill("failurePolicy", "Fail");
            default_match(spec, "matchConstraints");
            if mutating {
                spec.fill_text("reinvocationPolicy", "Never");
            }
        });
    }

    /// Rule: `validateValidatingAdmissionPolicySpec`, `validateMutatingAdmissionPolicySpec`.
    fn validate(&self, new: &Value, old: Option<&Value>) -> Vec<FieldError> {
        let mut errors = check(new, "spec", |spec| {
            spec.need_one_of("failurePolicy", FAILURES, "");
            spec.within("paramKind", |kind| {
                kind.need("apiVersion", "");
                kind.need("kind", "");
            });
            if !spec.has("matchConstraints") {
                spec.required("matchConstraints", "");
            }
            spec.within("matchConstraints", |constraints| {
                if constraints.list("resourceRules").is_empty() {
                    constraints.required("resourceRules", "");
                }
            });
            match_resources(spec, "matchConstraints");
            match_conditions(spec);
            let mut names = BTreeSet::new();
            spec.each("variables", |variable| {
                let name = variable.need("name", "");
                if !name.is_empty() && !is_identifier(name) {
                    variable.invalid("name", "name is not a valid CEL identifier");
                } else if !name.is_empty() && !names.insert(name) {
                    variable.duplicate("name");
                }
                variable.need("expression", "expression is not specified");
            });
            if self.mutating { mutations(spec) } else { validations(spec) }
        });
        errors.extend(policy_problems(new, old, self.mutating));
        errors
    }
}

fn is_identifier(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

fn validations(spec: &mut Check<'_, '_>) {
    const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
    if spec.list("validations").is_empty() && spec.list("auditAnnotations").is_empty() {
        let why = "validations or auditAnnotations must contain at least one item";
        spec.required("validations", why);
        spec.required("auditAnnotations", why);
    }
    spec.each("validations", |validation| {
        if validation.text("expression").trim().is_empty() {
            validation.required("expression", "expression is not specified");
        }
        let message = validation.text("message");
        if validation.has("message") && message.trim().is_empty() {
            validation.invalid("message", "message must be non-empty if specified");
        } else if message.contains('\n') {
            validation.invalid("message", "message must not contain line breaks");
        }
        if validation.has("messageExpression") && validation.text("messageExpression").trim().is_empty() {
            validation.invalid("messageExpression", "must be non-empty if specified");
        }
        validation.maybe_one_of("reason", REASONS);
    });
    let mut keys = BTreeSet::new();
    spec.each("auditAnnotations", |annotation| {
        let key = annotation.need("key", "");
        if !key.is_empty() {
            annotation.named("key", qualified_name);
            if !keys.insert(key) {
                annotation.duplicate("key");
            }
        }
        annotation.need("valueExpression", "valueExpression is not specified");
    });
}

fn mutations(spec: &mut Check<'_, '_>) {
    if spec.list("mutations").is_empty() {
        spec.required("mutations", "mutations must contain at least one item");
    }
    spec.maybe_one_of("reinvocationPolicy", &["IfNeeded", "Never"]);
    spec.each("mutations", |mutation| {
        mutation.need_one_of("patchType", &["ApplyConfiguration", "JSONPatch"], "");
        for (kind, key) in [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")] {
            if mutation.text("patchType") == kind {
                if !mutation.has(key) {
                    mutation.required(key, &format!("must be specified when patchType is {kind}"));
                }
                mutation.within(key, |body| {
                    body.need("expression", "expression is not specified");
                });
            } else if mutation.has(key) {
                mutation.invalid(
                    key,
                    format!("must not be specified when patchType is {}", mutation.text("patchType")),
                );
            }
        }
    });
}

/// ValidatingAdmissionPolicyBindings and MutatingAdmissionPolicyBindings.
pub struct PolicyBinding {
    pub mutating: bool,
}

impl Strategy for PolicyBinding {
    fn default(&self, binding: &mut Value) {
        binding.within("spec", |spec| default_match(spec, "matchResources"));
    }

    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];
        check(new, "spec", |spec| {
            spec.need_named("policyName", dns1123_subdomain);
            spec.within("paramRef", |reference| {
                match (reference.has("name"), reference.has("selector")) {
                    (false, false) => {
                        let why = "one of name or selector must be specified";
                        reference.push(FieldError::required(&reference.path, why));
                    }
                    (true, true) => reference.forbidden("name", "name and selector are mutually exclusive"),
                    _ => {}
                }
                label_selector(reference, "selector");
                reference.named("namespace", dns1123_label);
                reference.need_one_of("parameterNotFoundAction", &["Deny", "Allow"], "");
            });
            match_resources(spec, "matchResources");
            if self.mutating {
                return;
            }
            if spec.list("validationActions").is_empty() {
                spec.required("validationActions", "");
            }
            let mut seen = BTreeSet::new();
            spec.each("validationActions", |action| {
                let name = action.value.as_str().unwrap_or_default();
                if !ACTIONS.contains(&name) {
                    action.push(FieldError::not_supported(&action.path, name, ACTIONS));
                }
                if !seen.insert(name) {
                    action.push(FieldError::duplicate(&action.path, name));
                }
            });
            if seen.contains("Deny") && seen.contains("Warn") {
                let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
                spec.invalid("validationActions", why);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::strategy::testing::check;

    fn hook(extra: Value) -> Value {
        let mut hook = json!({"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://h/p"}, "rules": [{"operations": ["CREATE"], "apiGroups": [""],
            "apiVersions": ["v1"], "resources": ["pods"]}]});
        json_patch::merge(&mut hook, &extra);
        json!({"webhooks": [hook]})
    }

    #[test]
    fn a_service_is_called_at_its_root_unless_a_path_says_otherwise() {
        let at = |path: &str| {
            let service = json!({"namespace": "n", "name": "s", "path": path});
            hook(json!({"clientConfig": {"url": null, "service": service}}))
        };
        check(&Webhooks { mutating: false }, at(""), &[]);
        check(&Webhooks { mutating: false }, at("/a"), &[]);
        let why = "webhooks[0].clientConfig.service.path: Invalid value: \"a\": must start with a '/'";
        check(&Webhooks { mutating: false }, at("a"), &[why]);
    }

    #[test]
    fn webhooks() {
        let validating = Webhooks { mutating: false };
        let check = |extra: Value, expect: &[&str]| check(&validating, hook(extra), expect);
        check(json!({}), &[]);
        check(
            json!({"name": "short"}),
            &[
                "webhooks[0].name: Invalid value: \"short\": should be a domain with at least three segments separated by dots",
            ],
        );
        check(
            json!({"sideEffects": null}),
            &["webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"],
        );
        check(
            json!({"sideEffects": "Some"}),
            &[
                "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            ],
        );
        check(
            json!({"timeoutSeconds": 31}),
            &[
                "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ],
        );
        check(
            json!({"failurePolicy": "Odd"}),
            &[
                "webhooks[0].failurePolicy: Unsupported value: \"Odd\": supported values: \"Fail\", \"Ignore\"",
            ],
        );
        check(
            json!({"admissionReviewVersions": []}),
            &["webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1"],
        );
        check(
            json!({"admissionReviewVersions": ["v2"]}),
            &[
                "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
            ],
        );
        check(
            json!({"clientConfig": null}),
            &["webhooks[0].clientConfig: Required value: exactly one of url or service is required"],
        );
        check(
            json!({"clientConfig": {"url": "http://h"}}),
            &[
                "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ],
        );
        check(
            json!({"rules": [{"operations": ["*", "CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}),
            &[
                "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
            ],
        );
        check(
            json!({"rules": [{"operations": ["PUT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": []}]}),
            &[
                "webhooks[0].rules[0].resources: Required value",
                "webhooks[0].rules[0].operations[0]: Unsupported value: \"PUT\": supported values: \"*\", \"CONNECT\", \"CREATE\", \"DELETE\", \"UPDATE\"",
            ],
        );
    }

    #[test]
    fn policies_and_bindings() {
        let policy = |extra: Value| {
            let mut spec = json!({"matchConstraints": {"resourceRules": [{"operations": ["CREATE"], "apiGroups": [""],
                "apiVersions": ["v1"], "resources": ["pods"]}]}, "validations": [{"expression": "true"}]});
            json_patch::merge(&mut spec, &extra);
            json!({"spec": spec})
        };
        let validating = AdmissionPolicy { mutating: false };
        check(&validating, policy(json!({})), &[]);
        check(
            &validating,
            policy(json!({"matchConstraints": null})),
            &["spec.matchConstraints: Required value"],
        );
        check(
            &validating,
            policy(json!({"validations": [{}]})),
            &["spec.validations[0].expression: Required value: expression is not specified"],
        );
        check(
            &validating,
            policy(json!({"validations": [{"expression": "true", "reason": "Odd"}]})),
            &[
                "spec.validations[0].reason: Unsupported value: \"Odd\": supported values: \"Forbidden\", \"Invalid\", \"RequestEntityTooLarge\", \"Unauthorized\"",
            ],
        );
        check(
            &validating,
            policy(json!({"variables": [{"name": "1a", "expression": "1"}]})),
            &["spec.variables[0].name: Invalid value: \"1a\": name is not a valid CEL identifier"],
        );
        let binding = PolicyBinding { mutating: false };
        check(&binding, json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}}), &[]);
        check(&binding, json!({"spec": {"policyName": "p"}}), &["spec.validationActions: Required value"]);
        check(
            &binding,
            json!({"spec": {"policyName": "p", "validationActions": ["Deny", "Odd"]}}),
            &[
                "spec.validationActions[1]: Unsupported value: \"Odd\": supported values: \"Audit\", \"Deny\", \"Warn\"",
            ],
        );
        check(
            &binding,
            json!({"spec": {"policyName": "p", "validationActions": ["Audit"], "paramRef": {"parameterNotFoundAction": "Deny"}}}),
            &["spec.paramRef: Required value: one of name or selector must be specified"],
        );
    }
}
