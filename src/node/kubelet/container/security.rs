//! Security contexts of Pods and containers.

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, PodSecurityContext, PodSpec, SecurityContext};

use crate::cri::api::{
    Capability, Image, Int64Value, LinuxContainerSecurityContext, LinuxSandboxSecurityContext, NamespaceMode,
    NamespaceOption, SecurityProfile, security_profile::ProfileType,
};

/// The Pod asks for a user its image does not give it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SecurityError {
    #[error("container has runAsNonRoot and image will run as root (pod: container \"{0}\")")]
    Root(String),
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (container \"{container}\")"
    )]
    Named { user: String, container: String },
}

/// Checks runAsNonRoot against the container's user, or else the image's.
pub fn check_user(spec: &PodSpec, container: &Container, image: &Image) -> Result<(), SecurityError> {
    let pod = spec.security_context.as_ref();
    let own = container.security_context.as_ref();
    let non_root = own.and_then(|c| c.run_as_non_root).or(pod.and_then(|p| p.run_as_non_root));
    if non_root != Some(true) {
        return Ok(());
    }
    let user = own.and_then(|c| c.run_as_user).or(pod.and_then(|p| p.run_as_user));
    let root = || SecurityError::Root(container.name.clone());
    match (user, &image.uid, image.username.as_str()) {
        (Some(0), ..) => Err(root()),
        (Some(_), ..) => Ok(()),
        (None, Some(Int64Value { value: 0 }), _) | (None, None, "") => Err(root()),
        (None, Some(_), _) => Ok(()),
        (None, None, user) => {
            Err(SecurityError::Named { user: user.to_owned(), container: container.name.clone() })
        }
    }
}

fn seccomp(kind: Option<&k8s_openapi::api::core::v1::SeccompProfile>) -> SecurityProfile {
    let (profile, localhost_ref) =
        match kind.map(|profile| (profile.type_.as_str(), &profile.localhost_profile)) {
            Some(("RuntimeDefault", _)) => (ProfileType::RuntimeDefault, String::new()),
            Some(("Localhost", path)) => {
                let path = path.as_deref().unwrap_or_default();
                (ProfileType::Localhost, format!("/var/lib/kubelet/seccomp/{path}"))
            }
            _ => (ProfileType::Unconfined, String::new()),
        };
    SecurityProfile { profile_type: profile.into(), localhost_ref }
}

/// The profile a container asks for; `None`: the runtime decides, as upstream has it.
fn app_armor(kind: Option<&AppArmorProfile>) -> Option<SecurityProfile> {
    let kind = kind?;
    let (profile, localhost_ref) = match kind.type_.as_str() {
        "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new()),
        "Localhost" => (ProfileType::Localhost, kind.localhost_profile.clone().unwrap_or_default()),
        _ => (ProfileType::Unconfined, String::new()),
    };
    Some(SecurityProfile { profile_type: profile.into(), localhost_ref })
}

fn namespaces(spec: &PodSpec) -> NamespaceOption {
    let mode = |host: Option<bool>, otherwise: NamespaceMode| {
        i32::from(if host == Some(true) { NamespaceMode::Node } else { otherwise })
    };
    let pid = match spec.share_process_namespace {
        Some(true) => NamespaceMode::Pod,
        _ => NamespaceMode::Container,
    };
    NamespaceOption {
        network: mode(spec.host_network, NamespaceMode::Pod),
        pid: mode(spec.host_pid, pid),
        ipc: mode(spec.host_ipc, NamespaceMode::Pod),
        target_id: String::new(),
    }
}

fn groups(pod: Option<&PodSecurityContext>) -> Vec<i64> {
    let Some(pod) = pod else { return Vec::new() };
    pod.fs_group.into_iter().chain(pod.supplemental_groups.iter().flatten().copied()).collect()
}

/// The sandbox holds the namespaces; it is privileged when any container is.
pub fn sandbox_security(spec: &PodSpec) -> LinuxSandboxSecurityContext {
    let pod = spec.security_context.as_ref();
    let privileged = |c: &Container| c.security_context.as_ref().and_then(|s| s.privileged) == Some(true);
    LinuxSandboxSecurityContext {
        namespace_options: Some(namespaces(spec)),
        run_as_user: pod.and_then(|pod| pod.run_as_user).map(|value| Int64Value { value }),
        run_as_group: pod
            .filter(|pod| pod.run_as_user.is_some())
            .and_then(|pod| pod.run_as_group)
            .map(|value| Int64Value { value }),
        supplemental_groups: groups(pod),
        privileged: spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(privileged),
        seccomp: Some(seccomp(pod.and_then(|pod| pod.seccomp_profile.as_ref()))),
        ..Default::default()
    }
}

