//! EndpointSlices: where a Service's Pods are, in portions of at most a hundred.

mod plan;

use std::sync::Arc;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};

use self::plan::{MANAGED_BY, MANAGER, Op, SERVICE_NAME, Zones, plan};
use super::context::{Context, Error, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use super::writes::Writes;
use super::{indexes, service_pods};
use crate::client::informer::{Cache, Key};

const BY_SERVICE: &str = "service";

/// The Service a slice of ours belongs to.
fn service_key(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.labels();
    let ours = labels.get(MANAGED_BY).is_some_and(|manager| manager == MANAGER);
    let name = labels.get(SERVICE_NAME).filter(|_| ours)?;
    Some(Key::new(slice.namespace().unwrap_or_default(), name))
}

struct Reconciler {
    context: Context,
    services: Cache<Service>,
    pods: Cache<Pod>,
    slices: Cache<EndpointSlice>,
    nodes: Cache<Node>,
    writes: Writes,
}

/// The zone that a node is in, as upstream labels it.
fn zone(node: &Node) -> Option<&String> {
    node.labels().get("topology.kubernetes.io/zone")
}

pub(super) fn start(context: &Context) {
    let (services, pods) = (context.cache::<Service>(), indexes::pods(context));
    let (slices, nodes) = (context.cache::<EndpointSlice>(), context.cache::<Node>());
    let writes = Writes::default();
    slices.index(BY_SERVICE, |slice| service_key(slice).map(|key| key.to_string()).into_iter().collect());
    let mut harness = Harness::new(context);
    service_pods::watch(&mut harness, &services, &pods);
    let gone = writes.clone();
    harness.watches(&slices, move |change, queue| {
        for slice in change.both() {
            let Some(key) = service_key(slice) else { continue };
            if change.new.is_none() {
                gone.gone(&key, &Key::of(&slice.metadata));
            }
            queue.add(key);
        }
    });
    let all = services.clone();
    harness.watches(&nodes, move |change, queue| {
        let of = |node: Option<&Arc<Node>>| node.and_then(|node| zone(node)).cloned();
        if of(change.old) != of(change.new) {
            all.list().iter().for_each(|service| queue.add(Key::of(&service.metadata)));
        }
    });
    harness.run(5, Arc::new(Reconciler { context: context.clone(), services, pods, slices, nodes, writes }));
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let existing = self.slices.find(BY_SERVICE, &key.to_string());
        let now = self.context.now();
        if !self.writes.settled(key, existing.iter().map(|slice| &slice.metadata), now) {
            // The watch brings what was written, and with it this key.
            return Ok(Outcome::Done);
        }
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
        try_join_all(ops.into_iter().map(|op| self.act(key, op))).await?;
        Ok(Outcome::Done)
    }
}

impl Reconciler {
    async fn act(&self, key: &Key, op: Op) -> Result<(), Error> {
        let api = self.context.api::<EndpointSlice>(&key.namespace);
        let written = match op {
            Op::Create(slice) => api.create(&PostParams::default(), &slice).await?,
            Op::Update(slice) => api.replace(&slice.name_any(), &PostParams::default(), &slice).await?,
            Op::Delete(name) => {
                ignore_not_found(api.delete(&name, &DeleteParams::default()).await)?;
                return Ok(());
            }
        };
        self.writes.note(key, &written.metadata, self.context.now());
        Ok(())
    }
}
