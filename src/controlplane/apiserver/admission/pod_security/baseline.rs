//! The baseline: nothing that is known to lead out of a container.

use std::collections::BTreeSet;

use serde_json::Value;

use super::containers::{all, named, quoted, those};
use super::{Level, Standard, Violation};
use api::meta::ObjectExt;

const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SYSCTLS: [&str; 5] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
];
const LATER_SYSCTLS: [(&str, u32); 6] = [
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
];
const SELINUX_TYPES: [&str; 5] =
    ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

/// Finds what the baseline forbids, in the order of the rules' names. Rules that restricted has a stricter form of are left to it.
pub fn check(pod: &Value, standard: Standard, found: &mut Vec<Violation>) {
    let stricter = standard.level == Level::Restricted;
    let mut add = |reason: &'static str, detail: Option<String>| {
        if let Some(detail) = detail {
            found.push(Violation { reason, detail });
        }
    };
    add("forbidden AppArmor profile", app_armor(pod));
    if !stricter {
        add("non-default capabilities", added_capabilities(pod, &CAPABILITIES));
    }
    add("host namespaces", host_namespaces(pod));
    if !stricter {
        add("hostPath volumes", host_paths(pod));
    }
    add("hostPort", host_ports(pod));
    let privileged = those(pod, |c| c.bool_at("/securityContext/privileged") == Some(true));
    add("privileged", must_not(&privileged, "set securityContext.privileged=true"));
    let masked =
        those(pod, |c| !matches!(c.str_at("/securityContext/procMount"), None | Some("" | "Default")));
    add("procMount", must_not(&masked, "set securityContext.procMount to \"Unmasked\""));
    add("seLinuxOptions", selinux(pod));
    if !stricter {
        add("seccompProfile", seccomp(pod));
    }
    add("forbidden sysctls", sysctls(pod, standard));
    add("hostProcess", host_process(pod));
}

fn must_not(names: &[&str], what: &str) -> Option<String> {
    (!names.is_empty()).then(|| format!("{} must not {what}", named("container", names)))
}

/// Containers that add capabilities which are not among these.
pub fn added_capabilities(pod: &Value, allowed: &[&str]) -> Option<String> {
    let mut names = Vec::new();
    let mut forbidden: BTreeSet<&str> = BTreeSet::new();
    for container in all(pod) {
        let added = container.array_at("/securityContext/capabilities/add").iter().filter_map(Value::as_str);
        let wrong: Vec<&str> = added.filter(|added| !allowed.contains(added)).collect();
        if !wrong.is_empty() {
            names.push(container.text("name").unwrap_or_default());
            forbidden.extend(wrong);
        }
    }
    let list: Vec<&str> = forbidden.into_iter().collect();
    must_not(&names, &format!("include {} in securityContext.capabilities.add", quoted(&list)))
}

fn host_namespaces(pod: &Value) -> Option<String> {
    let said = ["hostNetwork", "hostPID", "hostIPC"];
    let said = said.iter().filter(|field| pod.bool_at(&format!("/spec/{field}")) == Some(true));
    let said: Vec<String> = said.map(|field| format!("{field}=true")).collect();
    (!said.is_empty()).then(|| said.join(", "))
}

fn host_paths(pod: &Value) -> Option<String> {
    let volumes = pod.array_at("/spec/volumes").iter();
    let volumes = volumes.filter(|volume| volume.get("hostPath").is_some_and(|source| !source.is_null()));
    let names: Vec<&str> = volumes.map(|volume| volume.text("name").unwrap_or_default()).collect();
    (!names.is_empty()).then(|| named("volume", &names))
}

fn host_ports(pod: &Value) -> Option<String> {
    let mut names = Vec::new();
    let mut ports: BTreeSet<i64> = BTreeSet::new();
    for container in all(pod) {
        let own = container.array_at("/ports").iter().filter_map(|port| port.int_at("/hostPort"));
        let own: Vec<i64> = own.filter(|port| *port != 0).collect();
        if !own.is_empty() {
            names.push(container.text("name").unwrap_or_default());
            ports.extend(own);
        }
    }
    let list: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let (verb, s) = (if names.len() == 1 { "uses" } else { "use" }, if list.len() == 1 { "" } else { "s" });
    (!names.is_empty())
        .then(|| format!("{} {verb} hostPort{s} {}", named("container", &names), list.join(", ")))
}

