//! Pod security standards: what a namespace's labels let Pods do. Rule: upstream's `PodSecurity` plugin.

mod baseline;
mod containers;
mod restricted;

use serde_json::Value;

use super::{Attributes, Context, Operation, Plugin};
use api::meta::ObjectExt;
use api::status::ApiError;
use api::validate::FieldError;

const PREFIX: &str = "pod-security.kubernetes.io/";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Self::Privileged),
            "baseline" => Some(Self::Baseline),
            "restricted" => Some(Self::Restricted),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Privileged => "privileged",
            Self::Baseline => "baseline",
            Self::Restricted => "restricted",
        }
    }
}

/// A level as it was in some version of Kubernetes; `None`: as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Standard {
    level: Level,
    minor: Option<u32>,
}

impl Standard {
    /// `restricted:latest`, `baseline:v1.25`.
    fn shown(self) -> String {
        match self.minor {
            Some(minor) => format!("{}:v1.{minor}", self.level.name()),
            None => format!("{}:latest", self.level.name()),
        }
    }

    /// Whether rules of this minor version hold.
    fn since(self, minor: u32) -> bool {
        self.minor.is_none_or(|own| own >= minor)
    }
}

fn parse_version(text: &str) -> Option<Option<u32>> {
    if text == "latest" {
        return Some(None);
    }
    text.strip_prefix("v1.")?.parse().ok().map(Some)
}

/// The standard that a namespace asks for; a label that cannot be read counts as the strictest.
fn standard(namespace: &Value, mode: &str) -> Standard {
    let level = match namespace.label(&format!("{PREFIX}{mode}")) {
        None => Level::Privileged,
        Some(text) => Level::parse(text).unwrap_or(Level::Restricted),
    };
    let version = namespace.label(&format!("{PREFIX}{mode}-version"));
    Standard { level, minor: version.and_then(parse_version).flatten() }
}

/// One rule that a Pod breaks: which, and how.
struct Violation {
    reason: &'static str,
    detail: String,
}

/// Everything in a Pod that the standard forbids, in one sentence; `None`: nothing.
fn violations(pod: &Value, standard: Standard) -> Option<String> {
    let mut found = Vec::new();
    if standard.level >= Level::Baseline {
        baseline::check(pod, standard, &mut found);
    }
    if standard.level == Level::Restricted {
        restricted::check(pod, standard, &mut found);
    }
    let words: Vec<String> = found
        .iter()
        .map(|violation| match violation.detail.as_str() {
            "" => violation.reason.to_owned(),
            detail => format!("{} ({detail})", violation.reason),
        })
        .collect();
    (!words.is_empty()).then(|| format!("violate PodSecurity {:?}: {}", standard.shown(), words.join(", ")))
}

/// Where a workload's Pods are described.
fn template<'a>(group: &str, resource: &str, object: &'a Value) -> Option<&'a Value> {
    let pointer = match (group, resource) {
        ("", "podtemplates") => "/template",
        ("batch", "cronjobs") => "/spec/jobTemplate/spec/template",
        ("" | "apps" | "batch", _) => "/spec/template",
        _ => return None,
    };
    object.pointer(pointer).filter(|template| template.is_object())
}

const WORKLOADS: [(&str, &str); 8] = [
    ("", "podtemplates"),
    ("", "replicationcontrollers"),
    ("apps", "daemonsets"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("batch", "cronjobs"),
    ("batch", "jobs"),
];

pub(super) struct PodSecurity;

impl Plugin for PodSecurity {
    fn name(&self) -> &'static str {
        "PodSecurity"
    }

    fn validate(&self, attributes: &Attributes<'_>, context: &Context<'_>) -> Result<(), ApiError> {
        let write = matches!(attributes.operation, Operation::Create | Operation::Update);
        let Some(object) = attributes.object.as_ref().filter(|_| write) else { return Ok(()) };
        if attributes.is("", "namespaces") {
            return check_labels(object);
        }
        let Some(namespace) = context.known.namespace(attributes.namespace) else { return Ok(()) };
        let is_pod = attributes.group.is_empty()
            && attributes.resource == "pods"
            && matches!(attributes.subresource, "" | "ephemeralcontainers");
        if is_pod {
            if attributes.old.is_some_and(|old| !matters(old, object)) {
                return Ok(());
            }
            let enforced = standard(namespace, "enforce");
            attributes.notes.add(format!("{PREFIX}enforce-policy"), enforced.shown());
            note(attributes, object, namespace);
            if let Some(why) = violations(object, enforced) {
                return Err(attributes.forbidden(&why.replacen("violate", "violates", 1)));
            }
            warn(attributes, object, namespace);
        } else if attributes.subresource.is_empty()
            && WORKLOADS.contains(&(attributes.group, attributes.resource))
            && let Some(pod) = template(attributes.group, attributes.resource, object)
        {
            // A workload is never refused, for its Pods are; but its author hears of it here.
            note(attributes, pod, namespace);
            warn(attributes, pod, namespace);
        }
        Ok(())
    }
}

