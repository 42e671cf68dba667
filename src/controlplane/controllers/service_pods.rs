//! What a Service's selector finds: which Pods it leads to, under which addresses and ports.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use super::harness::Harness;
use client::informer::{Cache, Key};
use client::typed::{Labels, is_ready, is_terminal, selects_map};

/// The label by which kube-proxy leaves headless Services alone.
pub(super) const HEADLESS: &str = "service.kubernetes.io/headless";

/// The selector, when the Service has one that controllers follow.
pub(super) fn selector(service: &Service) -> Option<&Labels> {
    let spec = service.spec.as_ref()?;
    spec.selector.as_ref().filter(|_| spec.type_.as_deref() != Some("ExternalName"))
}

pub(super) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

pub(super) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or_default()
}

/// The Pods of the Service that have an address and have not ended, by name.
pub(super) fn backends(service: &Service, pods: &Cache<Pod>) -> Vec<Arc<Pod>> {
    let Some(selector) = selector(service) else { return Vec::new() };
    let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
    let all = pods.in_namespace(namespace).into_iter();
    let selected = all.filter(|pod| selects_map(selector, pod.metadata.labels.as_ref()));
    selected.filter(|pod| !is_terminal(pod) && address(pod).is_some()).collect()
}

/// The Pod's IPv4 address.
pub(super) fn address(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut all = status.pod_ip.as_deref().into_iter().chain(listed);
    all.find(|ip| ip.parse::<std::net::Ipv4Addr>().is_ok())
}

/// A Service's port as it is on one Pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port {
    pub name: String,
    pub protocol: String,
    pub port: i32,
    pub app_protocol: Option<String>,
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn target(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match port.target_port.as_ref() {
        None | Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
            let ports = spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten());
            let mut named = ports.filter(|candidate| {
                candidate.name.as_ref() == Some(name)
                    && candidate.protocol.as_deref().unwrap_or("TCP") == protocol(port)
            });
            named.next().map(|port| port.container_port)
        }
    }
}

/// The Service's ports on a Pod; a named port that the Pod lacks is left out.
pub(super) fn ports(service: &Service, pod: &Pod) -> Vec<Port> {
    let all = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let on_pod = all.filter_map(|port| {
        Some(Port {
            name: port.name.clone().unwrap_or_default(),
            protocol: protocol(port).to_owned(),
            port: target(port, pod)?,
            app_protocol: port.app_protocol.clone(),
        })
    });
    let mut on_pod: Vec<Port> = on_pod.collect();
    on_pod.sort();
    on_pod
}

/// The Pod's name within a headless Service, when it asks for one.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let same = spec.subdomain.as_ref() == service.metadata.name.as_ref();
    spec.hostname.clone().filter(|hostname| same && !hostname.is_empty())
}

pub(super) fn target_ref(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".to_owned()),
        namespace: pod.namespace(),
        name: Some(pod.name_any()),
        uid: pod.uid(),
        ..ObjectReference::default()
    }
}

/// What Services see of a Pod: when nothing of it changes, they need not look again.
fn face(pod: &Pod) -> impl PartialEq + '_ {
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let leaving = pod.metadata.deletion_timestamp.is_some();
    (pod.metadata.labels.as_ref(), address(pod), is_ready(pod), is_terminal(pod), leaving, node)
}

/// Brings changes of Services and of the Pods behind them to a controller of Services.
pub(super) fn watch(harness: &mut Harness<Key>, services: &Cache<Service>, pods: &Cache<Pod>) {
    harness.watches(services, |change, queue| {
        change.latest().into_iter().for_each(|service| queue.add(Key::of(&service.metadata)));
    });
    let services = services.clone();
    harness.watches(pods, move |change, queue| {
        if let (Some(old), Some(new)) = (change.old, change.new)
            && face(old) == face(new)
        {
            return;
        }
        let Some(latest) = change.latest() else { return };
        for service in services.in_namespace(latest.metadata.namespace.as_deref().unwrap_or_default()) {
            let matches = |pod: &Arc<Pod>| {
                selector(&service).is_some_and(|s| selects_map(s, pod.metadata.labels.as_ref()))
            };
            if change.both().any(matches) {
                queue.add(Key::of(&service.metadata));
            }
        }
    });
}
