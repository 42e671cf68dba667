//! Which Pod goes first when the node is short of something, and how that is said.

use std::cmp::Reverse;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::usage::Use;
use crate::kubelet::pressure::Short;
use crate::kubelet::spec;
use api::quantity::Quantity;
use client::typed::resources::{Amounts, EPHEMERAL_STORAGE, MEMORY, amounts, requested};
use config::eviction::Signal;

/// What a signal is about, as upstream names it.
pub fn resource(signal: Signal) -> &'static str {
    match signal {
        Signal::Memory => MEMORY,
        Signal::Disk => EPHEMERAL_STORAGE,
        Signal::Inodes => "inodes",
        Signal::Processes => "pids",
    }
}

fn amount(used: &Use, signal: Signal) -> u64 {
    match signal {
        Signal::Memory => used.memory,
        Signal::Disk => used.disk().bytes,
        Signal::Inodes => used.disk().inodes,
        Signal::Processes => used.processes,
    }
}

fn signed(amount: u64) -> i64 {
    i64::try_from(amount).unwrap_or(i64::MAX)
}

fn asked(amounts: &Amounts, signal: Signal) -> i64 {
    amounts.get(resource(signal)).copied().unwrap_or(0)
}

/// First whoever uses more than it asked for, of those the least important, of those the one furthest above what it asked
/// for. Processes nobody asks for: there the priority comes first.
pub fn sort(pods: &mut [(Arc<Pod>, Use)], signal: Signal) {
    pods.sort_by_cached_key(|(pod, used)| {
        let above = signed(amount(used, signal)) - asked(&requested(pod), signal);
        let modest = signal != Signal::Processes && above <= 0;
        (modest, spec(pod).priority.unwrap_or(0), Reverse(above))
    });
}

/// Why the Pod goes, in upstream's words.
pub fn message(pod: &Pod, used: &Use, short: Short) -> String {
    let Short { signal, threshold, available } = short;
    let name = resource(signal);
    let shown = |amount: u64| match signal {
        Signal::Memory | Signal::Disk => Quantity::from_bytes(signed(amount)).to_string(),
        Signal::Inodes | Signal::Processes => Quantity::from_units(signed(amount)).to_string(),
    };
    let mut text = format!(
        "The node was low on resource: {name}. Threshold quantity: {}, available: {}. ",
        shown(threshold),
        shown(available)
    );
    if !matches!(signal, Signal::Memory | Signal::Disk) {
        return text;
    }
    for container in &spec(pod).containers {
        let Some((_, room, memory)) = used.containers.iter().find(|(name, ..)| *name == container.name)
        else {
            continue;
        };
        let uses = if signal == Signal::Memory { *memory } else { room.bytes };
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        let asked = asked(&amounts(requests), signal);
        if signed(uses) > asked {
            let request = requests.and_then(|all| all.get(name)).map_or("0", |written| written.0.as_str());
            text.push_str(&format!(
                "Container {} was using {}, request is {request}, has larger consumption of {name}. ",
                container.name,
                shown(uses)
            ));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::usage::Room;
    use super::*;
    use crate::kubelet::testing;
    use serde_json::{Value, json};

    fn pod(name: &str, priority: i32, resource: &str, request: Option<&str>) -> Arc<Pod> {
        let requests = request.map_or(json!({}), |request| json!({resource: request}));
        let spec: Value = json!({"priority": priority,
            "containers": [{"name": "c", "resources": {"requests": requests}}]});
        Arc::new(testing::pod(json!({"metadata": {"name": name, "uid": name}, "spec": spec})))
    }

    fn uses(memory: u64, disk: u64, processes: u64) -> Use {
        let room = Room { bytes: disk, inodes: 1 };
        Use { containers: vec![("c".into(), room, memory)], volumes: Vec::new(), memory, processes }
    }

    fn order(mut pods: Vec<(Arc<Pod>, Use)>, signal: Signal) -> Vec<String> {
        sort(&mut pods, signal);
        pods.iter().filter_map(|(pod, _)| pod.metadata.name.clone()).collect()
    }

    #[test]
    fn memory_goes_by_what_was_asked_for_then_by_priority_then_by_use() {
        let pods = vec![
            (pod("modest", 0, "memory", Some("1Gi")), uses(1 << 29, 0, 9)),
            (pod("important", 100, "memory", Some("1Mi")), uses(1 << 30, 0, 5)),
            (pod("greedy", 0, "memory", Some("1Mi")), uses(1 << 29, 0, 1)),
            (pod("small", 0, "memory", None), uses(1 << 20, 0, 2)),
        ];
        assert_eq!(order(pods.clone(), Signal::Memory), ["greedy", "small", "important", "modest"]);
        assert_eq!(order(pods, Signal::Processes), ["modest", "small", "greedy", "important"]);
    }

    #[test]
    fn disk_goes_by_what_was_asked_for_of_it() {
        let pods = vec![
            (pod("asked", 0, "ephemeral-storage", Some("2Gi")), uses(0, 1 << 30, 0)),
            (pod("filler", 0, "ephemeral-storage", None), uses(0, 1 << 25, 0)),
            (pod("important", 9, "ephemeral-storage", None), uses(0, 1 << 29, 0)),
        ];
        assert_eq!(order(pods, Signal::Disk), ["filler", "important", "asked"]);
    }

    #[test]
    fn the_message_is_upstream_s() {
        let check = |resource: &str, short: Short, used: &Use, expect: &str| {
            assert_eq!(message(&pod("a", 0, resource, Some("4Mi")), used, short), expect);
        };
        let used = uses(40 << 20, (5 << 20) + 4096, 3);
        let short = Short { signal: Signal::Memory, threshold: 100 << 20, available: 92 << 20 };
        check(
            "memory",
            short,
            &used,
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 92Mi. \
             Container c was using 40Mi, request is 4Mi, has larger consumption of memory. ",
        );
        let short = Short { signal: Signal::Disk, threshold: 1 << 30, available: 1_234_944 };
        check(
            "ephemeral-storage",
            short,
            &used,
            "The node was low on resource: ephemeral-storage. Threshold quantity: 1Gi, available: 1206Ki. \
             Container c was using 5124Ki, request is 4Mi, has larger consumption of ephemeral-storage. ",
        );
        let short = Short { signal: Signal::Processes, threshold: 3276, available: 12 };
        let text = "The node was low on resource: pids. Threshold quantity: 3276, available: 12. ";
        check("memory", short, &used, text);
    }
}
