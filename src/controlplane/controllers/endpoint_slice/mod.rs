//! EndpointSlices: where a Service's Pods are, in portions of at most a hundred.

mod plan;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use kube::ResourceExt;

use self::plan::{MANAGER, Zones, plan};
use super::context::{Context, Error};
use super::harness::{Harness, Outcome, Reconcile};
use super::managed_slices::{ManagedSlices, Op};
use super::{indexes, service_pods};
use client::informer::{Cache, Key};

struct Reconciler {
    services: Cache<Service>,
    pods: Cache<Pod>,
    slices: ManagedSlices,
    nodes: Cache<Node>,
}

/// The zone that a node is in, as upstream labels it.
fn zone(node: &Node) -> Option<&String> {
    node.labels().get("topology.kubernetes.io/zone")
}

pub(super) fn start(context: &Context) {
    let (services, pods) = (context.cache::<Service>(), indexes::pods(context));
    let nodes = context.cache::<Node>();
    let mut harness = Harness::new(context);
    service_pods::watch(&mut harness, &services, &pods);
    let slices = ManagedSlices::watch(context, &mut harness, MANAGER);
    let all = services.clone();
    harness.watches(&nodes, move |change, queue| {
        let of = |node: Option<&Arc<Node>>| node.and_then(|node| zone(node)).cloned();
        if of(change.old) != of(change.new) {
            all.list().iter().for_each(|service| queue.add(Key::of(&service.metadata)));
        }
    });
    harness.run(5, Arc::new(Reconciler { services, pods, slices, nodes }));
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(existing) = self.slices.of(key) else { return Ok(Outcome::Done) };
        let ops = match self.services.get(key).filter(|s| s.metadata.deletion_timestamp.is_none()) {
            Some(service) if service_pods::selector(&service).is_none() => return Ok(Outcome::Done),
            Some(service) => {
                let nodes = self.nodes.list();
                let zones = nodes.iter().filter_map(|node| Some((node.name_any(), zone(node)?.clone())));
                let zones: Zones = zones.collect();
                plan(&service, &service_pods::backends(&service, &self.pods), &existing, &zones)
            }
            None => existing.iter().map(|slice| Op::Delete(slice.name_any())).collect(),
        };
        self.slices.carry_out(key, ops).await?;
        Ok(Outcome::Done)
    }
}
