//! Fields of a Pod and amounts of a container that the Pod may be told about.

use crate::quantity::Quantity;
use crate::validate::{Check, dns1123_label, qualified_name};

/// Where the fact goes; not every fact may go everywhere.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Environment,
    Volume,
}

const IN_ENVIRONMENT: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const IN_VOLUMES: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];

/// `metadata.labels['key']`: the map and the key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// Rule: `validateObjectFieldSelector`.
pub fn field(selector: &mut Check<'_, '_>, place: Target) {
    if selector.need("apiVersion", "").is_empty() || selector.need("fieldPath", "").is_empty() {
        return;
    }
    let path = selector.text("fieldPath");
    let version = selector.text("apiVersion");
    if version != "v1" {
        let why = format!("error converting fieldPath: unsupported pod version: {version}");
        return selector.invalid("fieldPath", why);
    }
    if let Some((map, key)) = subscript(path) {
        match map {
            "metadata.annotations" => selector.follow("fieldPath", qualified_name(&key.to_lowercase())),
            "metadata.labels" => selector.follow("fieldPath", qualified_name(key)),
            _ => selector.invalid("fieldPath", "does not support subscript"),
        }
        return;
    }
    if !path.starts_with("metadata.") && !path.starts_with("spec.") && !path.starts_with("status.") {
        selector
            .invalid("fieldPath", format!("error converting fieldPath: field label not supported: {path}"));
        return;
    }
    selector.one_of("fieldPath", if place == Target::Volume { IN_VOLUMES } else { IN_ENVIRONMENT });
}

/// Rule: `validateContainerResourceFieldSelector`. `named`: the container must be said.
pub fn resource(selector: &mut Check<'_, '_>, named: bool) {
    if named && selector.text("containerName").is_empty() {
        selector.required("containerName", "");
        return;
    }
    let resource = selector.need("resource", "");
    if resource.is_empty() {
        return;
    }
    let huge = ["limits.hugepages-", "requests.hugepages-"].iter().any(|start| resource.starts_with(start));
    if !huge {
        selector.one_of("resource", RESOURCES);
    }
    selector.named("containerName", dns1123_label);
    divisor(selector, resource);
}

/// Rule: `validateContainerResourceDivisor`.
fn divisor(selector: &mut Check<'_, '_>, resource: &str) {
    let Ok(divisor) = Quantity::from_value(selector.get("divisor")) else { return };
    if divisor.is_zero() {
        return;
    }
    let shown = divisor.to_string();
    let (allowed, why): (&[&str], &str) = if resource.ends_with(".cpu") {
        (&["1m", "1"], "only divisor's values 1m and 1 are supported with the cpu resource")
    } else if resource.ends_with(".memory") {
        (
            UNITS,
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource",
        )
    } else {
        (
            UNITS,
            "only divisor's values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the local ephemeral storage resource",
        )
    };
    if !allowed.contains(&shown.as_str()) {
        let key = if resource.starts_with("limits") || resource.starts_with("requests") {
            "divisor"
        } else {
            "resource"
        };
        selector.invalid(key, why);
    }
}

const UNITS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
