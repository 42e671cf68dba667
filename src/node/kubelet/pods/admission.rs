//! Whether the node takes a Pod.

use std::path::Path;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{AppArmorProfile, Container, Node, Pod, PodSpec, Taint};

use super::status::is_terminal;
use crate::kubelet::container::{Qos, qos};
use crate::kubelet::pressure::{Pressure, is_critical};
use crate::kubelet::spec as spec_of;
use crate::kubelet::statics::is_static;
use client::typed::resources::{Amounts, add, amounts, requested};
use client::typed::{HostPort, first_untolerated, host_ports, node_allowed, tolerates_any};

/// Why the node does not take a Pod, as its Failed status says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: String,
    pub message: String,
}

/// Kernel parameters a Pod may set without asking: those that stay inside its own namespaces.
const SAFE_SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Whether a Pod fits this node, beside the `others` on it: the scheduler may have been passed by, or have seen less.
pub fn refusal(pod: &Pod, others: &[Arc<Pod>], node: &Node, pressure: Pressure) -> Option<Refusal> {
    let spec = spec_of(pod);
    let refuse = |reason: &str, message: String| {
        Some(Refusal { reason: reason.to_owned(), message: format!("Pod was rejected: {message}") })
    };
    if is_pressed(pod, pressure) {
        let conditions = pressure.conditions().join(" ");
        return refuse("Evicted", format!("The node had condition: [{conditions}]. "));
    }
    let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    for sysctl in sysctls {
        let name = sysctl.name.replace('/', ".");
        if !SAFE_SYSCTLS.contains(&name.as_str()) {
            return refuse("SysctlForbidden", format!("forbidden sysctl: \"{name}\" not allowlisted"));
        }
    }
    if spec.host_users == Some(false) {
        let text = "hostUsers: false is not supported: this node's runtime has no user namespaces";
        return refuse("UserNamespacesUnsupported", text.to_owned());
    }
    let groups = spec.security_context.as_ref().and_then(|c| c.supplemental_groups_policy.as_deref());
    if groups == Some("Strict") {
        let text = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return refuse("SupplementalGroupsPolicyNotSupported", text.to_owned());
    }
    if asks_for_apparmor(spec) && !Path::new("/sys/module/apparmor/parameters/enabled").exists() {
        return refuse("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host".to_owned());
    }
    if let Some((reason, text)) = other_system(pod) {
        return refuse(reason, text.to_owned());
    }
    let running = living(others);
    if let Some((name, asked, used, capacity)) = shortage(pod, &running, node) {
        let text = format!(
            "Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {capacity}"
        );
        return refuse(&format!("OutOf{name}"), text);
    }
    if !node_allowed(pod, node) {
        let text = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return refuse("NodeAffinity", text.to_owned());
    }
    let taken: Vec<HostPort> = running.iter().flat_map(|other| host_ports(spec_of(other))).collect();
    if host_ports(spec).iter().any(|port| taken.iter().any(|have| have.conflicts(port))) {
        let text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return refuse("NodePorts", text.to_owned());
    }
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let ends = first_untolerated(taints, spec.tolerations.as_ref(), &["NoExecute"]);
    if ends.is_some() && !is_static(pod) {
        let text = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        return refuse("TaintToleration", text.to_owned());
    }
    None
}

/// The reason and the words for a Pod that says, by its field or by its own label, that it is for another operating system.
fn other_system(pod: &Pod) -> Option<(&'static str, &'static str)> {
    let label = pod.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/os"));
    if label.is_some_and(|system| system != "linux") {
        let text = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Some(("PodOSSelectorNodeLabelDoesNotMatch", text));
    }
    let field = spec_of(pod).os.as_ref();
    let text = "Failed to admit pod as the OS field doesn't match node OS";
    field.is_some_and(|os| os.name != "linux").then_some(("PodOSNotSupported", text))
}

/// Whether a node that is short of something cannot take one more Pod: where only memory is, those that ask for some may
/// come, and those that bear it.
fn is_pressed(pod: &Pod, pressure: Pressure) -> bool {
    if pressure == Pressure::default() || is_critical(pod) {
        return false;
    }
    if pressure.disk || pressure.processes || qos(spec_of(pod)) != Qos::BestEffort {
        return pressure.disk || pressure.processes;
    }
    let taint = Taint {
        key: "node.kubernetes.io/memory-pressure".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    !tolerates_any(spec_of(pod).tolerations.as_ref(), &taint)
}

/// Whether a running Pod may have what it asks for now, beside the `others`: what the node will never have is not feasible,
/// what others have may become free.
pub fn no_room(pod: &Pod, others: &[Arc<Pod>], node: &Node) -> Option<Refusal> {
    let (name, asked, used, has) = shortage(pod, &living(others), node)?;
    let (reason, message) = match asked > has {
        true => (
            "Infeasible",
            format!("Node didn't have enough capacity: {name}, requested: {asked}, capacity: {has}"),
        ),
        false => (
            "Deferred",
            format!(
                "Node didn't have enough resource: {name}, requested: {asked}, used: {used}, capacity: {has}"
            ),
        ),
    };
    Some(Refusal { reason: reason.to_owned(), message })
}

/// Whether a container wants a profile by name or the runtime's own; without a word none is needed.
fn asks_for_apparmor(spec: &PodSpec) -> bool {
    let asks =
        |profile: Option<&AppArmorProfile>| profile.is_some_and(|profile| profile.type_ != "Unconfined");
    let own = |container: &Container| {
        asks(container.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref()))
    };
    asks(spec.security_context.as_ref().and_then(|context| context.app_armor_profile.as_ref()))
        || spec.containers.iter().chain(spec.init_containers.iter().flatten()).any(own)
}

