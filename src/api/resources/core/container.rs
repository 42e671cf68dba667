//! Containers: their defaults and what must hold of them.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::probe;
use crate::api::meta::ObjectExt;
use crate::api::quantity::Quantity;
use crate::api::resources::fill::Fill;
use crate::api::validate::{
    FieldError, Path, dns1123_label, env_var_name, port_name, port_number, qualified_name,
};

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];

/// Rule: `SetDefaults_Container` and what it contains.
pub fn default_container(container: &mut Value) {
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

/// What names a container list has seen: Pod-wide unique names and host ports.
#[derive(Default)]
pub struct Seen {
    names: BTreeSet<String>,
    port_names: BTreeSet<String>,
    host_ports: BTreeSet<(i64, String, String)>,
}

/// Everything wrong with one container. `volumes`: names of the Pod's volumes.
pub fn validate(
    container: &Value,
    path: &Path,
    volumes: &BTreeSet<&str>,
    seen: &mut Seen,
) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = container.text("name").unwrap_or_default();
    if name.is_empty() {
        errors.push(FieldError::required(path.child("name"), ""));
    } else {
        errors.extend(
            dns1123_label(name).into_iter().map(|why| FieldError::invalid(path.child("name"), name, why)),
        );
        if !seen.names.insert(name.to_owned()) {
            errors.push(FieldError::duplicate(path.child("name"), name));
        }
    }
    let image = container.text("image").unwrap_or_default();
    if image.is_empty() {
        errors.push(FieldError::required(path.child("image"), ""));
    } else if image.trim() != image {
        errors.push(FieldError::invalid(
            path.child("image"),
            image,
            "must not have leading or trailing whitespace",
        ));
    }
    let policy = container.text("imagePullPolicy").unwrap_or_default();
    if !PULL_POLICIES.contains(&policy) {
        errors.push(FieldError::not_supported(path.child("imagePullPolicy"), policy, PULL_POLICIES));
    }
    ports(container, &path.child("ports"), seen, &mut errors);
    environment(container, path, &mut errors);
    mounts(container, &path.child("volumeMounts"), volumes, &mut errors);
    resources(container.get("resources"), &path.child("resources"), &mut errors);
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get(name).filter(|probe| !probe.is_null()) {
            errors.extend(probe::validate(probe, &path.child(name), name != "readinessProbe"));
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(handler) = container.get("lifecycle").and_then(|lifecycle| lifecycle.get(hook)) {
            let at = path.child("lifecycle").child(hook);
            errors.extend(probe::validate_handler(handler, &at, &["exec", "httpGet", "tcpSocket", "sleep"]));
        }
    }
    errors
}

fn ports(container: &Value, path: &Path, seen: &mut Seen, errors: &mut Vec<FieldError>) {
    for (index, port) in container.array_at("/ports").iter().enumerate() {
        let at = path.index(index);
        if let Some(name) = port.text("name").filter(|name| !name.is_empty()) {
            let wrong = port_name(name);
            if wrong.is_empty() && !seen.port_names.insert(format!("{path}/{name}")) {
                errors.push(FieldError::duplicate(at.child("name"), name));
            }
            errors.extend(wrong.into_iter().map(|why| FieldError::invalid(at.child("name"), name, why)));
        }
        let number = port.int_at("/containerPort").unwrap_or_default();
        if number == 0 {
            errors.push(FieldError::required(at.child("containerPort"), ""));
        } else {
            let wrong = port_number(number).into_iter();
            errors.extend(wrong.map(|why| FieldError::invalid(at.child("containerPort"), number, why)));
        }
        let protocol = port.text("protocol").unwrap_or_default();
        if !PROTOCOLS.contains(&protocol) {
            errors.push(FieldError::not_supported(at.child("protocol"), protocol, PROTOCOLS));
        }
        let host = port.int_at("/hostPort").unwrap_or_default();
        if host != 0 {
            let wrong = port_number(host).into_iter();
            errors.extend(wrong.map(|why| FieldError::invalid(at.child("hostPort"), host, why)));
            let ip = port.text("hostIP").unwrap_or_default().to_owned();
            if !seen.host_ports.insert((host, protocol.to_owned(), ip.clone())) {
                errors.push(FieldError::duplicate(at.child("hostPort"), format!("{protocol}/{ip}/{host}")));
            }
        }
    }
}

