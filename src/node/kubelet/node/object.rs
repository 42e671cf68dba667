//! The Node object as this node writes it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeFeatures,
    NodeSpec, NodeStatus, NodeSystemInfo, Taint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::cri::api;
use crate::kubelet::pressure::{Limits, Pressure};
use config::NodeConfig;
use config::eviction::Signal;
use sys::cgroups::Capacity;
use sys::identity::Machine;

/// The API level this kubelet follows.
pub const VERSION: &str = "v1.36.0+minik";
/// Where the kubelet's server listens.
pub const PORT: u16 = 10250;
/// Upstream's default.
const PODS: u32 = 110;
/// Upstream reports the largest ones only.
const IMAGES: usize = 50;

/// Everything node status is made from.
#[derive(Clone, Debug)]
pub struct Facts {
    pub machine: Machine,
    pub capacity: Capacity,
    /// Bytes of the file system that holds containers.
    pub disk: u64,
    pub pressure: Pressure,
    pub limits: Limits,
    pub runtime_version: String,
    pub images: Vec<api::Image>,
    /// Why the node cannot run Pods; empty when it can.
    pub not_ready: Vec<String>,
    /// Attached volumes that Pods use.
    pub volumes_in_use: Vec<String>,
}

/// The object a new node registers.
pub fn registration(config: &NodeConfig, machine: &Machine) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(config.node.clone()),
            labels: Some(labels(config, machine)),
            ..Default::default()
        },
        spec: Some(NodeSpec {
            provider_id: Some(format!("minik://{}/{}", config.cluster, config.node)),
            taints: (!config.settings.taints.is_empty())
                .then(|| config.settings.taints.iter().filter_map(|text| taint(text)).collect()),
            ..Default::default()
        }),
        status: None,
    }
}

/// The labels this node gives itself. Roles are not among them: a node may not say that it is a control plane
/// (NodeRestriction); who set it up says so.
pub fn labels(config: &NodeConfig, machine: &Machine) -> BTreeMap<String, String> {
    let arch = machine.architecture.to_owned();
    // What was asked for first: what the node is cannot be said otherwise.
    let mut labels = config.settings.labels.clone();
    labels.extend([
        ("kubernetes.io/hostname".to_owned(), config.node.clone()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), arch.clone()),
        ("beta.kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("beta.kubernetes.io/arch".to_owned(), arch),
    ]);
    labels
}

/// `KEY[=VALUE]:EFFECT` as people write taints; the command line has checked it.
fn taint(text: &str) -> Option<Taint> {
    let (rest, effect) = text.rsplit_once(':')?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    Some(Taint {
        key: key.to_owned(),
        value: (!value.is_empty()).then(|| value.to_owned()),
        effect: effect.to_owned(),
        time_added: None,
    })
}

/// The node's status now. `before` gives the times of conditions that have not changed.
pub fn status(config: &NodeConfig, facts: &Facts, before: Option<&NodeStatus>, now: Timestamp) -> NodeStatus {
    let more = extended(before);
    let with = |mut own: BTreeMap<String, Quantity>| {
        own.extend(more.clone());
        own
    };
    NodeStatus {
        capacity: Some(with(resources(config, facts, |_, _| 0))),
        allocatable: Some(with(resources(config, facts, |signal, all| facts.limits.reserve(signal, all)))),
        conditions: Some(conditions(facts, before, now)),
        addresses: Some(vec![
            address("InternalIP", &config.node_ip.to_string()),
            address("Hostname", &config.node),
        ]),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(PORT) }),
        }),
        node_info: Some(NodeSystemInfo {
            machine_id: facts.machine.machine_id.clone(),
            system_uuid: facts.machine.machine_id.clone(),
            boot_id: facts.machine.boot_id.clone(),
            kernel_version: facts.machine.kernel.clone(),
            os_image: facts.machine.os_image.clone(),
            container_runtime_version: facts.runtime_version.clone(),
            kubelet_version: VERSION.to_owned(),
            kube_proxy_version: String::new(),
            operating_system: "linux".to_owned(),
            architecture: facts.machine.architecture.to_owned(),
            swap: None,
        }),
        // The runtime gives containers the groups of their image whatever the Pod says.
        features: Some(NodeFeatures { supplemental_groups_policy: Some(false) }),
        images: Some(images(&facts.images)),
        // An empty list takes away what was in use.
        volumes_in_use: Some(facts.volumes_in_use.clone()),
        ..Default::default()
    }
}

