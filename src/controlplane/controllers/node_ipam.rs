//! Gives every node its own range of Pod addresses: the lowest free /24 of the cluster's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::context::{Context, Error, ignore_not_found};
use crate::client::informer::Key;
use crate::client::queue::Queue;

/// Prefix length of one node's range.
const NODE_PREFIX: u8 = 24;

/// The lowest range that overlaps none in use.
fn next_free(all: Ipv4Net, used: &[Ipv4Net]) -> Option<Ipv4Net> {
    let overlaps = |a: &Ipv4Net, b: &Ipv4Net| a.contains(&b.network()) || b.contains(&a.network());
    let mut candidates = all.subnets(NODE_PREFIX.max(all.prefix_len())).ok()?;
    candidates.find(|candidate| !used.iter().any(|used| overlaps(used, candidate)))
}

fn range_of(node: &Node) -> Option<Ipv4Net> {
    node.spec.as_ref()?.pod_cidr.as_deref()?.parse().ok()
}

pub(super) fn start(context: &Context) {
    let queue = Queue::<String>::default();
    let nodes = context.cache::<Node>();
    // What was given and may not be seen in the cache yet, by node name.
    let given = Arc::new(Mutex::new(HashMap::<String, Ipv4Net>::new()));
    let (changed, freed) = (queue.clone(), Arc::clone(&given));
    nodes.on_change(move |change| match (change.new, change.old) {
        (Some(node), _) if range_of(node).is_none() => changed.add(node.name_any()),
        (None, Some(node)) => {
            freed.lock().unwrap_or_else(PoisonError::into_inner).remove(&node.name_any());
        }
        _ => {}
    });
    let ready = {
        let nodes = nodes.clone();
        async move { nodes.synced().await }
    };
    let context = context.clone();
    context.clone().work(&queue, 1, ready, move |name| {
        let (context, nodes, given) = (context.clone(), nodes.clone(), Arc::clone(&given));
        async move {
            let Some(node) = nodes.get(&Key::cluster(&name)).filter(|node| range_of(node).is_none()) else {
                return Ok(());
            };
            let range = {
                let mut given = given.lock().unwrap_or_else(PoisonError::into_inner);
                let seen = nodes.list();
                let used: Vec<_> =
                    seen.iter().filter_map(|n| range_of(n)).chain(given.values().copied()).collect();
                let earlier = given.get(&name).copied();
                let range = earlier.or_else(|| next_free(context.settings.pod_cidr, &used));
                range.inspect(|range| {
                    given.insert(name.clone(), *range);
                })
            };
            let Some(range) = range else {
                let message = format!("Node {name} status is now: CIDRNotAvailable");
                context.recorder.normal(node.object_ref(&()), "CIDRNotAvailable", message);
                return Err(Error::Other(format!("no free range in {}", context.settings.pod_cidr)));
            };
            let patch = json!({"spec": {"podCIDR": range.to_string(), "podCIDRs": [range.to_string()]}});
            let api = context.all::<Node>();
            ignore_not_found(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
            Ok(())
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_free_range_is_taken() {
        let check = |all: &str, used: &[&str], expect: Option<&str>| {
            let used: Vec<Ipv4Net> = used.iter().map(|net| net.parse().unwrap()).collect();
            let free = next_free(all.parse().unwrap(), &used).map(|net| net.to_string());
            assert_eq!(free.as_deref(), expect, "{all} {used:?}");
        };
        check("10.42.0.0/16", &[], Some("10.42.0.0/24"));
        check("10.42.0.0/16", &["10.42.0.0/24", "10.42.2.0/24"], Some("10.42.1.0/24"));
        check("10.42.0.0/16", &["10.42.0.0/23"], Some("10.42.2.0/24"));
        check("10.42.0.0/23", &["10.42.0.0/24", "10.42.1.0/24"], None);
        check("10.42.0.0/25", &[], Some("10.42.0.0/25"));
    }
}
