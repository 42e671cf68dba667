//! The answer of `/stats/summary`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::sample::{ContainerUse, Depth, Disk, PodUse, Sample, Used};

/// The answer of `/stats/summary`.
pub fn summary(node: &str, started: Timestamp, sample: &Sample) -> Value {
    let at = sample.at.to_string();
    let pods: Vec<Value> = sample.pods.iter().map(|pod| self::pod(pod, &at, &sample.disk)).collect();
    let mut summary = json!({
        "node": {
            "nodeName": node,
            "startTime": started.to_string(),
            "cpu": cpu(&sample.node, &at),
            "memory": memory(&sample.node, &at, Some(sample.memory_available)),
            "fs": fs(&sample.disk, &at),
            "runtime": { "imageFs": fs(&sample.images, &at) },
        },
        "pods": pods,
    });
    if sample.depth == Depth::Light {
        lighten(&mut summary);
    }
    summary
}

/// Takes away what was not measured.
fn lighten(summary: &mut Value) {
    let strip = |value: &mut Value, fields: &[&str]| {
        let Some(map) = value.as_object_mut() else { return };
        fields.iter().for_each(|field| drop(map.remove(*field)));
    };
    strip(&mut summary["node"], &["fs", "runtime"]);
    for pod in summary["pods"].as_array_mut().into_iter().flatten() {
        strip(pod, &["network", "ephemeral-storage", "process_stats"]);
        for container in pod["containers"].as_array_mut().into_iter().flatten() {
            strip(container, &["rootfs", "logs"]);
        }
    }
}

fn cpu(used: &Used, at: &str) -> Value {
    json!({ "time": at, "usageNanoCores": used.nanocores, "usageCoreNanoSeconds": used.cpu_nanos })
}

fn memory(used: &Used, at: &str, available: Option<u64>) -> Value {
    let mut value = json!({
        "time": at,
        "usageBytes": used.memory,
        "workingSetBytes": used.working_set,
        "rssBytes": used.rss,
    });
    if let Some(available) = available {
        value["availableBytes"] = json!(available);
    }
    value
}

fn fs(disk: &Disk, at: &str) -> Value {
    json!({
        "time": at,
        "availableBytes": disk.available,
        "capacityBytes": disk.capacity,
        "usedBytes": disk.used,
        "inodes": disk.inodes,
        "inodesFree": disk.inodes_free,
        "inodesUsed": disk.inodes.saturating_sub(disk.inodes_free),
    })
}

fn pod(pod: &PodUse, at: &str, disk: &Disk) -> Value {
    let containers: Vec<Value> = pod.containers.iter().map(|c| container(c, at, disk)).collect();
    json!({
        "podRef": { "name": pod.name, "namespace": pod.namespace, "uid": pod.uid },
        "containers": containers,
        "cpu": cpu(&pod.used, at),
        "memory": memory(&pod.used, at, None),
        "network": {
            "time": at, "name": "eth0", "rxBytes": pod.received, "txBytes": pod.sent,
            "interfaces": [{ "name": "eth0", "rxBytes": pod.received, "txBytes": pod.sent }],
        },
        "ephemeral-storage": {
            "time": at,
            "availableBytes": disk.available,
            "capacityBytes": disk.capacity,
            "usedBytes": pod.containers.iter().map(|container| container.layer).sum::<u64>(),
        },
        "process_stats": { "process_count": pod.processes },
    })
}

fn container(container: &ContainerUse, at: &str, disk: &Disk) -> Value {
    json!({
        "name": container.name,
        "cpu": cpu(&container.used, at),
        "memory": memory(&container.used, at, None),
        "rootfs": {
            "time": at,
            "availableBytes": disk.available,
            "capacityBytes": disk.capacity,
            "usedBytes": container.layer,
            "inodesUsed": container.layer_inodes,
        },
        "logs": { "time": at, "availableBytes": disk.available, "capacityBytes": disk.capacity },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::stats::sample::tests::sample;

    #[test]
    fn tells_of_node_pods_and_containers() {
        let value = summary("n1", Timestamp::UNIX_EPOCH, &sample(10, 7));
        assert_eq!(value["node"]["nodeName"], "n1");
        assert_eq!(value["node"]["memory"]["availableBytes"], 500);
        assert_eq!(value["pods"][0]["podRef"]["namespace"], "shop");
        assert_eq!(value["pods"][0]["containers"][0]["cpu"]["usageCoreNanoSeconds"], 7);
        assert_eq!(value["pods"][0]["containers"][0]["memory"]["workingSetBytes"], 2000);
    }
    #[test]
    fn what_was_not_measured_is_not_told() {
        let light = Sample { depth: Depth::Light, ..sample(10, 7) };
        let value = summary("n1", Timestamp::UNIX_EPOCH, &light);
        assert!(value["node"].get("fs").is_none() && value["pods"][0].get("network").is_none());
        assert!(value["pods"][0]["containers"][0].get("rootfs").is_none());
        assert_eq!(value["pods"][0]["containers"][0]["cpu"]["usageCoreNanoSeconds"], 7);
    }
}
