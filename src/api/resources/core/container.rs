//! Containers: their defaults and what must hold of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::container_env::environment;
use super::container_mounts::{devices, mounts};
use super::probe;
use super::requirements::requirements;
use super::security::container_security;
use crate::meta::ObjectExt;
use crate::resources::fill::Fill;
use crate::validate::{Check, FieldError, dns1123_label, port_name, port_number};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// Rule: `SetDefaults_Container` and what it contains.
pub fn default_container(container: &mut Value) {
    drop_stop_signal(container);
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let policy = if tag(image) == Some("latest") { "Always" } else { "IfNotPresent" };
    container.fill_text("imagePullPolicy", policy);
    container.fill_text("terminationMessagePath", "/dev/termination-log");
    container.fill_text("terminationMessagePolicy", "File");
    container.fill("resources", json!({}));
    container.each("ports", |port| port.fill_text("protocol", "TCP"));
    container.each("env", |variable| {
        variable.within("valueFrom", |source| {
            source.within("fieldRef", |field| field.fill_text("apiVersion", "v1"));
            source.within("resourceFieldRef", |field| field.fill("divisor", "0"));
        });
    });
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        container.within(name, probe::default_probe);
    }
    container.within("lifecycle", |lifecycle| {
        for hook in ["postStart", "preStop"] {
            lifecycle.within(hook, probe::default_handler);
        }
    });
}

/// A field of a feature that upstream has but does not switch on by itself (`ContainerStopSignals`, alpha in 1.36) is left out, so
/// that nobody relies on what no node does. Rule: `dropContainerStopSignals`.
fn drop_stop_signal(container: &mut Value) {
    let Some(Value::Object(lifecycle)) = container.get_mut("lifecycle") else { return };
    if lifecycle.remove("stopSignal").is_some()
        && lifecycle.is_empty()
        && let Some(container) = container.as_object_mut()
    {
        container.remove("lifecycle");
    }
}

/// The tag of an image reference; `latest` if it says neither tag nor digest, none if it says a digest only.
fn tag(image: &str) -> Option<&str> {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    // A colon before the last slash belongs to a registry's port.
    match name.rsplit('/').next().and_then(|last| last.split_once(':')) {
        Some((_, tag)) => Some(tag),
        None if digest || image.is_empty() => None,
        None => Some("latest"),
    }
}

/// A limit without a request is also the request.
pub fn requests_from_limits(resources: &mut Value) {
    let Some(Value::Object(limits)) = resources.get("limits").cloned() else { return };
    let requests = resources.open("requests");
    for (name, limit) in limits {
        requests.fill(&name, limit);
    }
}

/// Which list of a Pod a container stands in; not everything is allowed everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    App,
    Init,
    Ephemeral,
}

/// What names a container list has seen: Pod-wide unique names and host ports.
#[derive(Default)]
pub struct Seen {
    names: BTreeSet<String>,
    host_ports: BTreeSet<(i64, String, String)>,
}

/// Everything wrong with one container. `volumes`: the Pod's spec, whose volumes may be mounted.
pub fn validate(
    container: &mut Check<'_, '_>,
    volumes: &BTreeSet<&str>,
    pod: &Value,
    seen: &mut Seen,
    role: Role,
) {
    let name = container.need("name", "");
    if !name.is_empty() {
        container.named("name", dns1123_label);
        if !seen.names.insert(name.to_owned()) {
            container.duplicate("name");
        }
    }
    let image = container.need("image", "");
    if image.trim() != image {
        container.invalid("image", "must not have leading or trailing whitespace");
    }
    let restarts = container.text("restartPolicy") == "Always";
    match role {
        Role::Ephemeral => only_ephemeral(container, pod),
        Role::Init if !restarts => only_once(container),
        _ => lively(container, &seconds_of_grace(pod)),
    }
    match container.text("terminationMessagePolicy") {
        "File" | "FallbackToLogsOnError" => {}
        "" => container.required("terminationMessagePolicy", "must be 'File' or 'FallbackToLogsOnError'"),
        _ => container.invalid("terminationMessagePolicy", "must be 'File' or 'FallbackToLogsOnError'"),
    }
    if container.has("restartPolicy") {
        match role {
            Role::Init => container.one_of("restartPolicy", &["Always", "Never", "OnFailure"]),
            Role::App => container.one_of("restartPolicy", &["Always", "Never", "OnFailure"]),
            Role::Ephemeral => {}
        }
    }
    if role != Role::Ephemeral {
        ports(container, seen);
    }
    environment(container);
    mounts(container, volumes);
    devices(container, volumes, pod);
    container.need_one_of("imagePullPolicy", PULL_POLICIES, "");
    requirements(&mut container.child("resources"), Some(pod));
    container.each("resizePolicy", |policy| {
        policy.need_one_of("resourceName", &["cpu", "memory"], "");
        policy.need_one_of("restartPolicy", &["NotRequired", "RestartContainer"], "");
    });
    container.within("securityContext", container_security);
}