fn address(kind: &str, address: &str) -> NodeAddress {
    NodeAddress { type_: kind.to_owned(), address: address.to_owned() }
}

/// What the node has, less what is kept back of each.
fn resources(
    config: &NodeConfig,
    facts: &Facts,
    reserve: impl Fn(Signal, u64) -> u64,
) -> BTreeMap<String, Quantity> {
    let cpu = facts.capacity.cpu_milli;
    let cpu = if cpu.is_multiple_of(1000) { (cpu / 1000).to_string() } else { format!("{cpu}m") };
    let kib = |bytes: u64| format!("{}Ki", bytes / 1024);
    let given = |signal: Signal, all: u64| all.saturating_sub(reserve(signal, all));
    let pods = config.settings.arguments.max_pods.unwrap_or(PODS);
    BTreeMap::from([
        ("cpu".to_owned(), Quantity(cpu)),
        ("memory".to_owned(), Quantity(kib(given(Signal::Memory, facts.capacity.memory)))),
        ("ephemeral-storage".to_owned(), Quantity(kib(given(Signal::Disk, facts.disk)))),
        ("pods".to_owned(), Quantity(pods.to_string())),
    ])
}

/// Resources somebody else gave the node: those of its capacity with a name of their own. All of them may be used.
fn extended(before: Option<&NodeStatus>) -> BTreeMap<String, Quantity> {
    let capacity = before.and_then(|before| before.capacity.clone()).unwrap_or_default();
    capacity.into_iter().filter(|(name, _)| name.contains('/')).collect()
}

fn images(all: &[api::Image]) -> Vec<ContainerImage> {
    let mut all: Vec<&api::Image> = all.iter().collect();
    all.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    all.truncate(IMAGES);
    all.into_iter()
        .map(|image| ContainerImage {
            names: Some(image.repo_digests.iter().chain(&image.repo_tags).cloned().collect()),
            size_bytes: i64::try_from(image.size).ok(),
        })
        .collect()
}

fn conditions(facts: &Facts, before: Option<&NodeStatus>, now: Timestamp) -> Vec<NodeCondition> {
    let pressure = |kind: &str, holds: bool, yes: (&str, &str), no: (&str, &str)| {
        let (reason, message) = if holds { yes } else { no };
        (kind.to_owned(), holds, reason.to_owned(), message.to_owned())
    };
    let ready = facts.not_ready.is_empty();
    let all = [
        pressure(
            "MemoryPressure",
            facts.pressure.memory,
            ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
            ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ),
        pressure(
            "DiskPressure",
            facts.pressure.disk,
            ("KubeletHasDiskPressure", "kubelet has disk pressure"),
            ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ),
        pressure(
            "PIDPressure",
            facts.pressure.processes,
            ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
            ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ),
        (
            "Ready".to_owned(),
            ready,
            if ready { "KubeletReady" } else { "KubeletNotReady" }.to_owned(),
            if ready { "kubelet is posting ready status".to_owned() } else { facts.not_ready.join(", ") },
        ),
    ];
    all.into_iter().map(|condition| dated(condition, before, now)).collect()
}

fn dated(
    (kind, holds, reason, message): (String, bool, String, String),
    before: Option<&NodeStatus>,
    now: Timestamp,
) -> NodeCondition {
    let status = if holds { "True" } else { "False" };
    let now = Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)));
    let old = before
        .and_then(|before| before.conditions.as_ref()?.iter().find(|old| old.type_ == kind))
        .filter(|old| old.status == status);
    NodeCondition {
        type_: kind,
        status: status.to_owned(),
        reason: Some(reason),
        message: Some(message),
        last_heartbeat_time: now.clone(),
        last_transition_time: old.and_then(|old| old.last_transition_time.clone()).or(now),
    }
}

