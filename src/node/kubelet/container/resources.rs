//! Requests and limits as cgroup settings, and quality of service.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::cri::api::LinuxContainerResources;
use sys::cgroups;

/// Processes and threads of one Pod: one that forks without end must not take the machine's. Upstream leaves it open unless
/// a kubelet is configured; this is what is commonly set.
const PROCESSES: u64 = 4096;

/// What the Pod asks for as a whole, where it says so itself.
fn pod_level(spec: &PodSpec) -> Option<Limits> {
    spec.resources.as_ref().map(Limits::read).filter(|limits| *limits != Limits::default())
}

/// Quality of service, which decides what is killed first when memory runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn name(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// What one container asked for, in thousandths of a CPU and bytes; `None` where it said nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub cpu_request: Option<u64>,
    pub cpu_limit: Option<u64>,
    pub memory_request: Option<u64>,
    pub memory_limit: Option<u64>,
}

impl Limits {
    /// Requests default to limits, as the API server's defaulting has it.
    pub fn of(container: &Container) -> Self {
        container.resources.as_ref().map(Self::read).unwrap_or_default()
    }

    fn read(resources: &ResourceRequirements) -> Self {
        let get = |map: &Option<BTreeMap<String, Quantity>>, key: &str| map.as_ref()?.get(key).cloned();
        let milli = |map, key| get(map, key).and_then(|quantity| quantity_milli(&quantity));
        let bytes = |map, key| get(map, key).and_then(|quantity| quantity_value(&quantity));
        let cpu_limit = milli(&resources.limits, "cpu");
        let memory_limit = bytes(&resources.limits, "memory");
        Self {
            cpu_request: milli(&resources.requests, "cpu").or(cpu_limit),
            cpu_limit,
            memory_request: bytes(&resources.requests, "memory").or(memory_limit),
            memory_limit,
        }
    }
}

/// What a container asks for, spelled so that it can be compared: `cpu=<request>/<limit> memory=<request>/<limit>`.
pub fn resources_hash(container: &Container) -> String {
    let limits = Limits::of(container);
    let text = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    format!(
        "cpu={}/{} memory={}/{}",
        text(limits.cpu_request),
        text(limits.cpu_limit),
        text(limits.memory_request),
        text(limits.memory_limit)
    )
}

/// Thousandths, rounded up: `1.5` is 1500, `100m` is 100.
pub fn quantity_milli(quantity: &Quantity) -> Option<u64> {
    scaled(&quantity.0, 1000.0)
}

/// Whole units, rounded up: `1Ki` is 1024.
pub fn quantity_value(quantity: &Quantity) -> Option<u64> {
    scaled(&quantity.0, 1.0)
}

