//! Endpoints: the older form of where a Service's Pods are, one object per Service, for clients that
//! still read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};

use super::context::{Context, Error, ignore_exists, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use super::indexes;
use super::service_pods::{
    self, HEADLESS, Port, address, hostname, is_headless, ports, publishes_not_ready, selector, target_ref,
};
use client::informer::{Cache, Key};
use client::typed::{Labels, is_ready};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const MANAGER: &str = "endpoint-controller";

#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    Create(Box<Endpoints>),
    Update(Box<Endpoints>),
}

fn endpoint_address(service: &Service, pod: &Pod) -> Option<EndpointAddress> {
    Some(EndpointAddress {
        ip: address(pod)?.to_owned(),
        hostname: hostname(service, pod),
        node_name: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        target_ref: Some(target_ref(pod)),
    })
}

fn endpoint_ports(ports: &[Port]) -> Option<Vec<EndpointPort>> {
    let one = |port: &Port| EndpointPort {
        name: Some(port.name.clone()).filter(|name| !name.is_empty()),
        port: port.port,
        protocol: Some(port.protocol.clone()),
        app_protocol: port.app_protocol.clone(),
    };
    Some(ports.iter().map(one).collect()).filter(|ports: &Vec<_>| !ports.is_empty())
}

fn subsets(service: &Service, pods: &[Arc<Pod>]) -> Option<Vec<EndpointSubset>> {
    type Halves = (Vec<EndpointAddress>, Vec<EndpointAddress>);
    let mut groups: BTreeMap<Vec<Port>, Halves> = BTreeMap::new();
    let unready_too = publishes_not_ready(service);
    for pod in pods {
        let leaving = pod.metadata.deletion_timestamp.is_some();
        let Some(address) = endpoint_address(service, pod).filter(|_| !leaving || unready_too) else {
            continue;
        };
        let ports = ports(service, pod);
        if ports.is_empty() && !is_headless(service) {
            continue;
        }
        let (ready, not_ready) = groups.entry(ports).or_default();
        if unready_too || is_ready(pod) { ready.push(address) } else { not_ready.push(address) }
    }
    let some = |mut list: Vec<EndpointAddress>| {
        list.sort_by(|a, b| a.ip.cmp(&b.ip));
        Some(list).filter(|list| !list.is_empty())
    };
    let all = groups.into_iter().map(|(ports, (ready, not_ready))| EndpointSubset {
        addresses: some(ready),
        not_ready_addresses: some(not_ready),
        ports: endpoint_ports(&ports),
    });
    Some(all.collect()).filter(|all: &Vec<_>| !all.is_empty())
}

fn labels(service: &Service) -> Labels {
    let mut labels = service.labels().clone();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    labels.insert(MANAGED_BY.to_owned(), MANAGER.to_owned());
    labels
}

fn plan(service: &Service, pods: &[Arc<Pod>], found: Option<&Endpoints>) -> Plan {
    let (subsets, labels) = (subsets(service, pods), labels(service));
    let Some(found) = found else {
        let metadata = ObjectMeta {
            name: service.metadata.name.clone(),
            namespace: service.namespace(),
            labels: Some(labels),
            ..ObjectMeta::default()
        };
        return Plan::Create(Box::new(Endpoints { metadata, subsets }));
    };
    let none = Vec::new();
    if found.subsets.as_ref().unwrap_or(&none) == subsets.as_ref().unwrap_or(&none)
        && *found.labels() == labels
    {
        return Plan::Nothing;
    }
    let mut right = Endpoints { subsets, ..found.clone() };
    right.metadata.labels = Some(labels);
    Plan::Update(Box::new(right))
}

struct Reconciler {
    context: Context,
    services: Cache<Service>,
    pods: Cache<Pod>,
    endpoints: Cache<Endpoints>,
}

pub(super) fn start(context: &Context) {
    let (services, pods) = (context.cache::<Service>(), indexes::pods(context));
    let endpoints = context.cache::<Endpoints>();
    let mut harness = Harness::new(context);
    service_pods::watch(&mut harness, &services, &pods);
    harness.watches(&endpoints, |change, queue| {
        change.latest().into_iter().for_each(|endpoints| queue.add(Key::of(&endpoints.metadata)));
    });
    harness.run(2, Arc::new(Reconciler { context: context.clone(), services, pods, endpoints }));
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let api = self.context.api::<Endpoints>(&key.namespace);
        let found = self.endpoints.get(key);
        let Some(service) = self.services.get(key) else {
            // What was written by hand, without a Service, is not ours to delete.
            let ours =
                found.is_some_and(|found| found.labels().get(MANAGED_BY).is_some_and(|m| m == MANAGER));
            if ours {
                ignore_not_found(api.delete(&key.name, &DeleteParams::default()).await)?;
            }
            return Ok(Outcome::Done);
        };
        if selector(&service).is_none() {
            return Ok(Outcome::Done);
        }
        match plan(&service, &service_pods::backends(&service, &self.pods), found.as_deref()) {
            Plan::Nothing => {}
            Plan::Create(new) => {
                ignore_exists(api.create(&PostParams::default(), &new).await)?;
            }
            Plan::Update(new) => {
                ignore_not_found(api.replace(&key.name, &PostParams::default(), &new).await)?;
            }
        }
        Ok(Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn pod(ip: &str, ready: &str, meta: Value) -> Arc<Pod> {
        let mut value = json!({"metadata": {"name": ip, "namespace": "ns", "uid": ip}, "spec": {"containers": []},
            "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": ready}]}});
        json_patch::merge(&mut value, &json!({ "metadata": meta }));
        Arc::new(from_value(value).unwrap())
    }

    #[test]
    fn ready_and_unready_stand_apart_and_leaving_ones_are_out() {
        let service: Service = from_value(json!({"metadata": {"name": "web", "namespace": "ns"},
            "spec": {"selector": {"a": "b"}, "ports": [{"port": 80, "targetPort": 8080}]}}))
        .unwrap();
        let pods = [
            pod("10.0.0.2", "True", json!({})),
            pod("10.0.0.1", "True", json!({})),
            pod("10.0.0.3", "False", json!({})),
            pod("10.0.0.4", "True", json!({"deletionTimestamp": "2026-01-01T00:00:00Z"})),
        ];
        let Plan::Create(made) = plan(&service, &pods, None) else { panic!("created") };
        let subset = &made.subsets.as_ref().unwrap()[0];
        let ips = |list: &Option<Vec<EndpointAddress>>| -> Vec<String> {
            list.iter().flatten().map(|address| address.ip.clone()).collect()
        };
        assert_eq!(ips(&subset.addresses), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(ips(&subset.not_ready_addresses), ["10.0.0.3"]);
        assert_eq!(subset.ports.as_ref().unwrap()[0].port, 8080);
        assert_eq!(plan(&service, &pods, Some(&made)), Plan::Nothing);
        assert!(matches!(plan(&service, &[], Some(&made)), Plan::Update(_)));
    }
}