/// Whether `theirs` says all that `ours` says, but for heartbeat times. What others added to it does not count.
pub fn same(theirs: &NodeStatus, ours: &NodeStatus) -> bool {
    let plain = |status: &NodeStatus| {
        let mut status = status.clone();
        for condition in status.conditions.iter_mut().flatten() {
            condition.last_heartbeat_time = None;
        }
        let all = status.conditions.iter().flatten();
        let mut conditions: Vec<_> = all.filter(|c| OWN.contains(&c.type_.as_str())).cloned().collect();
        conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
        NodeStatus {
            conditions: Some(conditions),
            capacity: status.capacity,
            allocatable: status.allocatable,
            addresses: status.addresses,
            daemon_endpoints: status.daemon_endpoints,
            node_info: status.node_info,
            images: status.images.filter(|images| !images.is_empty()),
            volumes_in_use: status.volumes_in_use.filter(|volumes| !volumes.is_empty()),
            ..Default::default()
        }
    };
    plain(theirs) == plain(ours)
}

/// What to say of the conditions that have turned since `before`, by upstream's reasons of Events.
pub fn turned(before: Option<&NodeStatus>, now: &NodeStatus) -> Vec<&'static str> {
    let all = |status: &NodeStatus| -> BTreeMap<String, String> {
        let conditions = status.conditions.iter().flatten();
        conditions.map(|condition| (condition.type_.clone(), condition.status.clone())).collect()
    };
    let before = before.map(all).unwrap_or_default();
    let known = before.contains_key("Ready");
    let turned = |(kind, status): &(String, String)| before.get(kind).is_none_or(|old| old != status);
    let reason = |(kind, status): (String, String)| {
        Some(match (kind.as_str(), status == "True") {
            ("MemoryPressure", true) => "NodeHasInsufficientMemory",
            ("MemoryPressure", false) => "NodeHasSufficientMemory",
            ("DiskPressure", true) => "NodeHasDiskPressure",
            ("DiskPressure", false) => "NodeHasNoDiskPressure",
            ("PIDPressure", true) => "NodeHasInsufficientPID",
            ("PIDPressure", false) => "NodeHasSufficientPID",
            ("Ready", true) => "NodeReady",
            // A node begins so: that is no news.
            ("Ready", false) if known => "NodeNotReady",
            _ => return None,
        })
    };
    all(now).into_iter().filter(turned).filter_map(reason).collect()
}

