//! Which writes a webhook or a policy speaks of.

use std::sync::Arc;

use serde_json::Value;

use super::{Attributes, Operation};
use crate::index::Known;
use api::meta::ObjectExt;
use api::selector::LabelSelector;

const GROUP: &str = "admissionregistration.k8s.io";

/// Whether nothing but the built-in rules speaks of the write: the configuration of admission itself, so that a bad one can
/// always be taken away.
pub fn is_exempt(attributes: &Attributes<'_>) -> bool {
    attributes.group == GROUP
}

/// What a write is about, as rules and selectors look at it.
pub struct Subject<'a> {
    operation: &'static str,
    group: &'a str,
    version: &'a str,
    /// With the subresource after a slash, if there is one.
    resource: &'a str,
    subresource: &'a str,
    namespaced: bool,
    is_namespace: bool,
    name: &'a str,
    object: Option<&'a Value>,
    old: Option<&'a Value>,
    /// The namespace that it is in.
    namespace: Option<Arc<Value>>,
}

/// Upstream's word for the operation.
pub fn word(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

impl<'a> Subject<'a> {
    /// The namespace that the subject is in.
    pub fn namespace(&self) -> Option<&Arc<Value>> {
        self.namespace.as_ref()
    }

    pub fn new(attributes: &'a Attributes<'_>, known: &Known) -> Self {
        let is_namespace = attributes.group.is_empty() && attributes.resource == "namespaces";
        let namespace = (!attributes.namespace.is_empty() && !is_namespace)
            .then(|| known.namespace(attributes.namespace).cloned())
            .flatten();
        Self {
            operation: word(attributes.operation),
            group: attributes.group,
            version: &attributes.row.version,
            resource: attributes.resource,
            subresource: attributes.subresource,
            namespaced: attributes.row.namespaced,
            is_namespace,
            name: attributes.object_name(),
            object: attributes.object.as_ref(),
            old: attributes.old,
            namespace,
        }
    }
}

fn listed(rule: &Value, key: &str, wanted: &str) -> bool {
    rule.get(key).and_then(Value::as_array).into_iter().flatten().any(|item| item == "*" || item == wanted)
}

/// Whether one rule names the write. `equivalent`: in whatever version of the resource.
fn rule_matches(rule: &Value, subject: &Subject<'_>, equivalent: bool) -> bool {
    let scope = match rule.text("scope") {
        Some("Namespaced") => subject.namespaced && !subject.is_namespace,
        Some("Cluster") => !subject.namespaced || subject.is_namespace,
        _ => true,
    };
    let resource = rule.array_at("/resources").iter().filter_map(Value::as_str).any(|item| {
        let (resource, sub) = item.split_once('/').unwrap_or((item, ""));
        let sub_fits = match (item, sub) {
            ("*", _) => subject.subresource.is_empty(),
            (_, "*") => true,
            (_, sub) => sub == subject.subresource,
        };
        (resource == "*" || resource == subject.resource) && sub_fits
    });
    let names = rule.array_at("/resourceNames");
    scope
        && resource
        && listed(rule, "operations", subject.operation)
        && listed(rule, "apiGroups", subject.group)
        && (equivalent || listed(rule, "apiVersions", subject.version))
        && (names.is_empty() || names.iter().any(|name| name == subject.name))
}

fn selects(selector: &Value, object: &Value) -> bool {
    LabelSelector::from_value(selector).is_ok_and(|selector| selector.matches(|key| object.label(key)))
}

fn is_everything(selector: Option<&Value>) -> bool {
    selector.is_none_or(|selector| selector.is_null() || api::validate::is_empty_selector(selector))
}

fn selected(owner: &Value, subject: &Subject<'_>) -> bool {
    let namespaces = owner.get("namespaceSelector");
    let in_namespace = is_everything(namespaces) || {
        let selector = namespaces.unwrap_or(&Value::Null);
        if subject.is_namespace {
            subject.object.or(subject.old).is_some_and(|object| selects(selector, object))
        } else if subject.namespaced {
            subject.namespace.as_ref().is_some_and(|namespace| selects(selector, namespace))
        } else {
            true
        }
    };
    let objects = owner.get("objectSelector");
    let is_object = is_everything(objects) || {
        let selector = objects.unwrap_or(&Value::Null);
        [subject.object, subject.old].into_iter().flatten().any(|object| selects(selector, object))
    };
    in_namespace && is_object
}

/// Whether the resources that a policy or binding names are the subject's. Rule: `MatchResources`.
pub fn matches_resources(resources: &Value, subject: &Subject<'_>) -> bool {
    let equivalent = resources.text("matchPolicy") != Some("Exact");
    let named =
        |key: &str| resources.array_at(key).iter().any(|rule| rule_matches(rule, subject, equivalent));
    let rules = resources.array_at("/resourceRules");
    selected(resources, subject)
        && !named("/excludeResourceRules")
        && (rules.is_empty() || named("/resourceRules"))
}

/// Whether a webhook is to be asked.
pub fn matches(hook: &Value, subject: &Subject<'_>) -> bool {
    let equivalent = hook.text("matchPolicy") != Some("Exact");
    selected(hook, subject)
        && hook.array_at("/rules").iter().any(|rule| rule_matches(rule, subject, equivalent))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn subject<'a>(object: &'a Value, labels: &Value) -> Subject<'a> {
        Subject {
            operation: "CREATE",
            group: "apps",
            version: "v1",
            resource: "deployments",
            subresource: "",
            namespaced: true,
            is_namespace: false,
            name: "web",
            object: Some(object),
            old: None,
            namespace: Some(Arc::new(json!({"metadata": {"labels": labels}}))),
        }
    }

    #[test]
    fn rules_and_selectors() {
        let object = json!({"metadata": {"labels": {"app": "web"}}});
        let check = |extra: Value, expect: bool| {
            let mut hook = json!({"rules": [{"operations": ["CREATE"], "apiGroups": ["apps"], "apiVersions": ["v1"],
                "resources": ["deployments"], "scope": "*"}], "matchPolicy": "Exact"});
            json_patch::merge(&mut hook, &extra);
            assert_eq!(matches(&hook, &subject(&object, &json!({"team": "a"}))), expect, "{extra}");
        };
        let rule = |key: &str, value: Value| {
            let mut rule =
                json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
            rule[key] = value;
            json!({"rules": [rule]})
        };
        check(json!({}), true);
        check(rule("operations", json!(["UPDATE"])), false);
        check(rule("apiVersions", json!(["v2"])), false);
        check(rule("resources", json!(["deployments/*"])), true);
        check(rule("resources", json!(["deployments/scale"])), false);
        check(rule("scope", json!("Cluster")), false);
        check(rule("resourceNames", json!(["other"])), false);
        check(json!({"namespaceSelector": {"matchLabels": {"team": "a"}}}), true);
        check(json!({"namespaceSelector": {"matchLabels": {"team": "b"}}}), false);
        check(json!({"objectSelector": {"matchLabels": {"app": "db"}}}), false);
    }
}
