//! What Pods and the node use, sampled.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Mutex;
use tonic::Status;

use super::groups;
use crate::cri::{Runtime, RuntimeError, api, labels};
use rt::Tasks;
use sys::cgroups::{self, Usage};

/// Rates are taken over this time at least.
const SHORTEST: Duration = Duration::from_secs(1);
/// An earlier measurement older than this says nothing about now.
const LONGEST: Duration = Duration::from_secs(120);

/// Everything that was measured at one time.
#[derive(Clone, Debug)]
pub struct Sample {
    pub at: Timestamp,
    pub depth: Depth,
    pub node: Used,
    pub pods: Vec<PodUse>,
    pub disk: Disk,
    pub images: Disk,
    /// Bytes that can be had without swapping.
    pub memory_available: u64,
}

/// Processor time and memory of one thing. `nanocores` is the rate since the sample before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    pub cpu_nanos: u64,
    pub nanocores: u64,
    pub memory: u64,
    pub working_set: u64,
    pub rss: u64,
}

impl From<Usage> for Used {
    fn from(usage: Usage) -> Self {
        let Usage { cpu_nanos, memory, working_set, rss } = usage;
        Self { cpu_nanos, nanocores: 0, memory, working_set, rss }
    }
}

/// Bytes and inodes of a file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub capacity: u64,
    pub available: u64,
    pub used: u64,
    pub inodes: u64,
    pub inodes_free: u64,
}

#[derive(Clone, Debug, Default)]
pub struct PodUse {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub used: Used,
    pub processes: u64,
    pub received: u64,
    pub sent: u64,
    pub containers: Vec<ContainerUse>,
}

#[derive(Clone, Debug, Default)]
pub struct ContainerUse {
    pub id: String,
    pub name: String,
    pub used: Used,
    /// Bytes and inodes of its writable layer.
    pub layer: u64,
    pub layer_inodes: u64,
}

impl ContainerUse {
    /// One that has ended uses nothing; it is not told of.
    pub fn is_there(&self) -> bool {
        self.used.memory > 0 || self.used.cpu_nanos > 0
    }
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Processor and memory.
    Light,
    /// Layers, processes and network as well, which the runtime is asked for.
    Full,
}

type Last = Arc<Mutex<Option<Arc<Sample>>>>;

/// Measures on demand. Two who ask shortly after one another get the same answer.
#[derive(Clone)]
pub struct Sampler {
    runtime: Runtime,
    dir: Arc<Path>,
    tasks: Tasks,
    light: Last,
    full: Last,
}

impl Sampler {
    /// One that asks `runtime`; `dir` is on the file system that holds Pods' files.
    pub fn new(runtime: Runtime, dir: &Path, tasks: Tasks) -> Self {
        Self { runtime, dir: dir.into(), tasks, light: Arc::default(), full: Arc::default() }
    }

    /// What is used now. The first who asks waits a second: a rate needs two measurements. Whoever asked may have given up
    /// meanwhile: what was measured is there for the next one.
    ///
    /// Fails when the runtime does not answer.
    pub async fn sample(&self, depth: Depth) -> Result<Arc<Sample>, RuntimeError> {
        let sampler = self.clone();
        let taken = self.tasks.spawn_until_stop(async move { sampler.take(depth).await });
        taken.await.ok().flatten().unwrap_or_else(|| Err(Status::cancelled("the node stops").into()))
    }

    async fn take(&self, depth: Depth) -> Result<Arc<Sample>, RuntimeError> {
        let last = match depth {
            Depth::Light => &self.light,
            Depth::Full => &self.full,
        };
        let mut last = last.lock().await;
        let age = |sample: &Sample| {
            Duration::try_from(Timestamp::now().duration_since(sample.at)).unwrap_or(Duration::ZERO)
        };
        if let Some(fresh) = last.as_ref().filter(|sample| age(sample) < SHORTEST) {
            return Ok(Arc::clone(fresh));
        }
        let before = match last.take().filter(|sample| age(sample) < LONGEST) {
            Some(before) => before,
            None => {
                let first = Arc::new(self.measure(depth).await?);
                tokio::time::sleep(SHORTEST).await;
                first
            }
        };
        let mut now = self.measure(depth).await?;
        rates(&before, &mut now);
        let now = Arc::new(now);
        *last = Some(Arc::clone(&now));
        Ok(now)
    }

    async fn pods(&self, depth: Depth) -> Result<Vec<PodUse>, RuntimeError> {
        if depth == Depth::Full {
            return Ok(self.runtime.sandbox_stats().await?.into_iter().filter_map(pod).collect());
        }
        let containers = self.runtime.containers(None).await?;
        Ok(self.tasks.spawn_blocking(move || groups::read(containers)).await.unwrap_or_default())
    }

