//! EndpointSlices for Endpoints that people write by hand: those of Services without a selector.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort as OldPort, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::context::{Context, Error};
use super::harness::{Harness, Outcome, Reconcile};
use super::managed_slices::{MANAGED_BY, ManagedSlices, Op};
use super::service_pods::selector;
use client::informer::{Cache, Key};
use client::typed::{SERVICE_NAME, owner_ref};

const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that are about the Endpoints object alone.
const OWN: &[&str] =
    &["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];
/// Upstream's `--mirroring-max-endpoints-per-subset`.
const MAX: usize = 1000;

/// Whether these Endpoints are mirrored: their Service has no selector, and nobody has said otherwise.
fn is_mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let skipped = endpoints.labels().get(SKIP).is_some_and(|skip| skip == "true");
    service.is_some_and(|service| selector(service).is_none())
        && endpoints.metadata.deletion_timestamp.is_none()
        && !skipped
        && !endpoints.annotations().contains_key(LEADER)
}

fn ports(ports: &[OldPort]) -> Vec<EndpointPort> {
    let one = |port: &OldPort| EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".to_owned())),
        app_protocol: port.app_protocol.clone(),
    };
    ports.iter().map(one).collect()
}

fn endpoint(address: &EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone(),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    }
}

/// The slices that Endpoints are mirrored in: one for each subset and kind of address.
fn wanted(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let mut labels = endpoints.labels().clone();
    labels.insert(SERVICE_NAME.to_owned(), endpoints.name_any());
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    let annotations = endpoints.annotations().iter().filter(|(key, _)| !OWN.contains(&key.as_str()));
    let annotations: BTreeMap<String, String> = annotations.map(|(k, v)| (k.clone(), v.clone())).collect();
    let metadata = ObjectMeta {
        generate_name: Some(format!("{}-", endpoints.name_any())),
        namespace: endpoints.namespace(),
        labels: Some(labels),
        annotations: Some(annotations).filter(|all| !all.is_empty()),
        owner_references: Some(vec![owner_ref(endpoints)]),
        ..ObjectMeta::default()
    };
    let mut slices = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let mut by_kind: BTreeMap<&str, Vec<Endpoint>> = BTreeMap::new();
        let ready = subset.addresses.iter().flatten().map(|address| (address, true));
        let not = subset.not_ready_addresses.iter().flatten().map(|address| (address, false));
        for (address, ready) in ready.chain(not).take(MAX) {
            let kind = match address.ip.parse::<IpAddr>() {
                Ok(IpAddr::V4(_)) => "IPv4",
                Ok(IpAddr::V6(_)) => "IPv6",
                Err(_) => continue,
            };
            by_kind.entry(kind).or_default().push(endpoint(address, ready));
        }
        slices.extend(by_kind.into_iter().map(|(kind, endpoints)| EndpointSlice {
            metadata: metadata.clone(),
            address_type: kind.to_owned(),
            ports: Some(ports(subset.ports.as_deref().unwrap_or_default())),
            endpoints: Some(endpoints),
        }));
    }
    slices
}

/// What brings the slices that are to those that should be. A slice keeps its name while its ports stay.
fn plan(wanted: Vec<EndpointSlice>, existing: &[Arc<EndpointSlice>]) -> Vec<Op> {
    let mut left: Vec<&Arc<EndpointSlice>> = existing.iter().collect();
    let mut ops = Vec::new();
    for slice in wanted {
        let same = |there: &&Arc<EndpointSlice>| {
            there.address_type == slice.address_type && there.ports == slice.ports
        };
        let Some(at) = left.iter().position(same) else {
            ops.push(Op::Create(Box::new(slice)));
            continue;
        };
        let there = left.swap_remove(at);
        let right = there.endpoints == slice.endpoints
            && there.metadata.labels == slice.metadata.labels
            && there.metadata.annotations == slice.metadata.annotations;
        if !right {
            let mut new = EndpointSlice::clone(there);
            new.metadata.labels = slice.metadata.labels;
            new.metadata.annotations = slice.metadata.annotations;
            new.endpoints = slice.endpoints;
            ops.push(Op::Update(Box::new(new)));
        }
    }
    ops.extend(left.into_iter().map(|slice| Op::Delete(slice.name_any())));
    ops
}

struct Reconciler {
    endpoints: Cache<Endpoints>,
    services: Cache<Service>,
    slices: ManagedSlices,
}

pub(super) fn start(context: &Context) {
    let (endpoints, services) = (context.cache::<Endpoints>(), context.cache::<Service>());
    let mut harness = Harness::new(context);
    harness.watches(&endpoints, |change, queue| {
        change.latest().into_iter().for_each(|endpoints| queue.add(Key::of(&endpoints.metadata)));
    });
    harness.watches(&services, |change, queue| {
        change.latest().into_iter().for_each(|service| queue.add(Key::of(&service.metadata)));
    });
    let slices = ManagedSlices::watch(context, &mut harness, MANAGER);
    harness.run(2, Arc::new(Reconciler { endpoints, services, slices }));
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(existing) = self.slices.of(key) else { return Ok(Outcome::Done) };
        let service = self.services.get(key);
        let mirrored = self.endpoints.get(key).filter(|endpoints| is_mirrored(endpoints, service.as_deref()));
        let wanted = mirrored.map(|endpoints| wanted(&endpoints)).unwrap_or_default();
        self.slices.carry_out(key, plan(wanted, &existing)).await?;
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn endpoints_without_selector_are_mirrored() {
        let mut endpoints: Endpoints = from_value(json!({"metadata": {"name": "db", "namespace": "ns", "uid": "e",
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "x"}},
            "subsets": [{"addresses": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}],
                "ports": [{"port": 80}]}]}))
        .unwrap();
        let made = wanted(&endpoints);
        assert_eq!(
            made.iter().map(|slice| slice.address_type.as_str()).collect::<Vec<_>>(),
            ["IPv4", "IPv6"]
        );
        assert_eq!(made[0].endpoints.as_ref().unwrap().len(), 2);
        assert_eq!(made[0].labels()[SERVICE_NAME], "db");
        assert_eq!(made[0].annotations().len(), 1);
        assert!(plan(made.clone(), &[]).iter().all(|op| matches!(op, Op::Create(_))));
        let existing: Vec<_> = made.into_iter().map(Arc::new).collect();
        assert!(plan(wanted(&endpoints), &existing).is_empty());
        endpoints.subsets.as_mut().unwrap()[0].not_ready_addresses = None;
        let ops = plan(wanted(&endpoints), &existing);
        assert!(matches!(&ops[..], [Op::Update(slice)] if slice.endpoints.as_ref().unwrap().len() == 1));
        assert!(plan(Vec::new(), &existing).iter().all(|op| matches!(op, Op::Delete(_))));
        let check = |service: Value, expect: bool| {
            let service: Service = from_value(service.clone()).unwrap();
            assert_eq!(is_mirrored(&endpoints, Some(&service)), expect, "{service:?}");
        };
        check(json!({"spec": {}}), true);
        check(json!({"spec": {"selector": {"a": "b"}}}), false);
        assert!(!is_mirrored(&endpoints, None));
    }
}
