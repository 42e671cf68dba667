//! What a kubelet may say of a Pod.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::pod::quality_of_service;
use crate::meta::ObjectExt;
use crate::resources::fill::Fill;
use crate::validate::{Check, FieldError, IMMUTABLE, check, dns1123_subdomain, ip_address, qualified_name};

/// Conditions that are the system's own, whose names are no qualified ones.
const SYSTEM_CONDITIONS: [&str; 3] = ["PodScheduled", "Ready", "Initialized"];

/// Readies a status that is about to replace that of `old`.
pub fn prepare(new: &mut Value, old: &Value) {
    let status = new.open("status");
    // The class follows from the spec: who leaves it out keeps it.
    let class = old.pointer("/status/qosClass").filter(|_| status.text("qosClass").is_none_or(str::is_empty));
    if let Some(class) = class {
        status.put("qosClass", class.clone());
    }
    // `podIP` and the first of `podIPs` are one thing; where they differ, the older field says which.
    let first = status.pointer("/podIPs/0/ip").and_then(Value::as_str).map(str::to_owned);
    match (status.text("podIP").filter(|ip| !ip.is_empty()).map(str::to_owned), first) {
        (Some(ip), first) if first.as_ref() != Some(&ip) => status.put("podIPs", json!([{"ip": ip}])),
        (None, Some(first)) => status.put("podIP", first),
        _ => {}
    }
}

/// Rule: `ValidatePodStatusUpdate`.
pub fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = check(new, "status", |status| {
        status.each("conditions", |condition| {
            let kind = condition.text("type");
            if !SYSTEM_CONDITIONS.contains(&kind) {
                condition.follow("type", qualified_name(kind));
            }
        });
        let before = old["status"].text("nominatedNodeName").unwrap_or_default();
        if status.text("nominatedNodeName") != before {
            status.named("nominatedNodeName", dns1123_subdomain);
        }
        // What the spec says of it is right even where an older server has kept something else.
        let class = status.text("qosClass");
        if class != old["status"].text("qosClass").unwrap_or_default() && class != quality_of_service(old) {
            status.invalid("qosClass", IMMUTABLE);
        }
        addresses(status);
    });
    let spec = &old["spec"];
    if spec.text("restartPolicy") != Some("Always") {
        errors.extend(restarts(new, old, "containerStatuses", |name, failed| {
            may_restart(spec, "/containers", name, failed)
        }));
        errors.extend(restarts(new, old, "initContainerStatuses", |name, failed| {
            may_restart(spec, "/initContainers", name, failed)
        }));
    }
    errors.extend(restarts(new, old, "ephemeralContainerStatuses", |_, _| false));
    errors
}

/// Addresses are addresses, one of each family at most.
fn addresses(status: &mut Check<'_, '_>) {
    for list in ["podIPs", "hostIPs"] {
        status.each(list, |entry| {
            let ip = entry.text("ip");
            let at = entry.path.clone();
            entry.extend(ip_address(ip).into_iter().map(|why| FieldError::invalid(&at, ip, why)));
        });
        let all: Vec<&str> = status.list(list).iter().filter_map(|entry| entry.text("ip")).collect();
        let families: Vec<bool> =
            all.iter().filter_map(|ip| ip.parse().ok()).map(|ip: IpAddr| ip.is_ipv6()).collect();
        if all.len() > 2 || families.len() == 2 && families[0] == families[1] {
            status.invalid(list, "may specify no more than one IP for each IP family");
        }
        for (index, ip) in all.iter().enumerate().filter(|(index, ip)| all[..*index].contains(ip)) {
            status.push(FieldError::duplicate(status.at(list).index(index), json!({"ip": ip})));
        }
    }
    for (field, list) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
        if !status.text(field).is_empty() && status.list(list).is_empty() {
            status.follow(field, ip_address(status.text(field)));
        }
    }
}

/// Whether a container that has ended may run again: by its own policy or its Pod's, by rules of its own, or because some
/// container's rule restarts all of them.
fn may_restart(spec: &Value, list: &str, name: &str, failed: bool) -> bool {
    let all = spec.array_at("/containers").iter().chain(spec.array_at("/initContainers"));
    let mut rules = all.flat_map(|container| container.array_at("/restartPolicyRules"));
    if rules.any(|rule| rule.text("action") == Some("RestartAllContainers")) {
        return true;
    }
    let container = spec.array_at(list).iter().find(|container| container.text("name") == Some(name));
    if container.is_some_and(|container| !container.array_at("/restartPolicyRules").is_empty()) {
        return true;
    }
    let own = container.and_then(|container| container.text("restartPolicy"));
    match own.or_else(|| spec.text("restartPolicy")) {
        Some("Always") => true,
        Some("OnFailure") => failed,
        _ => false,
    }
}