fn seconds_of_grace(pod: &Value) -> Option<i64> {
    pod.int_at("/terminationGracePeriodSeconds")
}

/// Probes and hooks of a container that goes on running.
fn lively(container: &mut Check<'_, '_>, grace: &Option<i64>) {
    container.within("lifecycle", |lifecycle| {
        for hook in ["postStart", "preStop"] {
            lifecycle.within(hook, |hook| probe::hook(hook, *grace));
        }
    });
    for name in ["livenessProbe", "startupProbe", "readinessProbe"] {
        container.within(name, |check| probe::validate(check, name != "readinessProbe"));
    }
}

/// An init container runs to its end, so that nothing can ask whether it is ready.
fn only_once(container: &mut Check<'_, '_>) {
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if container.has(field) {
            container.forbidden(field, "may not be set for init containers without restartPolicy=Always");
        }
    }
}

/// Rule: what an ephemeral container may not have, and whom it may look at.
fn only_ephemeral(container: &mut Check<'_, '_>, pod: &Value) {
    for field in [
        "ports",
        "resources",
        "livenessProbe",
        "readinessProbe",
        "startupProbe",
        "lifecycle",
        "resizePolicy",
        "restartPolicy",
    ] {
        let said = match container.get(field) {
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            other => !other.is_null(),
        };
        if said {
            container.forbidden(field, "cannot be set for an Ephemeral Container");
        }
    }
    let target = container.text("targetContainerName");
    let known = ["containers", "initContainers"]
        .iter()
        .flat_map(|list| pod.array_at(&format!("/{list}")))
        .any(|other| other.text("name") == Some(target));
    if !target.is_empty() && !known {
        container.push(FieldError::not_found(container.at("targetContainerName"), target));
    }
    container.each("volumeMounts", |mount| {
        for field in ["subPath", "subPathExpr"] {
            if mount.has(field) {
                mount.forbidden(field, "cannot be set for an Ephemeral Container");
            }
        }
    });
}

fn ports(container: &mut Check<'_, '_>, seen: &mut Seen) {
    let mut names = BTreeSet::new();
    container.each("ports", |port| {
        let name = port.text("name");
        if !name.is_empty() {
            let wrong = port_name(name);
            if wrong.is_empty() && !names.insert(name) {
                port.duplicate("name");
            }
            port.follow("name", wrong);
        }
        let number = port.int("containerPort").unwrap_or_default();
        if number == 0 {
            port.required("containerPort", "");
        } else {
            port.follow("containerPort", port_number(number));
        }
        let host = port.int("hostPort").unwrap_or_default();
        if host != 0 {
            port.follow("hostPort", port_number(host));
        }
        port.need_one_of("protocol", PROTOCOLS, "");
        let (ip, protocol) = (port.text("hostIP"), port.text("protocol"));
        if host != 0 && !seen.host_ports.insert((host, protocol.to_owned(), ip.to_owned())) {
            port.push(FieldError::duplicate(port.at("hostPort"), format!("{protocol}/{ip}/{host}")));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::{Path, check_at};

    #[test]
    fn the_pull_policy_follows_the_tag() {
        for (image, expect) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("localhost:5000/nginx", "Always"),
            ("localhost:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
        ] {
            let mut container = json!({"name": "c", "image": image});
            default_container(&mut container);
            assert_eq!(container["imagePullPolicy"], expect, "{image}");
        }
    }

    #[test]
    fn stop_signals_are_left_out_as_while_their_feature_is_off() {
        let after = |lifecycle: Value| {
            let mut container = json!({"name": "c", "image": "i", "lifecycle": lifecycle});
            default_container(&mut container);
            container.get("lifecycle").cloned()
        };
        assert_eq!(after(json!({"stopSignal": "SIGUSR1"})), None);
        let sleep = json!({"sleep": {"seconds": 1}});
        let both = after(json!({"stopSignal": "SIGUSR1", "preStop": sleep}));
        assert_eq!(both, Some(json!({"preStop": sleep})));
        assert_eq!(after(json!({})), Some(json!({})), "what says nothing stays as it is");
    }

    fn check(container: Value, expect: &[&str]) {
        let mut container = container;
        default_container(&mut container);
        let volumes = BTreeSet::from(["data"]);
        let errors = check_at(&container, &Path::new("spec.containers[0]"), |container| {
            validate(container, &volumes, &Value::Null, &mut Seen::default(), Role::App);
        });
        assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        check(json!({"name": "a", "image": "b"}), &[]);
        check(json!({"image": "b"}), &["spec.containers[0].name: Required value"]);
        check(json!({"name": "a"}), &["spec.containers[0].image: Required value"]);
        check(
            json!({"name": "a", "image": "b", "volumeMounts": [{"name": "none", "mountPath": "/x"}]}),
            &["spec.containers[0].volumeMounts[0].name: Not found: \"none\""],
        );
        check(
            json!({"name": "a", "image": "b", "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}),
            &[
                "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
            ],
        );
        check(
            json!({"name": "a", "image": "b", "ports": [{"containerPort": 70000}]}),
            &[
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ],
        );
    }
}
