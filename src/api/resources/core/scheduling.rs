//! Where a Pod may run: node selectors, affinity, spreading, tolerations, gates.

use std::collections::BTreeSet;

use crate::validate::{
    Check, FieldError, dns1123_label, label_selector, label_value, labels_errors, qualified_name,
};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Everything about placement in a Pod's spec.
pub fn validate(spec: &mut Check<'_, '_>) {
    let errors = labels_errors(Some(spec.get("nodeSelector")), &spec.at("nodeSelector"));
    spec.extend(errors);
    spec.within("affinity", |affinity| {
        affinity.within("nodeAffinity", node_affinity);
        affinity.within("podAffinity", pod_affinity);
        affinity.within("podAntiAffinity", pod_affinity);
    });
    spec.each("tolerations", toleration);
    spread(spec);
    let mut gates = BTreeSet::new();
    spec.each("schedulingGates", |gate| {
        let name = gate.text("name");
        gate.follow("name", qualified_name(name));
        if !gates.insert(name) {
            gate.push(FieldError::duplicate(&gate.path, name));
        }
    });
    if !spec.list("schedulingGates").is_empty() && !spec.text("nodeName").is_empty() {
        spec.forbidden("nodeName", "cannot be set until all schedulingGates have been cleared");
    }
}

/// Rule: `ValidateNodeSelector`.
pub fn node_selector(selector: &mut Check<'_, '_>) {
    if selector.list("nodeSelectorTerms").is_empty() {
        selector.required("nodeSelectorTerms", "must have at least one node selector term");
    }
    selector.each("nodeSelectorTerms", node_term);
}

fn node_term(term: &mut Check<'_, '_>) {
    term.each("matchExpressions", |expression| {
        let values = expression.list("values").len();
        match expression.text("operator") {
            "In" | "NotIn" if values == 0 => {
                expression.required("values", "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if values > 0 => {
                let why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                expression.forbidden("values", why);
            }
            "Gt" | "Lt" if values != 1 => {
                let why = "must be specified single value when `operator` is 'Lt' or 'Gt'";
                expression.required("values", why);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            _ => expression.invalid("operator", "not a valid selector operator"),
        }
        expression.follow("key", qualified_name(expression.text("key")));
        expression.each("values", |value| {
            value.follow_here(label_value(value.value.as_str().unwrap_or_default()));
        });
    });
    term.each("matchFields", |field| {
        match field.text("operator") {
            "In" | "NotIn" if field.list("values").len() != 1 => {
                let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                field.required("values", why);
            }
            "In" | "NotIn" => {}
            _ => field.invalid("operator", "not a valid selector operator"),
        }
        if field.text("key") != "metadata.name" {
            field.invalid("key", "not a valid field selector key");
        }
    });
}

fn weight(term: &mut Check<'_, '_>) {
    if !(1..=100).contains(&term.int("weight").unwrap_or(0)) {
        let shown = term.int("weight").unwrap_or(0);
        term.push(FieldError::invalid(term.at("weight"), shown, "must be in the range 1-100"));
    }
}

fn node_affinity(affinity: &mut Check<'_, '_>) {
    affinity.within(REQUIRED, node_selector);
    affinity.each(PREFERRED, |term| {
        weight(term);
        node_term(&mut term.child("preference"));
    });
}

fn pod_affinity(affinity: &mut Check<'_, '_>) {
    affinity.each(REQUIRED, pod_term);
    affinity.each(PREFERRED, |term| {
        weight(term);
        pod_term(&mut term.child("podAffinityTerm"));
    });
}

fn pod_term(term: &mut Check<'_, '_>) {
    label_selector(term, "labelSelector");
    label_selector(term, "namespaceSelector");
    for name in term.texts("namespaces") {
        for why in dns1123_label(name) {
            term.push(FieldError::invalid(term.at("namespace"), name, why));
        }
    }
    label_keys(term, &["matchLabelKeys", "mismatchLabelKeys"]);
    let key = term.need("topologyKey", "can not be empty");
    for why in qualified_name(key) {
        term.push(FieldError::invalid(term.at("topologyKey"), key, why));
    }
}

/// Keys whose values are taken from the Pod: they need a selector, and must not be in it.
fn label_keys(term: &mut Check<'_, '_>, fields: &[&str]) {
    for field in fields {
        let keys = term.list(field);
        if keys.is_empty() {
            continue;
        }
        if !term.has("labelSelector") {
            term.forbidden(field, "must not be specified when labelSelector is not set");
        }
        term.each(field, |key| key.follow_here(qualified_name(key.value.as_str().unwrap_or_default())));
    }
}

/// Rule: `validateTopologySpreadConstraints`.
fn spread(spec: &mut Check<'_, '_>) {
    let mut seen = BTreeSet::new();
    spec.each("topologySpreadConstraints", |constraint| {
        let skew = constraint.int("maxSkew").unwrap_or(0);
        if skew <= 0 {
            let at = constraint.at("maxSkew");
            constraint.push(FieldError::invalid(at, skew, "must be greater than zero"));
        }
        if !constraint.need("topologyKey", "can not be empty").is_empty() {
            constraint.named("topologyKey", qualified_name);
        }
        constraint.one_of("whenUnsatisfiable", &["DoNotSchedule", "ScheduleAnyway"]);
        let (key, when) = (constraint.text("topologyKey"), constraint.text("whenUnsatisfiable"));
        if !seen.insert((key, when)) {
            let at = constraint.at("{topologyKey, whenUnsatisfiable}");
            constraint.push(FieldError::duplicate(at, format!("{{{key}, {when}}}")));
        }
        if let Some(domains) = constraint.int("minDomains") {
            if domains <= 0 {
                constraint.invalid("minDomains", "must be greater than zero");
            }
            if when != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {when}");
                constraint.invalid("minDomains", why);
            }
        }
        for policy in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            constraint.maybe_one_of(policy, &["Honor", "Ignore"]);
        }
        label_selector(constraint, "labelSelector");
        label_keys(constraint, &["matchLabelKeys"]);
    });
}

