//! What every part of the kubelet works with.

use std::path::PathBuf;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, ObjectReference, Pod};
use kube::Client;
use tokio::sync::watch;

use super::container::{Facts, quantity_value};
use super::objects::Objects;
use super::plugins::Drivers;
use super::pressure::{Limits, Pressure};
use super::probe::Answers;
use super::services::Services;
use super::statics::Mirrors;
use crate::cri::Runtime;
use crate::images::Arrival;
use crate::policy::Policies;
use client::events::Recorder;
use config::NodeConfig;
use rt::Tasks;

/// What every part of the kubelet works with.
pub struct Context {
    pub config: NodeConfig,
    pub client: Client,
    pub runtime: Runtime,
    /// Images on their way here, if the node has only just started.
    pub images: Arrival,
    pub objects: Objects,
    pub services: Services,
    pub policies: Policies,
    /// The storage drivers that are registered on this node.
    pub drivers: Drivers,
    pub events: Recorder,
    /// What the API server shows of this node's static Pods.
    pub mirrors: Mirrors,
    /// What probes answered.
    pub probes: Answers,
    pub tasks: Tasks,
    /// When the node counts as short of something, and what it is short of now.
    pub limits: Limits,
    pub pressure: watch::Sender<Pressure>,
    /// This machine's Node as the API server last told it.
    pub node: watch::Sender<Arc<Node>>,
    /// Where Pods' folders are; survives restarts.
    pub dir: PathBuf,
    /// The node's own /etc/resolv.conf, for Pods that inherit it.
    pub resolv_conf: String,
    /// The node's CPUs (thousandths) and memory (bytes) that Pods may use.
    pub cpu_milli: u64,
    pub memory: u64,
}

impl Context {
    /// The Pod's folder.
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.dir.join("pods").join(uid)
    }

    /// The node as events name it.
    pub fn node_reference(&self) -> ObjectReference {
        ObjectReference {
            kind: Some("Node".into()),
            name: Some(self.config.node.clone()),
            uid: Some(self.config.node.clone()),
            ..Default::default()
        }
    }

    /// Bytes of disk the node says it has.
    fn allocatable_disk(&self) -> u64 {
        let node = self.node.borrow();
        let allocatable = node.status.as_ref().and_then(|status| status.allocatable.as_ref());
        allocatable.and_then(|all| all.get("ephemeral-storage")).and_then(quantity_value).unwrap_or(0)
    }

    /// What the downward API tells beside the Pod's own fields.
    pub fn facts(&self, pod_ips: Vec<String>) -> Facts {
        Facts {
            node: self.config.node.clone(),
            node_ip: self.config.node_ip.to_string(),
            pod_ips,
            cpu_milli: self.cpu_milli,
            memory: self.memory,
            disk: self.allocatable_disk(),
        }
    }
}

/// The Pod as events name it; `container` adds the field path `kubectl describe` shows.
pub fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let init = |name: &str| {
        pod.spec.as_ref().is_some_and(|spec| spec.init_containers.iter().flatten().any(|c| c.name == name))
    };
    let beside = |name: &str| {
        pod.spec.as_ref().is_some_and(|s| s.ephemeral_containers.iter().flatten().any(|c| c.name == name))
    };
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        name: pod.metadata.name.clone(),
        namespace: pod.metadata.namespace.clone(),
        uid: pod.metadata.uid.clone(),
        resource_version: pod.metadata.resource_version.clone(),
        field_path: container.map(|name| {
            let list = match name {
                name if init(name) => "initContainers",
                name if beside(name) => "ephemeralContainers",
                _ => "containers",
            };
            format!("spec.{list}{{{name}}}")
        }),
    }
}
