//! What Pods and containers use of processor and memory, read from their control groups: whoever scales or looks asks for that
//! often, and the runtime would wake every Pod's shim to tell it.

use std::collections::BTreeMap;

use super::sample::{ContainerUse, PodUse};
use crate::cri::api::{Container, ContainerState};
use crate::cri::labels;
use sys::cgroups::{self, Usage};

/// The groups of the classes, below which Pods' groups are.
const CLASSES: [&str; 3] = ["/kubepods/besteffort", "/kubepods/burstable", "/kubepods"];

/// Reads what all running containers use, and their Pods.
pub fn read(containers: Vec<Container>) -> Vec<PodUse> {
    let mut pods: BTreeMap<String, PodUse> = BTreeMap::new();
    for container in containers.into_iter().filter(|c| c.state() == ContainerState::ContainerRunning) {
        let label = |name: &str| container.labels.get(name).cloned().unwrap_or_default();
        let uid = label(labels::POD_UID);
        let name = label(labels::CONTAINER_NAME);
        let pod = pods.entry(uid.clone()).or_insert_with(|| PodUse {
            name: label(labels::POD_NAME),
            namespace: label(labels::POD_NAMESPACE),
            uid,
            ..PodUse::default()
        });
        pod.containers.push(ContainerUse { id: container.id, name, ..ContainerUse::default() });
    }
    pods.into_values().filter_map(measured).collect()
}

/// The Pod with what it uses; `None` when it has no group any more.
fn measured(mut pod: PodUse) -> Option<PodUse> {
    let group = |class: &&str| {
        let path = format!("{class}/pod{}", pod.uid);
        let usage = cgroups::usage(&path);
        (usage != Usage::default()).then_some((path, usage))
    };
    let (path, usage) = CLASSES.iter().find_map(group)?;
    pod.used = usage.into();
    for container in &mut pod.containers {
        container.used = cgroups::usage(&format!("{path}/{}", container.id)).into();
    }
    pod.containers.retain(ContainerUse::is_there);
    Some(pod)
}