fn note(attributes: &Attributes<'_>, pod: &Value, namespace: &Value) {
    if let Some(why) = violations(pod, standard(namespace, "audit")) {
        attributes.notes.add(format!("{PREFIX}audit-violations"), format!("would {why}"));
    }
}

fn warn(attributes: &Attributes<'_>, pod: &Value, namespace: &Value) {
    if let Some(why) = violations(pod, standard(namespace, "warn")) {
        attributes.warnings.extend([format!("would {why}")]);
    }
}

/// Whether an update changes anything that the standards look at: not if all specs but what is known not to matter are equal.
fn matters(old: &Value, new: &Value) -> bool {
    let bare = |pod: &Value| {
        let mut spec = pod.get("spec").cloned().unwrap_or_default();
        if let Some(members) = spec.as_object_mut() {
            members.remove("activeDeadlineSeconds");
            members.remove("tolerations");
        }
        spec
    };
    bare(old) != bare(new) || old.pointer("/metadata/annotations") != new.pointer("/metadata/annotations")
}

/// The labels of a namespace must name levels and versions.
fn check_labels(namespace: &Value) -> Result<(), ApiError> {
    let mut errors = Vec::new();
    for mode in ["enforce", "audit", "warn"] {
        let level = format!("{PREFIX}{mode}");
        if let Some(text) = namespace.label(&level).filter(|text| Level::parse(text).is_none()) {
            let at = format!("metadata.labels[{level}]");
            errors.push(FieldError::invalid(at, text, "must be one of privileged, baseline, restricted"));
        }
        let version = format!("{PREFIX}{mode}-version");
        if let Some(text) = namespace.label(&version).filter(|text| parse_version(text).is_none()) {
            let at = format!("metadata.labels[{version}]");
            errors.push(FieldError::invalid(at, text, "must be \"latest\" or \"v1.x\""));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid("", "Namespace", namespace.name(), errors)) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(level: &str, spec: Value, expect: Option<&str>) {
        let standard = Standard { level: Level::parse(level).unwrap(), minor: None };
        assert_eq!(violations(&json!({"spec": spec}), standard).as_deref(), expect, "{spec}");
    }

    #[test]
    fn an_ordinary_pod_is_baseline_and_not_restricted() {
        let plain = json!({"containers": [{"name": "a", "image": "i"}]});
        check("baseline", plain.clone(), None);
        check(
            "restricted",
            plain,
            Some(
                "violate PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false (container \"a\" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"a\" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container \"a\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")",
            ),
        );
        check(
            "restricted",
            json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [{"name": "a", "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}),
            None,
        );
    }

    #[test]
    fn baseline_forbids_the_host() {
        check(
            "baseline",
            json!({"hostNetwork": true, "hostPID": true, "volumes": [{"name": "v", "hostPath": {"path": "/"}}],
                "containers": [{"name": "a", "securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN"]}},
                    "ports": [{"hostPort": 80}]}, {"name": "b", "securityContext": {"privileged": true}}]}),
            Some(
                "violate PodSecurity \"baseline:latest\": non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add), host namespaces (hostNetwork=true, hostPID=true), hostPath volumes (volume \"v\"), hostPort (container \"a\" uses hostPort 80), privileged (containers \"a\", \"b\" must not set securityContext.privileged=true)",
            ),
        );
    }

    #[test]
    fn labels_name_levels_and_versions() {
        let namespace = |labels: Value| json!({"metadata": {"name": "n", "labels": labels}});
        assert_eq!(
            check_labels(&namespace(
                json!({"pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.30"})
            )),
            Ok(())
        );
        let error = check_labels(&namespace(json!({"pod-security.kubernetes.io/warn": "odd"}))).unwrap_err();
        assert_eq!(
            error.message,
            "Namespace \"n\" is invalid: metadata.labels[pod-security.kubernetes.io/warn]: Invalid value: \"odd\": must be one of privileged, baseline, restricted"
        );
        assert_eq!(
            standard(&namespace(json!({"pod-security.kubernetes.io/enforce": "x"})), "enforce").level,
            Level::Restricted
        );
        assert_eq!(standard(&namespace(json!({})), "enforce").shown(), "privileged:latest");
    }
}