/// Rule: `ValidateTolerations`.
pub fn toleration(toleration: &mut Check<'_, '_>) {
    let (key, operator) = (toleration.text("key"), toleration.text("operator"));
    let effect = toleration.text("effect");
    toleration.named("key", qualified_name);
    if key.is_empty() && operator != "Exists" {
        let why =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        toleration.push(FieldError::invalid(toleration.at("operator"), operator, why));
    }
    if toleration.has("tolerationSeconds") && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        toleration.push(FieldError::invalid(toleration.at("effect"), effect, why));
    }
    let value = toleration.text("value");
    match operator {
        "" | "Equal" => {
            let wrong = label_value(value);
            if !wrong.is_empty() {
                let at = toleration.at("operator");
                toleration.push(FieldError::invalid(at, value, wrong.join(";")));
            }
        }
        "Exists" if !value.is_empty() => {
            let (at, shown) = (toleration.at("operator"), toleration.value.clone());
            let why = "value must be empty when `operator` is 'Exists'";
            toleration.push(FieldError::invalid(at, shown, why));
        }
        "Exists" => {}
        _ => toleration.one_of("operator", &["Equal", "Exists"]),
    }
    toleration.maybe_one_of("effect", EFFECTS);
}

/// A taint of a node. Rule: `validateNodeTaints`.
pub fn taint(taint: &mut Check<'_, '_>) {
    taint.follow("key", qualified_name(taint.text("key")));
    taint.follow("value", label_value(taint.text("value")));
    taint.need_one_of("effect", EFFECTS, "");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::validate::{Path, check_at};

    fn check(spec: Value, expect: &[&str]) {
        let errors = check_at(&spec, &Path::new("spec"), validate);
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect, "{spec}");
    }

    #[test]
    fn affinity_to_nodes() {
        let at = "spec.affinity.nodeAffinity";
        let affinity = |affinity: Value| json!({"affinity": {"nodeAffinity": affinity}});
        check(
            affinity(json!({REQUIRED: {"nodeSelectorTerms": []}})),
            &[&format!(
                "{at}.{REQUIRED}.nodeSelectorTerms: Required value: must have at least one node selector term"
            )],
        );
        let term = |expression: Value| {
            affinity(json!({REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}))
        };
        let at_term = format!("{at}.{REQUIRED}.nodeSelectorTerms[0].matchExpressions[0]");
        check(term(json!({"key": "a", "operator": "In", "values": ["b"]})), &[]);
        check(
            term(json!({"key": "a", "operator": "In"})),
            &[&format!(
                "{at_term}.values: Required value: must be specified when `operator` is 'In' or 'NotIn'"
            )],
        );
        check(
            term(json!({"key": "a", "operator": "Gt", "values": ["1", "2"]})),
            &[&format!(
                "{at_term}.values: Required value: must be specified single value when `operator` is 'Lt' or 'Gt'"
            )],
        );
        check(
            term(json!({"key": "a", "operator": "Like"})),
            &[&format!("{at_term}.operator: Invalid value: \"Like\": not a valid selector operator")],
        );
        check(
            affinity(json!({PREFERRED: [{"weight": 101, "preference": {}}]})),
            &[&format!("{at}.{PREFERRED}[0].weight: Invalid value: 101: must be in the range 1-100")],
        );
        check(
            affinity(
                json!({REQUIRED: {"nodeSelectorTerms": [{"matchFields": [{"key": "spec.x", "operator": "In", "values": ["a"]}]}]}}),
            ),
            &[&format!(
                "{at}.{REQUIRED}.nodeSelectorTerms[0].matchFields[0].key: Invalid value: \"spec.x\": not a valid field selector key"
            )],
        );
    }

    #[test]
    fn affinity_to_pods_and_spreading() {
        let at = format!("spec.affinity.podAntiAffinity.{REQUIRED}[0]");
        check(
            json!({"affinity": {"podAntiAffinity": {REQUIRED: [{"labelSelector": {"matchLabels": {"a": "b"}}}]}}}),
            &[
                &format!("{at}.topologyKey: Required value: can not be empty"),
                &format!("{at}.topologyKey: Invalid value: \"\": name part must be non-empty"),
                &format!(
                    "{at}.topologyKey: Invalid value: \"\": name part must consist of alphanumeric characters, '-', '_' or '.', \
                     and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', \
                     regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
                ),
            ],
        );
        let at = "spec.topologySpreadConstraints[0]";
        check(
            json!({"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "zone", "whenUnsatisfiable": "Odd"}]}),
            &[
                &format!("{at}.maxSkew: Invalid value: 0: must be greater than zero"),
                &format!(
                    "{at}.whenUnsatisfiable: Unsupported value: \"Odd\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\""
                ),
            ],
        );
        let one = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"});
        check(
            json!({"topologySpreadConstraints": [one, one]}),
            &[
                "spec.topologySpreadConstraints[1].{topologyKey, whenUnsatisfiable}: Duplicate value: \"{zone, ScheduleAnyway}\"",
            ],
        );
    }

    #[test]
    fn tolerations_and_gates() {
        check(
            json!({"tolerations": [{"operator": "Equal", "value": "x"}]}),
            &[
                "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            ],
        );
        check(
            json!({"tolerations": [{"key": "a", "operator": "Like"}]}),
            &[
                "spec.tolerations[0].operator: Unsupported value: \"Like\": supported values: \"Equal\", \"Exists\"",
            ],
        );
        check(
            json!({"schedulingGates": [{"name": "a"}, {"name": "a"}]}),
            &["spec.schedulingGates[1]: Duplicate value: \"a\""],
        );
    }
}