/// The conditions this kubelet writes.
const OWN: &[&str] = &["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];

#[cfg(test)]
mod tests {
    use super::*;
    use config::NodeConfig;

    fn facts() -> Facts {
        Facts {
            machine: Machine { architecture: "amd64", ..Machine::default() },
            capacity: Capacity { cpu_milli: 2000, memory: 4 << 30, memory_available: 2 << 30, pids: 32_768 },
            disk: 100 << 30,
            pressure: Pressure::default(),
            limits: Limits::new(&config::Arguments::default()),
            runtime_version: "containerd://1.7.24".into(),
            images: Vec::new(),
            not_ready: Vec::new(),
            volumes_in_use: Vec::new(),
        }
    }

    fn value(status: &NodeStatus, kind: &str) -> String {
        let conditions = status.conditions.as_deref().unwrap_or_default();
        conditions.iter().find(|c| c.type_ == kind).map(|c| c.status.clone()).unwrap_or_default()
    }

    #[test]
    fn a_node_registers_with_what_was_asked_of_it() {
        let mut config = NodeConfig::example();
        config.settings.labels =
            [("zone", "a"), ("kubernetes.io/os", "other")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        config.settings.taints = vec!["only=me:NoSchedule".to_owned(), "bare:NoExecute".to_owned()];
        let node = registration(&config, &facts().machine);
        let labels = node.metadata.labels.expect("labels");
        assert_eq!((labels["zone"].as_str(), labels["kubernetes.io/os"].as_str()), ("a", "linux"));
        let taints = node.spec.and_then(|spec| spec.taints).expect("taints");
        let brief: Vec<_> =
            taints.iter().map(|t| (t.key.as_str(), t.value.as_deref(), t.effect.as_str())).collect();
        assert_eq!(brief, [("only", Some("me"), "NoSchedule"), ("bare", None, "NoExecute")]);
    }

    #[test]
    fn conditions_follow_the_facts() {
        let check = |change: fn(&mut Facts), kind: &str, expect: &str| {
            let mut facts = facts();
            change(&mut facts);
            let status = status(&NodeConfig::example(), &facts, None, Timestamp::UNIX_EPOCH);
            assert_eq!(value(&status, kind), expect, "{kind}");
        };
        check(|_| (), "Ready", "True");
        check(|facts| facts.not_ready.push("no network".into()), "Ready", "False");
        check(|facts| facts.pressure.memory = true, "MemoryPressure", "True");
        check(|_| (), "DiskPressure", "False");
        check(|facts| facts.pressure.processes = true, "PIDPressure", "True");
    }

    #[test]
    fn conditions_that_turn_are_told_of() {
        let at = |change: fn(&mut Facts)| {
            let mut facts = facts();
            change(&mut facts);
            status(&NodeConfig::example(), &facts, None, Timestamp::UNIX_EPOCH)
        };
        let (well, full) = (at(|_| ()), at(|facts| facts.pressure.disk = true));
        assert_eq!(turned(Some(&well), &full), ["NodeHasDiskPressure"]);
        assert_eq!(turned(Some(&full), &well), ["NodeHasNoDiskPressure"]);
        assert_eq!(turned(None, &well).len(), 4, "at first all are news");
        assert!(turned(Some(&well), &well).is_empty());
    }

    #[test]
    fn times_move_only_with_the_status() {
        let first = status(&NodeConfig::example(), &facts(), None, Timestamp::UNIX_EPOCH);
        let later = Timestamp::from_second(60).expect("time");
        let second = status(&NodeConfig::example(), &facts(), Some(&first), later);
        assert!(same(&first, &second));
        assert_eq!(
            second.conditions.as_ref().and_then(|c| c[3].last_transition_time.clone()),
            Some(Time(Timestamp::UNIX_EPOCH))
        );
        let memory = second.allocatable.clone().and_then(|map| map.get("memory").cloned());
        assert_eq!(memory, Some(Quantity("4091904Ki".into())));
    }

    #[test]
    fn what_others_write_is_seen() {
        let ours = status(&NodeConfig::example(), &facts(), None, Timestamp::UNIX_EPOCH);
        let mut theirs = ours.clone();
        theirs.volumes_attached = Some(Vec::new());
        assert!(same(&theirs, &ours), "a field of others is none of ours");
        for condition in theirs.conditions.iter_mut().flatten().filter(|c| c.type_ == "Ready") {
            condition.status = "Unknown".into();
        }
        assert!(!same(&theirs, &ours), "the node was thought dead");
        let mut used = ours.clone();
        used.volumes_in_use = Some(vec!["x".into()]);
        assert!(!same(&used, &ours), "one that is in use no more");
        let mut given = ours.clone();
        given.capacity.get_or_insert_default().insert("example.com/gpu".into(), Quantity("3".into()));
        let answer = status(&NodeConfig::example(), &facts(), Some(&given), Timestamp::UNIX_EPOCH);
        let allocatable = answer.allocatable.as_ref().and_then(|all| all.get("example.com/gpu"));
        assert_eq!(allocatable, Some(&Quantity("3".into())));
        assert!(!same(&given, &answer));
    }
}
