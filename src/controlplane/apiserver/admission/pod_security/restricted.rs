//! Restricted: what is known to be good practice.

use std::collections::BTreeSet;

use serde_json::Value;

use super::baseline::added_capabilities;
use super::containers::{is_windows, named, quoted, those};
use super::{Standard, Violation};
use api::meta::ObjectExt;

const VOLUMES: [&str; 9] = [
    "name",
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];

/// Finds what restricted forbids beyond the baseline, in the order of the rules' names.
pub fn check(pod: &Value, standard: Standard, found: &mut Vec<Violation>) {
    let linux = !(is_windows(pod) && standard.since(25));
    let mut add = |reason: &'static str, detail: Option<String>| {
        if let Some(detail) = detail {
            found.push(Violation { reason, detail });
        }
    };
    if linux {
        let may = those(pod, |c| c.bool_at("/securityContext/allowPrivilegeEscalation") != Some(false));
        let must = must(&may, "set securityContext.allowPrivilegeEscalation=false");
        add("allowPrivilegeEscalation != false", must);
        add("unrestricted capabilities", capabilities(pod));
    }
    add("restricted volume types", volumes(pod));
    add("runAsNonRoot != true", non_root(pod));
    if standard.since(23) {
        add("runAsUser=0", root_user(pod));
    }
    if linux {
        add("seccompProfile", seccomp(pod));
    }
}

fn must(names: &[&str], what: &str) -> Option<String> {
    (!names.is_empty()).then(|| format!("{} must {what}", named("container", names)))
}

fn capabilities(pod: &Value) -> Option<String> {
    let keeps = those(pod, |container| {
        !container.array_at("/securityContext/capabilities/drop").iter().any(|dropped| dropped == "ALL")
    });
    let dropped = must(&keeps, "set securityContext.capabilities.drop=[\"ALL\"]");
    let added = added_capabilities(pod, &["NET_BIND_SERVICE"]);
    let parts: Vec<String> = dropped.into_iter().chain(added).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

fn volumes(pod: &Value) -> Option<String> {
    let mut names = Vec::new();
    let mut kinds: BTreeSet<&str> = BTreeSet::new();
    for volume in pod.array_at("/spec/volumes") {
        let members = volume.as_object().into_iter().flatten();
        let wrong: Vec<&str> = members
            .filter(|(key, value)| !value.is_null() && !VOLUMES.contains(&key.as_str()))
            .map(|(key, _)| key.as_str())
            .collect();
        if !wrong.is_empty() {
            names.push(volume.text("name").unwrap_or_default());
            kinds.extend(wrong);
        }
    }
    let kinds: Vec<&str> = kinds.into_iter().collect();
    let verb = if names.len() == 1 { "uses" } else { "use" };
    let s = if kinds.len() == 1 { "" } else { "s" };
    (!names.is_empty())
        .then(|| format!("{} {verb} restricted volume type{s} {}", named("volume", &names), quoted(&kinds)))
}

fn non_root(pod: &Value) -> Option<String> {
    let said = |owner: &Value, pointer: &str| owner.bool_at(pointer);
    let own = said(pod, "/spec/securityContext/runAsNonRoot");
    let field = "/securityContext/runAsNonRoot";
    let wrong = those(pod, |container| said(container, field) == Some(false));
    let unsaid = those(pod, |container| said(container, field).is_none());
    let mut parts = Vec::new();
    if !wrong.is_empty() {
        parts.push(format!("{} must not set securityContext.runAsNonRoot=false", named("container", &wrong)));
    }
    match own {
        Some(false) => parts.insert(0, "pod must not set securityContext.runAsNonRoot=false".to_owned()),
        None if wrong.is_empty() && !unsaid.is_empty() => {
            parts.push(format!(
                "pod or {} must set securityContext.runAsNonRoot=true",
                named("container", &unsaid)
            ));
        }
        _ => {}
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn root_user(pod: &Value) -> Option<String> {
    let mut parts = Vec::new();
    if pod.int_at("/spec/securityContext/runAsUser") == Some(0) {
        parts.push("pod must not set runAsUser=0".to_owned());
    }
    let names = those(pod, |container| container.int_at("/securityContext/runAsUser") == Some(0));
    if !names.is_empty() {
        parts.push(format!("{} must not set runAsUser=0", named("container", &names)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn seccomp(pod: &Value) -> Option<String> {
    const WHAT: &str = "securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"";
    let fine = |kind: Option<&str>| matches!(kind, Some("RuntimeDefault" | "Localhost"));
    let own = pod.str_at("/spec/securityContext/seccompProfile/type");
    let field = "/securityContext/seccompProfile/type";
    let wrong = those(pod, |container| container.str_at(field).is_some_and(|kind| !fine(Some(kind))));
    let unsaid = those(pod, |container| container.str_at(field).is_none());
    let mut parts = Vec::new();
    if own.is_some() && !fine(own) {
        parts.push(format!(
            "pod must not set securityContext.seccompProfile.type to {:?}",
            own.unwrap_or_default()
        ));
    }
    if !wrong.is_empty() {
        parts.push(format!(
            "{} must not set securityContext.seccompProfile.type to \"Unconfined\"",
            named("container", &wrong)
        ));
    }
    if parts.is_empty() && own.is_none() && !unsaid.is_empty() {
        parts.push(format!("pod or {} must set {WHAT}", named("container", &unsaid)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}
