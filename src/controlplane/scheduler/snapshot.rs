//! The scheduler's picture of the cluster: nodes, the Pods on them, and what those take.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, PodAffinityTerm, WeightedPodAffinityTerm};

use super::profile::{self, Profile};
use super::volumes::PodVolumes;
use client::informer::Key;
use client::typed::resources::{Amounts, add, amounts, assumed, requested};
use client::typed::{HostPort, Labels, controller_of, host_ports};

/// A Pod with what scheduling reads of it, worked out once.
#[derive(Clone, Debug)]
pub(super) struct PodInfo {
    pub pod: Arc<Pod>,
    pub requests: Amounts,
    pub assumed: Amounts,
    pub ports: Vec<HostPort>,
    /// What its claims ask for; looked up for a Pod that waits.
    pub volumes: PodVolumes,
    /// How it is placed; looked up for a Pod that waits.
    pub profile: Arc<Profile>,
}

impl PodInfo {
    pub(super) fn new(pod: Arc<Pod>) -> Self {
        let (requests, assumed) = (requested(&pod), assumed(&pod));
        let ports = pod.spec.as_ref().map(host_ports).unwrap_or_default();
        Self { pod, requests, assumed, ports, volumes: PodVolumes::default(), profile: profile::default() }
    }

    /// The uid of its controller, while it counts as one of that one's replicas.
    fn sibling_of(&self) -> Option<&String> {
        let leaving = self.pod.metadata.deletion_timestamp.is_some();
        controller_of(&self.pod.metadata).map(|owner| &owner.uid).filter(|_| !leaving)
    }

    fn has_terms(&self) -> bool {
        let affinity = self.pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
        affinity
            .is_some_and(|affinity| affinity.pod_affinity.is_some() || affinity.pod_anti_affinity.is_some())
    }

    pub(super) fn namespace(&self) -> &str {
        self.pod.metadata.namespace.as_deref().unwrap_or_default()
    }

    pub(super) fn labels(&self) -> Option<&Labels> {
        self.pod.metadata.labels.as_ref()
    }

    pub(super) fn priority(&self) -> i32 {
        priority(&self.pod)
    }

    /// Terms that must hold between this Pod and others: for `true` those that keep apart.
    pub(super) fn required(&self, anti: bool) -> &[PodAffinityTerm] {
        let affinity = self.pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
        let terms = affinity.and_then(|affinity| match anti {
            true => affinity
                .pod_anti_affinity
                .as_ref()?
                .required_during_scheduling_ignored_during_execution
                .as_ref(),
            false => {
                affinity.pod_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
            }
        });
        terms.map(Vec::as_slice).unwrap_or_default()
    }

    /// Terms that are wished for, with their weights.
    pub(super) fn preferred(&self, anti: bool) -> &[WeightedPodAffinityTerm] {
        let affinity = self.pod.spec.as_ref().and_then(|spec| spec.affinity.as_ref());
        let terms = affinity.and_then(|affinity| match anti {
            true => affinity
                .pod_anti_affinity
                .as_ref()?
                .preferred_during_scheduling_ignored_during_execution
                .as_ref(),
            false => {
                affinity.pod_affinity.as_ref()?.preferred_during_scheduling_ignored_during_execution.as_ref()
            }
        });
        terms.map(Vec::as_slice).unwrap_or_default()
    }
}

/// A Pod's priority; 0 when admission gave none.
pub(super) fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

/// A node and what is on it. `node` is missing while only its Pods are known.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeInfo {
    pub node: Option<Arc<Node>>,
    pub allocatable: Amounts,
    pub requested: Amounts,
    pub assumed: Amounts,
    pub pods: BTreeMap<Key, PodInfo>,
    /// How many replicas of each controller are here, by its uid.
    pub siblings: HashMap<String, i64>,
}

impl NodeInfo {
    pub(super) fn name(&self) -> &str {
        self.node.as_ref().and_then(|node| node.metadata.name.as_deref()).unwrap_or_default()
    }

    pub(super) fn label(&self, key: &str) -> Option<&String> {
        self.node.as_ref()?.metadata.labels.as_ref()?.get(key)
    }