/// Containers that have ended, may not run again, and are said not to have ended. Rule: `ValidateContainerStateTransition`.
fn restarts(new: &Value, old: &Value, list: &str, may: impl Fn(&str, bool) -> bool) -> Vec<FieldError> {
    let pointer = format!("/status/{list}");
    let ended = |status: &Value| status.pointer("/state/terminated").is_some_and(|state| !state.is_null());
    let mut errors = Vec::new();
    for (index, before) in old.array_at(&pointer).iter().enumerate().filter(|(_, before)| ended(before)) {
        let name = before.text("name").unwrap_or_default();
        let failed = before.int_at("/state/terminated/exitCode").unwrap_or(0) != 0;
        if may(name, failed) {
            continue;
        }
        if new.array_at(&pointer).iter().any(|after| after.text("name") == Some(name) && !ended(after)) {
            let at = format!("status.{list}[{index}].state");
            errors.push(FieldError::forbidden(at, "may not be transitioned to non-terminated state"));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(policy: &str, status: Value) -> Value {
        json!({"spec": {"restartPolicy": policy}, "status": status})
    }

    #[test]
    fn the_class_stays_and_addresses_agree() {
        let old = pod("Always", json!({"qosClass": "Burstable"}));
        let check = |status: Value, expect: Value| {
            let mut new = pod("Always", status.clone());
            prepare(&mut new, &old);
            assert_eq!(new["status"], expect, "{status}");
        };
        check(
            json!({"podIP": "1.2.3.4"}),
            json!({"podIP": "1.2.3.4", "podIPs": [{"ip": "1.2.3.4"}], "qosClass": "Burstable"}),
        );
        check(
            json!({"podIP": "1.2.3.4", "podIPs": [{"ip": "2.3.4.5"}]}),
            json!({"podIP": "1.2.3.4", "podIPs": [{"ip": "1.2.3.4"}], "qosClass": "Burstable"}),
        );
        check(
            json!({"podIPs": [{"ip": "1.2.3.4"}, {"ip": "::1"}]}),
            json!({"podIP": "1.2.3.4", "podIPs": [{"ip": "1.2.3.4"}, {"ip": "::1"}], "qosClass": "Burstable"}),
        );
        check(json!({"qosClass": "Guaranteed"}), json!({"qosClass": "Guaranteed"}));
    }

    #[test]
    fn containers_with_a_will_of_their_own_run_again() {
        let check = |container: Value, other: Value, expect: usize| {
            let status = |state: Value| json!({"containerStatuses": [{"name": "c", "state": state}]});
            let with = |state: Value| {
                let containers = json!([container, other]);
                json!({"spec": {"restartPolicy": "Never", "containers": containers}, "status": status(state)})
            };
            let (old, new) = (with(json!({"terminated": {"exitCode": 0}})), with(json!({"running": {}})));
            assert_eq!(validate(&new, &old).len(), expect, "{container} {other}");
        };
        let rule =
            |action: &str| json!([{"action": action, "exitCodes": {"operator": "In", "values": [42]}}]);
        let plain = json!({"name": "d"});
        check(json!({"name": "c"}), plain.clone(), 1);
        check(json!({"name": "c", "restartPolicy": "Always"}), plain.clone(), 0);
        check(json!({"name": "c", "restartPolicy": "OnFailure"}), plain.clone(), 1);
        check(
            json!({"name": "c", "restartPolicy": "Never", "restartPolicyRules": rule("Restart")}),
            plain,
            0,
        );
        let all = json!({"name": "d", "restartPolicy": "Never", "restartPolicyRules": rule("RestartAllContainers")});
        check(json!({"name": "c"}), all, 0);
    }

    #[test]
    fn says_what_is_wrong() {
        let check = |policy: &str, before: Value, after: Value, expect: &[&str]| {
            let errors = validate(&pod(policy, after.clone()), &pod(policy, before));
            let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(fields, expect, "{after}");
        };
        let status = |state: Value| json!({"containerStatuses": [{"name": "c", "state": state}]});
        let ended = |code: i64| status(json!({"terminated": {"exitCode": code}}));
        let runs = status(json!({"running": {}}));
        let at = "status.containerStatuses[0].state";
        check("Never", ended(0), runs.clone(), &[at]);
        check("OnFailure", ended(0), runs.clone(), &[at]);
        check("OnFailure", ended(1), runs.clone(), &[]);
        check("Always", ended(0), runs, &[]);
        check("Never", ended(0), ended(1), &[]);
        let class = |name: &str| json!({"qosClass": name});
        check("Never", class("Burstable"), class("Guaranteed"), &["status.qosClass"]);
        check(
            "Never",
            json!({}),
            json!({"podIPs": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.4"}]}),
            &["status.podIPs", "status.podIPs[1]"],
        );
        check("Never", json!({}), json!({"podIPs": [{"ip": "1.2.3.4"}, {"ip": "::1"}]}), &[]);
        check("Never", json!({}), json!({"podIP": "x"}), &["status.podIP"]);
        check("Never", json!({}), json!({"conditions": [{"type": "Ready"}]}), &[]);
        check("Never", json!({}), json!({"conditions": [{"type": "a b"}]}), &["status.conditions[0].type"]);
    }
}