/// Who sets a field to a forbidden value: the Pod, containers, or both.
fn setters(pod: &Value, which: impl Fn(&Value) -> bool) -> Option<String> {
    let own = pod.pointer("/spec/securityContext").is_some_and(&which);
    let names = those(pod, |container| container.get("securityContext").is_some_and(&which));
    match (own, names.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".to_owned()),
        (false, false) => Some(named("container", &names)),
        (true, false) => Some(format!("pod and {}", named("container", &names))),
    }
}

fn app_armor(pod: &Value) -> Option<String> {
    const PREFIX: &str = "container.apparmor.security.beta.kubernetes.io/";
    let notes = pod.annotations().filter(|(key, value)| {
        let fine = value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
        key.starts_with(PREFIX) && !fine
    });
    let mut notes: Vec<String> = notes.map(|(key, value)| format!("\"{key}={value}\"")).collect();
    notes.sort_unstable();
    let set = setters(pod, |context| context.str_at("/appArmorProfile/type") == Some("Unconfined"));
    match (notes.is_empty(), set) {
        (true, None) => None,
        (false, None) => Some(notes.join(", ")),
        (_, Some(who)) => {
            Some(format!("{who} must not set securityContext.appArmorProfile.type to \"Unconfined\""))
        }
    }
}

fn selinux(pod: &Value) -> Option<String> {
    let wrong = |context: &Value| {
        let text =
            |key: &str| context.str_at(&format!("/seLinuxOptions/{key}")).unwrap_or_default().to_owned();
        !SELINUX_TYPES.contains(&text("type").as_str())
            || !text("user").is_empty()
            || !text("role").is_empty()
    };
    let who = setters(pod, wrong)?;
    let contexts = pod.pointer("/spec/securityContext").into_iter();
    let contexts: Vec<&Value> = contexts.chain(all(pod).filter_map(|c| c.get("securityContext"))).collect();
    let mut parts = Vec::new();
    let types: BTreeSet<&str> = contexts
        .iter()
        .filter_map(|context| context.str_at("/seLinuxOptions/type"))
        .filter(|kind| !SELINUX_TYPES.contains(kind))
        .collect();
    if !types.is_empty() {
        let list: Vec<&str> = types.into_iter().collect();
        parts.push(format!("type{} {}", if list.len() == 1 { "" } else { "s" }, quoted(&list)));
    }
    for field in ["user", "role"] {
        let pointer = format!("/seLinuxOptions/{field}");
        if contexts.iter().any(|context| context.str_at(&pointer).is_some_and(|text| !text.is_empty())) {
            parts.push(format!("{field} may not be set"));
        }
    }
    let verb = if who == "pod" || who.starts_with("container \"") { "sets" } else { "set" };
    Some(format!("{who} {verb} forbidden securityContext.seLinuxOptions: {}", parts.join("; ")))
}

fn seccomp(pod: &Value) -> Option<String> {
    let who = setters(pod, |context| context.str_at("/seccompProfile/type") == Some("Unconfined"))?;
    Some(format!("{who} must not set securityContext.seccompProfile.type to \"Unconfined\""))
}

fn sysctls(pod: &Value, standard: Standard) -> Option<String> {
    let allowed = |name: &str| {
        SYSCTLS.contains(&name)
            || LATER_SYSCTLS.iter().any(|(own, minor)| *own == name && standard.since(*minor))
            || (name == "net.ipv4.tcp_wmem" && standard.since(32))
    };
    let names = pod.array_at("/spec/securityContext/sysctls").iter().filter_map(|sysctl| sysctl.text("name"));
    let names: Vec<&str> = names.filter(|name| !allowed(name)).collect();
    (!names.is_empty()).then(|| names.join(", "))
}

fn host_process(pod: &Value) -> Option<String> {
    let who = setters(pod, |context| context.bool_at("/windowsOptions/hostProcess") == Some(true))?;
    Some(format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}