    pub(super) fn insert(&mut self, key: Key, info: PodInfo) {
        self.remove(&key);
        add(&mut self.requested, &info.requests, 1);
        add(&mut self.assumed, &info.assumed, 1);
        if let Some(uid) = info.sibling_of() {
            *self.siblings.entry(uid.clone()).or_default() += 1;
        }
        self.pods.insert(key, info);
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<PodInfo> {
        let info = self.pods.remove(key)?;
        add(&mut self.requested, &info.requests, -1);
        add(&mut self.assumed, &info.assumed, -1);
        if let Some(uid) = info.sibling_of()
            && let Some(count) = self.siblings.get_mut(uid)
        {
            *count -= 1;
            if *count == 0 {
                self.siblings.remove(uid);
            }
        }
        Some(info)
    }
}

/// The cluster as the scheduler knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    /// Where each Pod is counted.
    places: HashMap<Key, String>,
    /// The Pods that have terms about other Pods, and where they are.
    opinionated: BTreeMap<Key, String>,
    /// Pods that wait for room on a node that was made for them.
    nominated: BTreeMap<Key, (String, PodInfo)>,
    pub namespaces: HashMap<String, Labels>,
}

impl Snapshot {
    /// The nodes that exist, by name.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &NodeInfo> + Clone {
        self.nodes.values().filter(|info| info.node.is_some())
    }

    /// Every Pod on an existing node, with its node.
    pub(super) fn pods(&self) -> impl Iterator<Item = (&NodeInfo, &PodInfo)> {
        self.nodes().flat_map(|node| node.pods.values().map(move |pod| (node, pod)))
    }

    /// The node of this name, if it exists.
    pub(super) fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.nodes.get(name).filter(|info| info.node.is_some())
    }

    /// The Pods that have terms about other Pods, each with its node.
    pub(super) fn opinionated(&self) -> impl Iterator<Item = (&NodeInfo, &PodInfo)> {
        self.opinionated.iter().filter_map(|(key, node)| {
            let info = self.node(node)?;
            Some((info, info.pods.get(key)?))
        })
    }

    /// Holds room for a Pod on a node, against all that are less important.
    pub(super) fn nominate(&mut self, pod: &PodInfo, node: &str) {
        self.nominated.insert(Key::of(&pod.pod.metadata), (node.to_owned(), pod.clone()));
    }

    /// Holds room no more.
    pub(super) fn forget_nominated(&mut self, key: &Key) {
        self.nominated.remove(key);
    }

    /// A node as it will be with the Pods on it for which room is held against `pod`; `None` when there are none.
    pub(super) fn with_nominated(&self, node: &NodeInfo, pod: &PodInfo) -> Option<NodeInfo> {
        let own = Key::of(&pod.pod.metadata);
        let mut full: Option<NodeInfo> = None;
        for (key, (name, other)) in &self.nominated {
            if name == node.name() && *key != own && other.priority() >= pod.priority() {
                full.get_or_insert_with(|| node.clone()).insert(key.clone(), other.clone());
            }
        }
        full
    }

    pub(super) fn put_node(&mut self, node: Arc<Node>) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let info = self.nodes.entry(name).or_default();
        info.allocatable = amounts(node.status.as_ref().and_then(|status| status.allocatable.as_ref()));
        info.node = Some(node);
    }

    pub(super) fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            info.node = None;
            if info.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Counts a Pod on a node, wherever it was counted before.
    pub(super) fn put_pod(&mut self, pod: Arc<Pod>, node: &str) {
        let key = Key::of(&pod.metadata);
        self.remove_pod(&key);
        self.places.insert(key.clone(), node.to_owned());
        self.nominated.remove(&key);
        let info = PodInfo::new(pod);
        if info.has_terms() {
            self.opinionated.insert(key.clone(), node.to_owned());
        }
        self.nodes.entry(node.to_owned()).or_default().insert(key, info);
    }

    pub(super) fn remove_pod(&mut self, key: &Key) -> bool {
        let Some(node) = self.places.remove(key) else { return false };
        self.opinionated.remove(key);
        if let Some(info) = self.nodes.get_mut(&node) {
            info.remove(key);
            if info.pods.is_empty() && info.node.is_none() {
                self.nodes.remove(&node);
            }
        }
        true
    }
}
