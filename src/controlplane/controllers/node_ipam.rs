//! Gives every node its own range of Pod addresses: the lowest free /24 of the cluster's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::context::{Context, Error, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use client::informer::{Cache, Key};

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
    let nodes = context.cache::<Node>();
    let given = Arc::<Mutex<HashMap<String, Ipv4Net>>>::default();
    let mut harness = Harness::new(context);
    let freed = Arc::clone(&given);
    harness.watches(&nodes, move |change, queue| match (change.new, change.old) {
        (Some(node), _) if range_of(node).is_none() => queue.add(node.name_any()),
        (None, Some(node)) => {
            freed.lock().unwrap_or_else(PoisonError::into_inner).remove(&node.name_any());
        }
        _ => {}
    });
    harness.run(1, Arc::new(Reconciler { context: context.clone(), nodes, given }));
}

struct Reconciler {
    context: Context,
    nodes: Cache<Node>,
    /// What was given and may not be seen in the cache yet, by node name.
    given: Arc<Mutex<HashMap<String, Ipv4Net>>>,
}

impl Reconciler {
    /// A range for a node, the same one every time until the node is gone.
    fn give(&self, name: &str) -> Option<Ipv4Net> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.nodes.list();
        let used: Vec<_> = seen.iter().filter_map(|n| range_of(n)).chain(given.values().copied()).collect();
        let range = given.get(name).copied().or_else(|| next_free(self.context.settings.pod_cidr, &used))?;
        given.insert(name.to_owned(), range);
        Some(range)
    }
}

impl Reconcile for Reconciler {
    type Key = String;

    async fn reconcile(&self, name: &String) -> Result<Outcome, Error> {
        let Some(node) = self.nodes.get(&Key::cluster(name)).filter(|node| range_of(node).is_none()) else {
            return Ok(Outcome::Done);
        };
        let Some(range) = self.give(name) else {
            let message = format!("Node {name} status is now: CIDRNotAvailable");
            self.context.recorder.normal(node.object_ref(&()), "CIDRNotAvailable", message);
            return Err(Error::Other(format!("no free range in {}", self.context.settings.pod_cidr)));
        };
        let patch = json!({"spec": {"podCIDR": range.to_string(), "podCIDRs": [range.to_string()]}});
        let api = self.context.all::<Node>();
        ignore_not_found(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        Ok(Outcome::Done)
    }
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
