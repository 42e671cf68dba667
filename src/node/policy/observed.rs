//! What policies are judged by: the policies themselves, and what their selectors see of Pods and namespaces.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::network::Protocol;
use client::typed::{Labels, is_terminal};

/// Upstream sets this label on every namespace.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// A Pod as policies see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub uid: String,
    pub namespace: String,
    pub labels: Labels,
    pub ip: Ipv4Addr,
    /// Container ports that have names.
    pub ports: Vec<(String, Protocol, u16)>,
    /// On this node, and not on its network: only such a Pod is isolated here.
    pub local: bool,
}

impl Member {
    /// A Pod of the API, once it has an address (`ip`, or the one in its status). Pods on their node's network and those
    /// that have ended are nobody to a policy.
    pub fn of(pod: &core::Pod, node: &str, ip: Option<Ipv4Addr>) -> Option<Self> {
        let spec = pod.spec.as_ref()?;
        if spec.host_network == Some(true) || is_terminal(pod) {
            return None;
        }
        let status = || pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok();
        let restartable = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.is_some());
        let containers = spec.containers.iter().chain(restartable);
        let ports = containers.flat_map(|container| container.ports.iter().flatten()).filter_map(|port| {
            let number = u16::try_from(port.container_port).ok()?;
            Some((port.name.clone()?, Protocol::parse(port.protocol.as_deref()), number))
        });
        Some(Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            ip: ip.or_else(status)?,
            ports: ports.collect(),
            local: spec.node_name.as_deref() == Some(node),
        })
    }
}

/// Everything observed.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    pub policies: Vec<Arc<NetworkPolicy>>,
    pub pods: Vec<Member>,
    pub namespaces: BTreeMap<String, Labels>,
}

impl Observed {
    /// Takes in a namespace. Its name is a label, whatever its labels say.
    pub fn put_namespace(&mut self, namespace: &core::Namespace) {
        let name = namespace.metadata.name.clone().unwrap_or_default();
        let mut labels = namespace.metadata.labels.clone().unwrap_or_default();
        labels.insert(NAMESPACE_NAME.to_owned(), name.clone());
        self.namespaces.insert(name, labels);
    }
}
