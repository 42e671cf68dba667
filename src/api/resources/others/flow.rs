//! FlowSchemas and PriorityLevelConfigurations: who waits for whom.

use serde_json::Value;

use crate::meta::ObjectExt;
use crate::resources::Strategy;
use crate::resources::fill::Fill;
use crate::validate::{Check, FieldError, check, dns1123_subdomain};

const VERBS: &[&str] =
    &["*", "create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub struct FlowSchema;

impl Strategy for FlowSchema {
    fn default(&self, schema: &mut Value) {
        schema.open("spec").fill("matchingPrecedence", 1000);
    }

    /// Rule: `ValidateFlowSchemaSpec`.
    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        check(new, "spec", |spec| {
            match spec.int("matchingPrecedence").unwrap_or(0) {
                number if number <= 0 => spec.invalid("matchingPrecedence", "must be a positive value"),
                number if number > 10_000 => {
                    spec.invalid("matchingPrecedence", "must not be greater than 10000");
                }
                1 if new.name() != "exempt" => {
                    let why = "only the schema named 'exempt' may have matchingPrecedence 1";
                    spec.invalid("matchingPrecedence", why);
                }
                _ => {}
            }
            spec.within("distinguisherMethod", |method| method.one_of("type", &["ByNamespace", "ByUser"]));
            let mut level = spec.child("priorityLevelConfiguration");
            if !level.need("name", "must reference a priority level").is_empty() {
                level.named("name", dns1123_subdomain);
            }
            spec.each("rules", rule);
        })
    }
}

fn rule(rule: &mut Check<'_, '_>) {
    if rule.list("subjects").is_empty() {
        rule.required("subjects", "subjects must contain at least one value");
    }
    rule.each("subjects", |subject| {
        let member = match subject.text("kind") {
            "User" => "user",
            "Group" => "group",
            "ServiceAccount" => "serviceAccount",
            _ => {
                subject.one_of("kind", &["Group", "ServiceAccount", "User"]);
                return;
            }
        };
        for (other, kind) in [("user", "User"), ("group", "Group"), ("serviceAccount", "ServiceAccount")] {
            if other != member && subject.has(other) {
                subject.forbidden(other, format!("{other} is forbidden when subject kind is not '{kind}'"));
            }
        }
        if !subject.has(member) {
            let why = format!("{member} is required when subject kind is '{}'", subject.text("kind"));
            subject.required(member, &why);
        }
        subject.within(member, |one| {
            one.need("name", "");
            if member == "serviceAccount" {
                one.need("namespace", "must specify namespace for service account");
            }
        });
    });
    if rule.list("resourceRules").is_empty() && rule.list("nonResourceRules").is_empty() {
        let why = "at least one of resourceRules and nonResourceRules has to be non-empty";
        rule.push(FieldError::required(&rule.path, why));
    }
    rule.each("resourceRules", |rule| {
        verbs(rule);
        some(rule, "apiGroups", "resource rules must supply at least one api group", "api groups");
        some(rule, "resources", "resource rules must supply at least one resource", "resources");
        if rule.list("namespaces").is_empty() && !rule.flag("clusterScope") {
            let why = "resource rules that are not cluster scoped must supply at least one namespace";
            rule.required("namespaces", why);
        }
    });
    rule.each("nonResourceRules", |rule| {
        verbs(rule);
        let why = "nonResourceURLs must contain at least one value";
        some(rule, "nonResourceURLs", why, "non-resource URLs");
    });
}

fn verbs(rule: &mut Check<'_, '_>) {
    some(rule, "verbs", "verbs must contain at least one value", "verbs");
    if rule.texts("verbs").any(|verb| !VERBS.contains(&verb)) {
        let (at, shown) = (rule.at("verbs"), rule.get("verbs").clone());
        rule.push(FieldError::not_supported(at, shown, VERBS));
    }
}

fn some(rule: &mut Check<'_, '_>, key: &str, missing: &str, word: &str) {
    let list = rule.list(key);
    if list.is_empty() {
        rule.required(key, missing);
    } else if list.len() > 1 && list.iter().any(|item| item == "*") {
        rule.invalid(key, format!("if '*' is present, must not specify other {word}"));
    }
}

pub struct PriorityLevel;

