//! Pods that use more of the node's disk than they may, and a node that runs out: looked at now and then, ended one by
//! one, in upstream's order. Before Pods go, images nobody uses do.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod};

use super::container::{Limits, log_directory, quantity_value};
use super::context::{Context, reference};
use super::pods::Manager;
use super::spec;
use super::statics::is_static;
use super::stats::{PodUse, Sampler};
use sys::cgroups;

/// Upstream's housekeeping interval.
const LOOK: Duration = Duration::from_secs(10);
/// Upstream's hard limit of free memory.
const MEMORY: u64 = 100 << 20;
/// The disk is the host's: only when next to nothing is left can Pods not run.
const DISK: u64 = 64 << 20;
/// Images nobody uses are removed before the disk is that full.
const IMAGES: u64 = 256 << 20;

/// The priority of `system-cluster-critical`, the lower of the two.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// What one Pod uses of the node.
#[derive(Clone, Debug, Default)]
struct Use {
    /// Bytes by container: writable layer and logs.
    containers: Vec<(String, u64)>,
    /// Bytes by emptyDir volume on disk.
    volumes: Vec<(String, u64)>,
    memory: u64,
}

impl Use {
    fn disk(&self) -> u64 {
        self.containers.iter().chain(&self.volumes).map(|(_, bytes)| bytes).sum()
    }
}

/// Looks after the node until dropped.
pub async fn run(context: Arc<Context>, manager: Manager, sampler: Sampler) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut free = free_disk(&context.dir);
        if free < IMAGES {
            remove_images(&context, &manager).await;
            free = free_disk(&context.dir);
        }
        let low = Low { memory: cgroups::capacity().memory_available, disk: free };
        let evictable = |pod: &Arc<Pod>| is_active(pod) && !is_critical(pod);
        let pods: Vec<Arc<Pod>> = manager.pods().into_iter().filter(evictable).collect();
        if !low.any() && !pods.iter().any(|pod| is_limited(pod)) {
            continue;
        }
        let Ok(sample) = sampler.sample().await else { continue };
        let mut used = Vec::new();
        for pod in pods {
            let measured =
                sample.pods.iter().find(|one| Some(&one.uid) == pod.metadata.uid.as_ref()).cloned();
            let dir = context.pod_dir(pod.metadata.uid.as_deref().unwrap_or_default());
            let of = pod.clone();
            let one = context.tasks.spawn_blocking(move || measure(&of, measured.as_ref(), &dir));
            used.push((pod, one.await.unwrap_or_default()));
        }
        for (uid, message) in evictions(&used, low) {
            if let Some((pod, _)) = used.iter().find(|(pod, _)| pod.metadata.uid.as_ref() == Some(&uid)) {
                context.events.warning(reference(pod, None), "Evicted", message.clone());
            }
            manager.fail(&uid, "Evicted", message);
        }
    }
}

fn is_active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the node cannot do without the Pod: no pressure ends it, as upstream has it.
fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || spec(pod).priority.is_some_and(|priority| priority >= SYSTEM_CRITICAL)
}

/// Whether the Pod says how much of the disk it may use.
fn is_limited(pod: &Pod) -> bool {
    let volumes = spec(pod).volumes.iter().flatten();
    let sized =
        volumes.filter_map(|volume| volume.empty_dir.as_ref()).any(|empty| empty.size_limit.is_some());
    sized || spec(pod).containers.iter().any(|container| storage_limit(container).is_some())
}

fn storage_limit(container: &Container) -> Option<u64> {
    let limits = container.resources.as_ref()?.limits.as_ref()?;
    limits.get("ephemeral-storage").and_then(quantity_value)
}

/// Bytes left of what the node has least of.
#[derive(Clone, Copy, Debug)]
struct Low {
    memory: u64,
    disk: u64,
}

impl Low {
    fn any(self) -> bool {
        self.memory < MEMORY || self.disk < DISK
    }
}

fn free_disk(dir: &Path) -> u64 {
    nix::sys::statvfs::statvfs(dir).map_or(u64::MAX, |stat| stat.blocks_available() * stat.fragment_size())
}