fn environment(container: &Value, path: &Path, errors: &mut Vec<FieldError>) {
    const SOURCES: &[&str] =
        &["configMapKeyRef", "fieldRef", "fileKeyRef", "resourceFieldRef", "secretKeyRef"];
    for (index, variable) in container.array_at("/env").iter().enumerate() {
        let at = path.child("env").index(index);
        match variable.text("name").unwrap_or_default() {
            "" => errors.push(FieldError::required(at.child("name"), "")),
            name => {
                let wrong = env_var_name(name).into_iter();
                errors.extend(wrong.map(|why| FieldError::invalid(at.child("name"), name, why)));
            }
        }
        let Some(source) = variable.get("valueFrom").filter(|source| !source.is_null()) else { continue };
        let at = at.child("valueFrom");
        let named: Vec<&str> = SOURCES.iter().copied().filter(|kind| source.has(kind)).collect();
        if named.is_empty() {
            let why =
                "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
            errors.push(FieldError::invalid(&at, "", why));
        } else if named.len() > 1 || variable.text("value").is_some_and(|value| !value.is_empty()) {
            let why = if named.len() > 1 {
                "may not have more than one field specified at a time"
            } else {
                "may not be specified when `value` is not empty"
            };
            errors.push(FieldError::invalid(&at, "", why));
        }
        for kind in ["configMapKeyRef", "secretKeyRef"] {
            if source.has(kind) && source[kind].text("key").unwrap_or_default().is_empty() {
                errors.push(FieldError::required(at.child(kind).child("key"), ""));
            }
        }
        if source.has("fieldRef") && source["fieldRef"].text("fieldPath").unwrap_or_default().is_empty() {
            errors.push(FieldError::required(at.child("fieldRef").child("fieldPath"), ""));
        }
    }
    for (index, source) in container.array_at("/envFrom").iter().enumerate() {
        let at = path.child("envFrom").index(index);
        if source.has("configMapRef") == source.has("secretRef") {
            let why = if source.has("secretRef") {
                "may not have more than one field specified at a time"
            } else {
                "must specify one of: `configMapRef` or `secretRef`"
            };
            errors.push(FieldError::invalid(&at, "", why));
        }
    }
}

fn mounts(container: &Value, path: &Path, volumes: &BTreeSet<&str>, errors: &mut Vec<FieldError>) {
    let mut paths = BTreeSet::new();
    for (index, mount) in container.array_at("/volumeMounts").iter().enumerate() {
        let at = path.index(index);
        match mount.text("name").unwrap_or_default() {
            "" => errors.push(FieldError::required(at.child("name"), "")),
            name if !volumes.contains(name) => errors.push(FieldError::not_found(at.child("name"), name)),
            _ => {}
        }
        match mount.text("mountPath").unwrap_or_default() {
            "" => errors.push(FieldError::required(at.child("mountPath"), "")),
            target if !paths.insert(target) => {
                errors.push(FieldError::invalid(at.child("mountPath"), target, "must be unique"));
            }
            _ => {}
        }
        let sub = mount.text("subPath").unwrap_or_default();
        if sub.starts_with('/') {
            errors.push(FieldError::invalid(at.child("subPath"), sub, "must be a relative path"));
        } else if sub.split('/').any(|part| part == "..") {
            errors.push(FieldError::invalid(at.child("subPath"), sub, "must not contain '..'"));
        }
    }
}

/// Requests and limits: known names, not negative, and requests no greater than limits.
pub fn resources(resources: Option<&Value>, path: &Path, errors: &mut Vec<FieldError>) {
    let Some(resources) = resources else { return };
    let amounts = |kind: &str| resources.get(kind).and_then(Value::as_object).into_iter().flatten();
    for kind in ["limits", "requests"] {
        for (name, amount) in amounts(kind) {
            let at = path.child(kind).key(name);
            let known = ["cpu", "memory", "ephemeral-storage"].contains(&name.as_str())
                || name.starts_with("hugepages-")
                || name.contains('/');
            if !known {
                errors.push(FieldError::invalid(
                    &at,
                    name.as_str(),
                    "must be a standard resource for containers",
                ));
            }
            errors.extend(
                qualified_name(name).into_iter().map(|why| FieldError::invalid(&at, name.as_str(), why)),
            );
            match Quantity::from_value(amount) {
                Ok(amount) if amount.sign() < 0 => {
                    let why = "must be greater than or equal to 0";
                    errors.push(FieldError::invalid(&at, amount.to_string(), why));
                }
                Ok(_) => {}
                Err(error) => errors.push(FieldError::invalid(&at, amount.clone(), error.to_string())),
            }
        }
    }
    for (name, request) in amounts("requests") {
        let limit = resources.get("limits").and_then(|limits| limits.get(name));
        let (Ok(request), Some(Ok(limit))) = (Quantity::from_value(request), limit.map(Quantity::from_value))
        else {
            continue;
        };
        if request > limit {
            let why = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(path.child("requests"), request.to_string(), why));
        } else if name.contains('/') && request != limit {
            let why = format!("must be equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(path.child("requests"), request.to_string(), why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    fn check(container: Value, expect: &[&str]) {
        let mut container = container;
        default_container(&mut container);
        let volumes = BTreeSet::from(["data"]);
        let errors = validate(&container, &Path::new("spec.containers[0]"), &volumes, &mut Seen::default());
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