/// Paths containers must not see or change, unless they are privileged or ask for an unmasked /proc.
const MASKED: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// One container's, its own wishes before the Pod's.
pub fn container_security(
    spec: &PodSpec,
    container: &Container,
    target: Option<String>,
) -> LinuxContainerSecurityContext {
    let mut namespaces = namespaces(spec);
    if let Some(target) = target {
        namespaces.pid = NamespaceMode::Target.into();
        namespaces.target_id = target;
    }
    let none = SecurityContext::default();
    let own = container.security_context.as_ref().unwrap_or(&none);
    let pod = spec.security_context.as_ref();
    let user = own.run_as_user.or(pod.and_then(|pod| pod.run_as_user));
    let group = own.run_as_group.or(pod.and_then(|pod| pod.run_as_group));
    let privileged = own.privileged == Some(true);
    let paths = |list: &[&str]| -> Vec<String> {
        let open = privileged || own.proc_mount.as_deref() == Some("Unmasked");
        if open { Vec::new() } else { list.iter().map(|path| (*path).to_owned()).collect() }
    };
    let profile = own.seccomp_profile.as_ref().or(pod.and_then(|pod| pod.seccomp_profile.as_ref()));
    LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|capabilities| Capability {
            add_capabilities: capabilities.add.clone().unwrap_or_default(),
            drop_capabilities: capabilities.drop.clone().unwrap_or_default(),
        }),
        privileged,
        namespace_options: Some(namespaces),
        run_as_user: user.map(|value| Int64Value { value }),
        run_as_group: group.map(|value| Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups: groups(pod),
        no_new_privs: own.allow_privilege_escalation == Some(false) && !privileged,
        masked_paths: paths(MASKED),
        readonly_paths: paths(READ_ONLY),
        seccomp: Some(if privileged { seccomp(None) } else { seccomp(profile) }),
        apparmor: app_armor(
            own.app_armor_profile.as_ref().or(pod.and_then(|pod| pod.app_armor_profile.as_ref())),
        ),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(value: serde_json::Value) -> PodSpec {
        serde_json::from_value(value).expect("a Pod spec")
    }

    #[test]
    fn non_root_is_checked_against_user_and_image() {
        let check = |security: serde_json::Value, uid: Option<i64>, name: &str, fine: bool| {
            let spec = spec(json!({"containers": [{"name": "c", "securityContext": security}]}));
            let image = Image {
                uid: uid.map(|value| Int64Value { value }),
                username: name.into(),
                ..Default::default()
            };
            assert_eq!(
                check_user(&spec, &spec.containers[0], &image).is_ok(),
                fine,
                "{security} {uid:?} {name}"
            );
        };
        check(json!({}), None, "", true);
        check(json!({"runAsNonRoot": true}), None, "", false);
        check(json!({"runAsNonRoot": true}), Some(0), "", false);
        check(json!({"runAsNonRoot": true}), Some(101), "", true);
        check(json!({"runAsNonRoot": true}), None, "nginx", false);
        check(json!({"runAsNonRoot": true, "runAsUser": 0}), Some(1), "", false);
        check(json!({"runAsNonRoot": true, "runAsUser": 5}), None, "nginx", true);
    }

    #[test]
    fn the_runtime_is_told_of_apparmor_profiles() {
        let check = |pod: serde_json::Value, own: serde_json::Value, expect: Option<(ProfileType, &str)>| {
            let spec =
                spec(json!({"securityContext": pod, "containers": [{"name": "c", "securityContext": own}]}));
            let told = container_security(&spec, &spec.containers[0], None).apparmor;
            let told = told.map(|profile| (profile.profile_type(), profile.localhost_ref.clone()));
            assert_eq!(told, expect.map(|(kind, name)| (kind, name.to_owned())), "{spec:?}");
        };
        let default = json!({"appArmorProfile": {"type": "RuntimeDefault"}});
        let named = json!({"appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"}});
        check(json!({}), json!({}), None);
        check(default.clone(), json!({}), Some((ProfileType::RuntimeDefault, "")));
        check(default, named, Some((ProfileType::Localhost, "mine")));
    }

    #[test]
    fn the_container_s_wish_comes_first() {
        let spec = spec(json!({
            "securityContext": {"runAsUser": 1, "fsGroup": 7, "supplementalGroups": [8]},
            "hostPID": true,
            "containers": [{"name": "c", "securityContext": {"runAsUser": 2, "allowPrivilegeEscalation": false}}]
        }));
        let context = container_security(&spec, &spec.containers[0], None);
        assert_eq!(context.run_as_user, Some(Int64Value { value: 2 }));
        assert_eq!(context.supplemental_groups, [7, 8]);
        assert!(context.no_new_privs);
        assert_eq!(context.namespace_options.expect("set").pid, i32::from(NamespaceMode::Node));
        assert_eq!(context.apparmor, None);
    }
}