fn measure(pod: &Pod, measured: Option<&PodUse>, dir: &Path) -> Use {
    let logs = log_directory(pod);
    let layer = |name: &str| {
        let containers = measured.into_iter().flat_map(|pod| &pod.containers);
        containers.filter(|container| container.name == name).map(|container| container.layer).sum::<u64>()
    };
    let containers = spec(pod).containers.iter().map(|container| {
        (container.name.clone(), layer(&container.name) + bytes_below(&logs.join(&container.name)))
    });
    let on_disk = spec(pod).volumes.iter().flatten().filter(|volume| {
        volume.empty_dir.as_ref().is_some_and(|empty| empty.medium.as_deref() != Some("Memory"))
    });
    let folder = |name: &str| dir.join("volumes/kubernetes.io~empty-dir").join(name);
    Use {
        containers: containers.collect(),
        volumes: on_disk.map(|volume| (volume.name.clone(), bytes_below(&folder(&volume.name)))).collect(),
        memory: measured.map_or(0, |pod| pod.used.working_set),
    }
}

/// Bytes on disk of everything below `dir`; links are not followed.
fn bytes_below(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => bytes_below(&entry.path()),
            Ok(metadata) => metadata.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

/// Who must go, and why, in upstream's words: all who broke their own limits, else one for the node's sake.
fn evictions(pods: &[(Arc<Pod>, Use)], low: Low) -> Vec<(String, String)> {
    let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
    let over: Vec<_> =
        pods.iter().filter_map(|(pod, used)| Some((uid(pod), over_limit(pod, used)?))).collect();
    if !over.is_empty() || !low.any() {
        return over;
    }
    let memory = low.memory < MEMORY;
    let (name, threshold, left) =
        if memory { ("memory", MEMORY, low.memory) } else { ("ephemeral-storage", DISK, low.disk) };
    let amount = |used: &Use| if memory { used.memory } else { used.disk() };
    let asked = |pod: &Pod| if memory { memory_request(pod) } else { 0 };
    // First whoever uses more than it asked for, of those the least important, of those the one furthest above.
    let first = pods.iter().max_by_key(|(pod, used)| {
        let above = amount(used).saturating_sub(asked(pod));
        (above > 0, std::cmp::Reverse(spec(pod).priority.unwrap_or(0)), above)
    });
    let Some((pod, used)) = first else { return Vec::new() };
    let text = format!(
        "The node was low on resource: {name}. Threshold quantity: {}Mi, available: {}Ki. The Pod was using {}Ki, request is {}Ki. ",
        threshold >> 20,
        left >> 10,
        amount(used) >> 10,
        asked(pod) >> 10,
    );
    vec![(uid(pod), text)]
}

fn memory_request(pod: &Pod) -> u64 {
    spec(pod).containers.iter().filter_map(|container| Limits::of(container).memory_request).sum()
}

fn over_limit(pod: &Pod, used: &Use) -> Option<String> {
    let bytes = |list: &[(String, u64)], name: &str| {
        list.iter().find(|(have, _)| have == name).map_or(0, |(_, bytes)| *bytes)
    };
    for volume in spec(pod).volumes.iter().flatten() {
        let limit = volume.empty_dir.as_ref().and_then(|empty| empty.size_limit.as_ref());
        if let Some(limit) = limit
            && quantity_value(limit).is_some_and(|max| max > 0 && bytes(&used.volumes, &volume.name) > max)
        {
            let name = &volume.name;
            return Some(format!("Usage of EmptyDir volume \"{name}\" exceeds the limit \"{}\". ", limit.0));
        }
    }
    let limits: Vec<Option<u64>> = spec(pod).containers.iter().map(storage_limit).collect();
    for (container, limit) in spec(pod).containers.iter().zip(&limits) {
        if limit.is_some_and(|limit| bytes(&used.containers, &container.name) > limit) {
            let shown =
                container.resources.as_ref().and_then(|r| r.limits.as_ref()?.get("ephemeral-storage"));
            let shown = shown.map(|quantity| quantity.0.clone()).unwrap_or_default();
            let name = &container.name;
            return Some(format!(
                "Container {name} exceeded its local ephemeral storage limit \"{shown}\". "
            ));
        }
    }
    let total = limits.iter().copied().sum::<Option<u64>>().filter(|total| *total > 0)?;
    (used.disk() > total).then(|| {
        format!("Pod ephemeral local storage usage exceeds the total limit of containers {}Ki. ", total >> 10)
    })
}

/// Removes the images that no container and no volume uses. Pinned ones (the sandbox's) stay.
async fn remove_images(context: &Context, manager: &Manager) {
    let runtime = &context.runtime;
    let (Ok(images), Ok(containers)) = tokio::join!(runtime.images(), runtime.containers(None)) else {
        return;
    };
    let pods = manager.pods();
    let volumes = pods.iter().flat_map(|pod| spec(pod).volumes.iter().flatten());
    let mut used: HashSet<String> = volumes
        .filter_map(|volume| super::image::normalize(volume.image.as_ref()?.reference.as_deref()?).ok())
        .collect();
    for container in containers {
        if let Ok(status) = runtime.container_status(&container.id).await {
            used.insert(status.image_ref);
            used.insert(status.image_id);
        }
    }
    let idle = |image: &&crate::cri::api::Image| {
        !image.pinned
            && !used.contains(&image.id)
            && !image.repo_digests.iter().chain(&image.repo_tags).any(|name| used.contains(name))
    };
    for image in images.iter().filter(idle) {
        tracing::warn!(image = ?image.repo_tags, bytes = image.size, "the disk is full: removing an unused image");
        if let Err(error) = runtime.remove_image(&image.id).await {
            tracing::warn!(%error, "an image is not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::testing;
    use serde_json::{Value, json};

    const PLENTY: Low = Low { memory: u64::MAX, disk: u64::MAX };

    fn pod(uid: &str, spec: Value) -> Arc<Pod> {
        Arc::new(testing::pod(json!({"metadata": {"name": uid, "uid": uid}, "spec": spec})))
    }

    #[test]
    fn who_breaks_a_limit_goes() {
        let check = |spec: Value, used: Use, expect: Option<&str>| {
            let evicted = evictions(&[(pod("a", spec), used)], PLENTY);
            assert_eq!(evicted.first().map(|(_, text)| text.as_str()), expect);
        };
        let used = |container: u64, volume: u64| Use {
            containers: vec![("c".into(), container)],
            volumes: vec![("v".into(), volume)],
            memory: 0,
        };
        let sized = json!({"containers": [{"name": "c"}], "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}]});
        check(sized.clone(), used(0, 1 << 20), None);
        check(sized, used(0, 2 << 20), Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "));
        let limited = json!({"containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "1Mi"}}}],
            "volumes": [{"name": "v", "emptyDir": {}}]});
        check(limited.clone(), used(1, 1), None);
        let text = "Container c exceeded its local ephemeral storage limit \"1Mi\". ";
        check(limited.clone(), used(2 << 20, 0), Some(text));
        let text = "Pod ephemeral local storage usage exceeds the total limit of containers 1024Ki. ";
        check(limited, used(1 << 19, 1 << 20), Some(text));
    }

    #[test]
    fn the_node_s_need_takes_the_least_important_first() {
        let uses = |memory: u64| Use { memory, ..Use::default() };
        let asks = |priority: i32, request: &str| {
            json!({"priority": priority,
                "containers": [{"name": "c", "resources": {"requests": {"memory": request}}}]})
        };
        let pods = [
            (pod("modest", asks(0, "1Gi")), uses(1 << 29)),
            (pod("important", asks(100, "1Mi")), uses(1 << 30)),
            (pod("greedy", asks(0, "1Mi")), uses(1 << 29)),
        ];
        assert!(evictions(&pods, PLENTY).is_empty());
        let evicted = evictions(&pods, Low { memory: 1 << 20, disk: u64::MAX });
        assert_eq!(evicted.iter().map(|(uid, _)| uid.as_str()).collect::<Vec<_>>(), ["greedy"]);
    }

    #[test]
    fn bytes_are_counted_below() {
        let dir = tempfile::tempdir().expect("folder");
        std::fs::create_dir(dir.path().join("sub")).expect("folder");
        std::fs::write(dir.path().join("sub/file"), vec![1; 10_000]).expect("file");
        assert!(bytes_below(dir.path()) >= 8192, "{}", bytes_below(dir.path()));
    }
}