fn scaled(text: &str, factor: f64) -> Option<u64> {
    const SUFFIXES: &[(&str, f64)] = &[
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    let text = text.trim();
    let (number, scale) = SUFFIXES
        .iter()
        .find_map(|(suffix, scale)| Some((text.strip_suffix(suffix)?, *scale)))
        .unwrap_or((text, 1.0));
    let value = number.parse::<f64>().ok().filter(|value| *value >= 0.0)? * scale * factor;
    // Decimal fractions of a power of ten are not exact in binary; a hair above a whole number is that number.
    let rounded = (value - 1e-6).ceil().max(0.0);
    (rounded < 9.2e18).then_some(rounded as u64)
}

fn all(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.containers.iter().chain(spec.init_containers.iter().flatten())
}

/// The Pod's class: Guaranteed when every container limits CPU and memory to what it requests, BestEffort when none
/// says anything, Burstable otherwise.
pub fn qos(spec: &PodSpec) -> Qos {
    // What the Pod says as a whole counts for all its containers.
    let whole = pod_level(spec);
    let limits: Vec<Limits> = whole.map_or_else(|| all(spec).map(Limits::of).collect(), |whole| vec![whole]);
    let some = |value: Option<u64>| value.is_some_and(|value| value > 0);
    let says =
        |l: &Limits| [l.cpu_request, l.cpu_limit, l.memory_request, l.memory_limit].into_iter().any(some);
    if !limits.iter().any(says) {
        return Qos::BestEffort;
    }
    let fixed = |l: &Limits| {
        some(l.cpu_limit)
            && some(l.memory_limit)
            && l.cpu_request == l.cpu_limit
            && l.memory_request == l.memory_limit
    };
    if limits.iter().all(fixed) { Qos::Guaranteed } else { Qos::Burstable }
}

/// CPU shares for a request: 1024 per CPU, at least 2.
pub fn cpu_shares(milli: u64) -> u64 {
    (milli * 1024 / 1000).clamp(2, 262_144)
}

const PERIOD: i64 = 100_000;

/// What the runtime enforces for one container. `node_memory` in bytes scales the badness of Burstable containers.
pub fn linux_resources(spec: &PodSpec, container: &Container, node_memory: u64) -> LinuxContainerResources {
    let limits = Limits::of(container);
    let signed = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    LinuxContainerResources {
        cpu_period: PERIOD,
        cpu_quota: limits
            .cpu_limit
            .filter(|milli| *milli > 0)
            .map_or(0, |milli| (signed(milli) * PERIOD / 1000).max(1000)),
        cpu_shares: signed(cpu_shares(limits.cpu_request.unwrap_or(0))),
        memory_limit_in_bytes: limits.memory_limit.map_or(0, signed),
        unified: unified(cgroups::version()),
        oom_score_adj: oom_score_adj(qos(spec), limits.memory_request.unwrap_or(0), node_memory),
        // Without swap accounting the runtime would refuse; memory alone is limited.
        memory_swap_limit_in_bytes: limits.memory_limit.map_or(0, signed),
    }
}

/// On version 2 memory that runs out ends the whole container, not one process of it.
fn unified(version: cgroups::Version) -> HashMap<String, String> {
    match version {
        cgroups::Version::V1 => HashMap::new(),
        cgroups::Version::V2 => HashMap::from([("memory.oom.group".to_owned(), "1".to_owned())]),
    }
}

/// Upstream's formula: guaranteed Pods almost never, best-effort Pods first, the others by how little they asked for.
fn oom_score_adj(qos: Qos, memory_request: u64, node_memory: u64) -> i64 {
    match qos {
        Qos::Guaranteed => -997,
        Qos::BestEffort => 1000,
        Qos::Burstable => {
            let share = i64::try_from(1000 * u128::from(memory_request) / u128::from(node_memory.max(1)));
            (1000 - share.unwrap_or(1000)).clamp(3, 999)
        }
    }
}

/// The group that holds the Pod's containers, by class, as upstream names them.
pub fn cgroup_parent(spec: &PodSpec, uid: &str) -> String {
    match qos(spec) {
        Qos::Guaranteed => format!("/kubepods/pod{uid}"),
        Qos::Burstable => format!("/kubepods/burstable/pod{uid}"),
        Qos::BestEffort => format!("/kubepods/besteffort/pod{uid}"),
    }
}

/// Limits of the Pod's own group: shares for all it requests; memory and CPU only when every container limits them, or the
/// Pod says so as a whole. What its runtime class takes for itself comes on top.
pub fn pod_limits(spec: &PodSpec) -> cgroups::Limits {
    let limits: Vec<Limits> = spec.containers.iter().map(Limits::of).collect();
    let request = limits.iter().filter_map(|limits| limits.cpu_request).sum();
    let init = spec.init_containers.as_deref().unwrap_or_default().is_empty();
    let total = |get: fn(&Limits) -> Option<u64>| {
        limits.iter().map(get).sum::<Option<u64>>().filter(|sum| *sum > 0 && init)
    };
    let whole = pod_level(spec).unwrap_or_default();
    let overhead = |key: &str, read: fn(&Quantity) -> Option<u64>| {
        spec.overhead.as_ref().and_then(|overhead| overhead.get(key)).and_then(read).unwrap_or(0)
    };
    let (cpu, memory) = (overhead("cpu", quantity_milli), overhead("memory", quantity_value));
    cgroups::Limits {
        cpu_shares: Some(cpu_shares(whole.cpu_request.unwrap_or(request) + cpu)),
        cpu_milli: whole.cpu_limit.or_else(|| total(|limits| limits.cpu_limit)).map(|milli| milli + cpu),
        memory: whole
            .memory_limit
            .or_else(|| total(|limits| limits.memory_limit))
            .map(|bytes| bytes + memory),
        pids: Some(PROCESSES),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        let check = |text: &str, milli: Option<u64>, value: Option<u64>| {
            let quantity = Quantity(text.to_owned());
            assert_eq!((quantity_milli(&quantity), quantity_value(&quantity)), (milli, value), "{text}");
        };
        check("100m", Some(100), Some(1));
        check("1.5", Some(1500), Some(2));
        check("0.1", Some(100), Some(1));
        check("128Mi", Some(134_217_728_000), Some(134_217_728));
        check("1e3", Some(1_000_000), Some(1000));
        check("2G", Some(2_000_000_000_000), Some(2_000_000_000));
        check("x", None, None);
    }

    fn pod(resources: &[serde_json::Value]) -> PodSpec {
        let containers: Vec<_> = resources
            .iter()
            .map(|resources| serde_json::json!({"name": "c", "image": "i", "resources": resources}))
            .collect();
        serde_json::from_value(serde_json::json!({ "containers": containers })).expect("a Pod spec")
    }

    #[test]
    fn classes_and_badness() {
        let full = serde_json::json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let check = |resources: &[serde_json::Value], class: Qos, adj: i64| {
            let spec = pod(resources);
            assert_eq!(qos(&spec), class, "{resources:?}");
            assert_eq!(
                linux_resources(&spec, &spec.containers[0], 4 << 30).oom_score_adj,
                adj,
                "{resources:?}"
            );
        };
        check(&[serde_json::json!({})], Qos::BestEffort, 1000);
        check(std::slice::from_ref(&full), Qos::Guaranteed, -997);
        check(&[full.clone(), serde_json::json!({})], Qos::Burstable, 750);
        check(&[serde_json::json!({"requests": {"cpu": "100m"}})], Qos::Burstable, 999);
        assert_eq!(cgroup_parent(&pod(std::slice::from_ref(&full)), "u"), "/kubepods/podu");
        let mut whole = pod(&[serde_json::json!({})]);
        whole.resources = serde_json::from_value(full).expect("resources");
        assert_eq!(qos(&whole), Qos::Guaranteed);
        assert_eq!(pod_limits(&whole).memory, Some(1 << 30));
        whole.overhead =
            serde_json::from_value(serde_json::json!({"cpu": "250m", "memory": "1Mi"})).expect("amounts");
        let limits = pod_limits(&whole);
        assert_eq!((limits.cpu_milli, limits.memory), (Some(1250), Some((1 << 30) + (1 << 20))));
        // What the Pod leaves open as a whole is its containers' sum.
        let mut part = pod(&[serde_json::json!({"limits": {"cpu": "2"}})]);
        part.resources =
            serde_json::from_value(serde_json::json!({"limits": {"memory": "1Gi"}})).expect("resources");
        let limits = pod_limits(&part);
        assert_eq!(
            (limits.cpu_shares, limits.cpu_milli, limits.memory),
            (Some(2048), Some(2000), Some(1 << 30))
        );
    }
}