impl Strategy for PriorityLevel {
    fn default(&self, level: &mut Value) {
        let spec = level.open("spec");
        spec.within("limited", |limited| {
            limited.fill("nominalConcurrencyShares", 30);
            limited.fill("lendablePercent", 0);
            limited.within("limitResponse", |response| {
                response.within("queuing", |queuing| {
                    queuing.fill("handSize", 8);
                    queuing.fill("queues", 64);
                    queuing.fill("queueLengthLimit", 50);
                });
            });
        });
        spec.within("exempt", |exempt| {
            exempt.fill("nominalConcurrencyShares", 0);
            exempt.fill("lendablePercent", 0);
        });
    }

    /// Rule: `ValidatePriorityLevelConfigurationSpec`.
    fn validate(&self, new: &Value, _old: Option<&Value>) -> Vec<FieldError> {
        check(new, "spec", |spec| {
            let kind = spec.text("type");
            if (new.name() == "exempt") != (kind == "Exempt") {
                spec.invalid("type", "type must be 'Exempt' if and only if name is 'exempt'");
            }
            match kind {
                "Exempt" if spec.has("limited") => {
                    spec.forbidden("limited", "must be nil if the type is not Limited");
                }
                "Limited" if spec.has("exempt") => {
                    spec.forbidden("exempt", "must be nil if the type is Limited");
                }
                "Limited" if !spec.has("limited") => {
                    spec.required("limited", "must not be empty when type is Limited");
                }
                "Limited" => spec.within("limited", limited),
                "Exempt" => {}
                _ => spec.one_of("type", &["Exempt", "Limited"]),
            }
        })
    }
}

fn limited(limited: &mut Check<'_, '_>) {
    if limited.int("nominalConcurrencyShares").unwrap_or(0) < 0 {
        limited.invalid("nominalConcurrencyShares", "must be a non-negative integer");
    }
    limited.in_range("lendablePercent", 0, 100);
    let mut response = limited.child("limitResponse");
    match response.text("type") {
        "" => response.required("type", "must not be empty"),
        "Reject" if response.has("queuing") => {
            response.forbidden("queuing", "must be nil if limited.limitResponse.type is not Limited");
        }
        "Queue" if !response.has("queuing") => {
            response.required("queuing", "must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => response.within("queuing", |queuing| {
            for key in ["queueLengthLimit", "queues", "handSize"] {
                if queuing.int(key).unwrap_or(0) <= 0 {
                    queuing.invalid(key, "must be positive");
                }
            }
            let (hand, queues) = (queuing.int("handSize").unwrap_or(0), queuing.int("queues").unwrap_or(0));
            if hand > queues {
                let why = format!("should not be greater than queues ({queues})");
                queuing.invalid("handSize", why);
            }
        }),
        "Reject" => {}
        _ => response.one_of("type", &["Queue", "Reject"]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::strategy::testing;

    fn check(strategy: &dyn Strategy, spec: Value, expect: &[&str]) {
        testing::check(strategy, json!({"metadata": {"name": "n"}, "spec": spec}), expect);
    }

    #[test]
    fn flow_schemas() {
        check(&FlowSchema, json!({"priorityLevelConfiguration": {"name": "p"}}), &[]);
        check(
            &FlowSchema,
            json!({}),
            &["spec.priorityLevelConfiguration.name: Required value: must reference a priority level"],
        );
        check(
            &FlowSchema,
            json!({"matchingPrecedence": 1, "priorityLevelConfiguration": {"name": "p"}}),
            &[
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
            ],
        );
        check(
            &FlowSchema,
            json!({"priorityLevelConfiguration": {"name": "p"}, "rules": [{"subjects": [{"kind": "User"}]}]}),
            &[
                "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            ],
        );
    }

    #[test]
    fn priority_levels() {
        check(
            &PriorityLevel,
            json!({"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}),
            &[],
        );
        check(
            &PriorityLevel,
            json!({"type": "Exempt"}),
            &["spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if and only if name is 'exempt'"],
        );
        check(
            &PriorityLevel,
            json!({"type": "Limited"}),
            &["spec.limited: Required value: must not be empty when type is Limited"],
        );
        check(
            &PriorityLevel,
            json!({"type": "Limited", "limited": {"limitResponse": {"type": "Queue", "queuing": {"queues": 2, "handSize": 3}}}}),
            &[
                "spec.limited.limitResponse.queuing.handSize: Invalid value: 3: should not be greater than queues (2)",
            ],
        );
    }
}
