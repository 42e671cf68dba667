//! Who a Pod's processes are and what they may.

use serde_json::Value;

use super::volume::descending_path;
use crate::meta::ObjectExt;
use crate::validate::{Check, FieldError, range_error};

const MOST_ID: i64 = 2_147_483_647;

fn ids(context: &mut Check<'_, '_>, keys: &[&str]) {
    for key in keys {
        if context.int(key).is_some_and(|id| !(0..=MOST_ID).contains(&id)) {
            context.invalid(key, range_error(0, MOST_ID));
        }
    }
}

/// A profile that may be a file on the node: seccomp's and AppArmor's.
fn profile(context: &mut Check<'_, '_>, key: &str, word: &str) {
    context.within(key, |profile| {
        profile.need_one_of("type", &["Localhost", "RuntimeDefault", "Unconfined"], "type is required");
        if profile.text("type") == "Localhost" {
            let why = format!("must be set when {word} type is Localhost");
            if !profile.need("localhostProfile", &why).is_empty() && word == "seccomp" {
                descending_path(profile, "localhostProfile");
            }
        } else if profile.has("localhostProfile") {
            profile.invalid("localhostProfile", format!("can only be set when {word} type is Localhost"));
        }
    });
}

/// Rule: `ValidatePodSecurityContext`, and what belongs to it of the rest of the spec.
pub fn pod_security(spec: &mut Check<'_, '_>) {
    host_network(spec);
    let host_processes = spec.flag("hostPID");
    if host_processes && spec.flag("shareProcessNamespace") {
        let at = spec.at("securityContext").child("shareProcessNamespace");
        let why = "ShareProcessNamespace and HostPID cannot both be enabled";
        spec.push(FieldError::invalid(at, true, why));
    }
    if spec.value.get("hostUsers") != Some(&Value::Bool(false)) {
        masked(spec);
    }
    if spec.value.get("hostUsers") == Some(&Value::Bool(false)) {
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            if spec.flag(field) {
                let why = format!("when `hostUsers` is false, `{field}` must be false");
                spec.forbidden(
                    field,
                    why.replace("when `hostUsers` is false, ", "when `pod.Spec.HostUsers` is false, "),
                );
            }
        }
    }
    spec.within("securityContext", |context| {
        ids(context, &["fsGroup", "runAsUser", "runAsGroup"]);
        context.each("supplementalGroups", |group| {
            if group.value.as_i64().is_some_and(|id| !(0..=MOST_ID).contains(&id)) {
                group.wrong(range_error(0, MOST_ID));
            }
        });
        sysctls(context);
        context.maybe_one_of("fsGroupChangePolicy", &["Always", "OnRootMismatch"]);
        context.maybe_one_of("supplementalGroupsPolicy", &["Merge", "Strict"]);
        context.maybe_one_of("seLinuxChangePolicy", &["MountOption", "Recursive"]);
        profile(context, "seccompProfile", "seccomp");
        profile(context, "appArmorProfile", "AppArmor");
    });
}

/// On the host's network, a container's port is the host's.
fn host_network(spec: &mut Check<'_, '_>) {
    if !spec.flag("hostNetwork") {
        return;
    }
    for list in ["containers", "initContainers"] {
        spec.each(list, |container| {
            container.each("ports", |port| {
                if port.int("hostPort").unwrap_or(0) != port.int("containerPort").unwrap_or(0) {
                    port.invalid("containerPort", "must match `hostPort` when `hostNetwork` is true");
                }
            });
        });
    }
}

fn sysctls(context: &mut Check<'_, '_>) {
    const PATTERN: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    let fits = |part: &str| {
        let end = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        end(part.as_bytes().first())
            && end(part.as_bytes().last())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
    };
    let mut seen = std::collections::BTreeSet::new();
    context.each("sysctls", |sysctl| {
        let name = sysctl.need("name", "");
        if name.is_empty() {
            return;
        }
        if name.len() > 253 || !name.split(['.', '/']).all(fits) {
            sysctl.invalid("name", format!("must have at most 253 characters and match regex {PATTERN}"));
        } else if !seen.insert(name.replace('/', ".")) {
            sysctl.duplicate("name");
        }
    });
}

/// Whoever sees all of /proc must not be the machine's own root. Rule: `ValidateSecurityContext`.
fn masked(spec: &mut Check<'_, '_>) {
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        spec.each(list, |container| {
            container.within("securityContext", |context| {
                if context.get("procMount") == "Unmasked" {
                    context.invalid("procMount", "`hostUsers` must be false to use `Unmasked`");
                }
            });
        });
    }
}

/// Rule: `ValidateSecurityContext`.
pub fn container_security(context: &mut Check<'_, '_>) {
    ids(context, &["runAsUser", "runAsGroup"]);
    if context.has("procMount") {
        context.one_of("procMount", &["Default", "Unmasked"]);
    }
    profile(context, "seccompProfile", "seccomp");
    if context.get("allowPrivilegeEscalation") == &Value::Bool(false) {
        if context.flag("privileged") {
            context.wrong("cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        let added = context.value.array_at("/capabilities/add");
        if added.iter().any(|capability| capability == "CAP_SYS_ADMIN") {
            context
                .wrong("cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
    profile(context, "appArmorProfile", "AppArmor");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::validate::{Path, check_at};

    #[test]
    fn says_what_is_wrong() {
        let check = |context: Value, expect: &[&str]| {
            let errors = check_at(&context, &Path::new("sc"), container_security);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
        };
        check(json!({"runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}), &[]);
        check(
            json!({"runAsUser": -1}),
            &["sc.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive"],
        );
        check(
            json!({"seccompProfile": {"type": "Localhost"}}),
            &[
                "sc.seccompProfile.localhostProfile: Required value: must be set when seccomp type is Localhost",
            ],
        );
        check(
            json!({"privileged": true, "allowPrivilegeEscalation": false}),
            &[
                "sc: Invalid value: {\"allowPrivilegeEscalation\":false,\"privileged\":true}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            ],
        );
        let pod = |spec: Value, expect: &[&str]| {
            let errors = check_at(&spec, &Path::new("spec"), pod_security);
            assert_eq!(errors.iter().map(ToString::to_string).collect::<Vec<_>>(), expect);
        };
        pod(
            json!({"securityContext": {"sysctls": [{"name": "Kernel"}], "supplementalGroups": [-5]}}),
            &[
                "spec.securityContext.supplementalGroups[0]: Invalid value: -5: must be between 0 and 2147483647, inclusive",
                "spec.securityContext.sysctls[0].name: Invalid value: \"Kernel\": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$",
            ],
        );
        let unmasked = |users: Value| json!({"hostUsers": users, "containers": [{"securityContext": {"procMount": "Unmasked"}}]});
        pod(unmasked(json!(false)), &[]);
        pod(
            unmasked(Value::Null),
            &[
                "spec.containers[0].securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
            ],
        );
        pod(
            json!({"hostNetwork": true, "containers": [{"ports": [{"containerPort": 80, "hostPort": 81}]}]}),
            &[
                "spec.containers[0].ports[0].containerPort: Invalid value: 80: must match `hostPort` when `hostNetwork` is true",
            ],
        );
    }
}