    async fn measure(&self, depth: Depth) -> Result<Sample, RuntimeError> {
        let pods = self.pods(depth).await?;
        let images = self.runtime.image_filesystems().await.unwrap_or_default();
        let mut image_disk = disk(&self.dir);
        image_disk.used = images.iter().filter_map(|usage| Some(usage.used_bytes.as_ref()?.value)).sum();
        Ok(Sample {
            at: Timestamp::now(),
            depth,
            node: cgroups::usage("/").into(),
            pods,
            disk: disk(&self.dir),
            images: image_disk,
            memory_available: cgroups::capacity().memory_available,
        })
    }
}

fn value(value: Option<api::UInt64Value>) -> u64 {
    value.map_or(0, |value| value.value)
}

fn used(cpu: Option<api::CpuUsage>, memory: Option<api::MemoryUsage>) -> Used {
    let memory = memory.unwrap_or_default();
    Used {
        cpu_nanos: value(cpu.and_then(|cpu| cpu.usage_core_nano_seconds)),
        nanocores: 0,
        memory: value(memory.usage_bytes),
        working_set: value(memory.working_set_bytes),
        rss: value(memory.rss_bytes),
    }
}

fn pod(stats: api::PodSandboxStats) -> Option<PodUse> {
    let metadata = stats.attributes?.metadata?;
    let linux = stats.linux.unwrap_or_default();
    let network = linux.network.and_then(|network| network.default_interface).unwrap_or_default();
    Some(PodUse {
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        used: used(linux.cpu, linux.memory),
        processes: value(linux.process.and_then(|process| process.process_count)),
        received: value(network.rx_bytes),
        sent: value(network.tx_bytes),
        containers: linux
            .containers
            .into_iter()
            .filter_map(container)
            .filter(ContainerUse::is_there)
            .collect(),
    })
}

fn container(stats: api::ContainerStats) -> Option<ContainerUse> {
    let attributes = stats.attributes?;
    let layer = stats.writable_layer.unwrap_or_default();
    Some(ContainerUse {
        name: attributes.labels.get(labels::CONTAINER_NAME).cloned()?,
        id: attributes.id,
        used: used(stats.cpu, stats.memory),
        layer: value(layer.used_bytes),
        layer_inodes: value(layer.inodes_used),
    })
}

/// Fills in the rates between two measurements. What is new has none yet.
fn rates(before: &Sample, now: &mut Sample) {
    let nanos = now.at.duration_since(before.at).as_nanos();
    let rate = |old: &Used, new: &mut Used| {
        let used = u128::from(new.cpu_nanos.saturating_sub(old.cpu_nanos)) * 1_000_000_000;
        new.nanocores = u128::try_from(nanos)
            .ok()
            .filter(|nanos| *nanos > 0)
            .and_then(|nanos| u64::try_from(used / nanos).ok())
            .unwrap_or(0);
    };
    rate(&before.node, &mut now.node);
    let pods: HashMap<&str, &PodUse> = before.pods.iter().map(|pod| (pod.uid.as_str(), pod)).collect();
    for pod in &mut now.pods {
        let Some(old) = pods.get(pod.uid.as_str()) else { continue };
        rate(&old.used, &mut pod.used);
        for container in &mut pod.containers {
            if let Some(old) = old.containers.iter().find(|old| old.id == container.id) {
                rate(&old.used, &mut container.used);
            }
        }
    }
}

fn disk(path: &Path) -> Disk {
    let Ok(stat) = nix::sys::statvfs::statvfs(path) else { return Disk::default() };
    let capacity = stat.blocks() * stat.fragment_size();
    Disk {
        capacity,
        available: stat.blocks_available() * stat.fragment_size(),
        used: capacity.saturating_sub(stat.blocks_free() * stat.fragment_size()),
        inodes: stat.files(),
        inodes_free: stat.files_free(),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// One Pod with one container, at a second.
    pub fn sample(second: i64, cpu_nanos: u64) -> Sample {
        let used = Used { cpu_nanos, nanocores: 0, memory: 3000, working_set: 2000, rss: 1000 };
        let container =
            ContainerUse { id: "c1".into(), name: "web".into(), used, layer: 10, layer_inodes: 1 };
        let pod = PodUse {
            name: "p".into(),
            namespace: "shop".into(),
            uid: "u".into(),
            used,
            containers: vec![container],
            ..PodUse::default()
        };
        Sample {
            at: Timestamp::from_second(second).expect("time"),
            depth: Depth::Full,
            node: used,
            pods: vec![pod],
            disk: Disk { capacity: 100, available: 60, used: 40, inodes: 10, inodes_free: 5 },
            images: Disk::default(),
            memory_available: 500,
        }
    }

    #[test]
    fn rates_are_per_second() {
        let mut now = sample(12, 6_000_000_000);
        rates(&sample(10, 5_000_000_000), &mut now);
        assert_eq!(now.node.nanocores, 500_000_000, "half a core");
        assert_eq!(now.pods[0].containers[0].used.nanocores, 500_000_000);
    }
}