fn living(pods: &[Arc<Pod>]) -> Vec<&Pod> {
    let phase = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.clone());
    pods.iter()
        .map(AsRef::as_ref)
        .filter(|pod| !phase(pod).is_some_and(|phase| is_terminal(&phase)))
        .collect()
}

/// The first resource there is not enough of: name, asked for, used, allocatable.
fn shortage(pod: &Pod, running: &[&Pod], node: &Node) -> Option<(String, i64, i64, i64)> {
    let allocatable = amounts(node.status.as_ref()?.allocatable.as_ref());
    let count = i64::try_from(running.len()).unwrap_or(i64::MAX);
    let pods = *allocatable.get("pods")?;
    if count >= pods {
        return Some(("pods".to_owned(), 1, count, pods));
    }
    let asked = requested(pod);
    let mut used = Amounts::new();
    running.iter().for_each(|other| add(&mut used, &requested(other), 1));
    // An extended resource that the node has never heard of may be somebody else's to count; of what it does not have at
    // all, as huge pages, nobody gets any.
    let counted = |name: &String| !name.contains('/') || allocatable.contains_key(name);
    asked.into_iter().filter(|(name, asked)| *asked > 0 && counted(name)).find_map(|(name, asked)| {
        let of = |amounts: &Amounts| amounts.get(&name).copied().unwrap_or(0);
        let (used, has) = (of(&used), of(&allocatable));
        (used.saturating_add(asked) > has).then_some((name, asked, used, has))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::testing;
    use serde_json::{Value, json};

    fn check(spec: Value, others: &[Value], expect: Option<&str>) {
        let pod = |spec: &Value| testing::pod(json!({"metadata": {"name": "a"}, "spec": spec}));
        let node = serde_json::from_value(json!({"metadata": {"labels": {"disk": "ssd"}},
            "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "2"}}}))
        .expect("a Node");
        let others: Vec<_> = others.iter().map(|spec| Arc::new(pod(spec))).collect();
        let refusal = refusal(&pod(&spec), &others, &node, Pressure::default());
        assert_eq!(refusal.as_ref().map(|r| r.reason.as_str()), expect, "{spec} {refusal:?}");
    }

    #[test]
    fn what_never_fits_is_told_apart_from_what_may() {
        let check = |cpu: &str, other: &str, expect: Option<&str>| {
            let pod = |cpu: &str| {
                let container = json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
                testing::pod(json!({"metadata": {"name": "a"}, "spec": {"containers": [container]}}))
            };
            let node = serde_json::from_value(
                json!({"status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "9"}}}),
            )
            .expect("a Node");
            let found = no_room(&pod(cpu), &[Arc::new(pod(other))], &node);
            assert_eq!(found.as_ref().map(|found| found.reason.as_str()), expect, "{cpu} {other} {found:?}");
        };
        check("1", "1", None);
        check("1500m", "1", Some("Deferred"));
        check("3", "1", Some("Infeasible"));
    }

    #[test]
    fn a_node_that_is_short_of_something_takes_only_who_may_come() {
        let node = serde_json::from_value(json!({"status": {"allocatable": {"cpu": "2", "pods": "9"}}}));
        let node: Node = node.expect("a Node");
        let check = |spec: Value, pressure: Pressure, expect: Option<&str>| {
            let pod = testing::pod(json!({"metadata": {"name": "a"}, "spec": spec}));
            let found = refusal(&pod, &[], &node, pressure).map(|refusal| refusal.message);
            assert_eq!(found.as_deref(), expect, "{spec} {pressure:?}");
        };
        let memory = Pressure { memory: true, ..Pressure::default() };
        let both = Pressure { memory: true, disk: true, ..Pressure::default() };
        let plain = json!({"containers": [{"name": "c"}]});
        let asks = json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": "1m"}}}]});
        let bears = json!({"containers": [{"name": "c"}], "tolerations": [
            {"key": "node.kubernetes.io/memory-pressure", "operator": "Exists", "effect": "NoSchedule"}]});
        let critical = json!({"containers": [{"name": "c"}], "priority": 2_000_001_000});
        let text = "Pod was rejected: The node had condition: [MemoryPressure]. ";
        check(plain.clone(), Pressure::default(), None);
        check(plain, memory, Some(text));
        check(asks.clone(), memory, None);
        check(bears, memory, None);
        let text = "Pod was rejected: The node had condition: [MemoryPressure DiskPressure]. ";
        check(asks, both, Some(text));
        check(critical, both, None);
    }

    #[test]
    fn pods_that_do_not_fit_are_refused() {
        let asks =
            |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]});
        let port = json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 80}]}]});
        let at = |ip: &str| {
            json!({"containers": [{"name": "c",
                "ports": [{"containerPort": 1, "hostPort": 80, "hostIP": ip}]}]})
        };
        let sysctl = |name: &str| {
            json!({"containers": [{"name": "c"}],
                "securityContext": {"sysctls": [{"name": name, "value": "1"}]}})
        };
        check(asks("2"), &[], None);
        check(asks("2500m"), &[], Some("OutOfcpu"));
        check(asks("1"), &[asks("1500m")], Some("OutOfcpu"));
        check(asks("0"), &[asks("0"), asks("0")], Some("OutOfpods"));
        let pages = json!({"hugepages-2Mi": "4Mi"});
        let huge = json!({"containers": [{"name": "c", "resources": {"requests": pages, "limits": pages}}]});
        check(huge, &[], Some("OutOfhugepages-2Mi"));
        let strict = json!({"containers": [], "securityContext": {"supplementalGroupsPolicy": "Strict"}});
        check(strict, &[], Some("SupplementalGroupsPolicyNotSupported"));
        check(port.clone(), &[port], Some("NodePorts"));
        check(at("127.0.0.1"), &[at("10.0.0.1")], None);
        check(at("127.0.0.1"), &[at("0.0.0.0")], Some("NodePorts"));
        let whole = json!({"containers": [{"name": "c"}], "resources": {"requests": {"cpu": "1500m"}}});
        check(whole, &[asks("1")], Some("OutOfcpu"));
        let heavy = json!({"containers": [{"name": "c"}], "overhead": {"memory": "2Gi"}});
        check(heavy, &[], Some("OutOfmemory"));
        check(sysctl("kernel.shm_rmid_forced"), &[], None);
        check(sysctl("kernel.msgmax"), &[], Some("SysctlForbidden"));
        check(json!({"containers": [], "nodeSelector": {"disk": "hdd"}}), &[], Some("NodeAffinity"));
        check(json!({"containers": [], "nodeSelector": {"disk": "ssd"}}), &[], None);
        let asks_affinity = |disk: &str| {
            let term = json!({"matchExpressions": [{"key": "disk", "operator": "In", "values": [disk]}]});
            json!({"containers": [], "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}})
        };
        check(asks_affinity("hdd"), &[], Some("NodeAffinity"));
        check(asks_affinity("ssd"), &[], None);
        check(json!({"containers": [], "hostUsers": false}), &[], Some("UserNamespacesUnsupported"));
        check(json!({"containers": [], "os": {"name": "windows"}}), &[], Some("PodOSNotSupported"));
        check(json!({"containers": [], "os": {"name": "linux"}}), &[], None);
        let device = json!({"example.com/device": "1"});
        let asks_device = json!({"containers": [{"name": "c", "resources": {"requests": device}}]});
        check(asks_device, &[], None);
    }

    #[test]
    fn a_taint_that_ends_pods_keeps_new_ones_out_but_those_of_the_node_itself() {
        let node = json!({"spec": {"taints": [{"key": "gone", "effect": "NoExecute"}, {"key": "full", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"cpu": "2", "pods": "9"}}});
        let node: Node = serde_json::from_value(node).expect("a Node");
        let check = |meta: Value, tolerations: Value, expect: Option<&str>| {
            let pod = testing::pod(
                json!({"metadata": meta, "spec": {"containers": [], "tolerations": tolerations}}),
            );
            let found = refusal(&pod, &[], &node, Pressure::default()).map(|refusal| refusal.reason);
            assert_eq!(found.as_deref(), expect, "{meta} {tolerations}");
        };
        let bears = json!([{"key": "gone", "operator": "Exists"}]);
        check(json!({"name": "a"}), json!([]), Some("TaintToleration"));
        check(json!({"name": "a"}), bears.clone(), None);
        check(json!({"name": "a", "annotations": {"kubernetes.io/config.source": "file"}}), json!([]), None);
        let label = json!({"name": "a", "labels": {"kubernetes.io/os": "windows"}});
        check(label, bears, Some("PodOSSelectorNodeLabelDoesNotMatch"));
    }
}
