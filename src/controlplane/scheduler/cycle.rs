//! What one attempt works out once, before it looks at single nodes.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::snapshot::{NodeInfo, PodInfo, Snapshot};
use super::terms::pod_term;
use client::typed::{controller_of, first_untolerated, node_allowed, selects};

/// A topology key and one of its values: a place.
pub(super) type TopologyPair = (String, String);

/// One attempt to place one Pod.
pub(super) struct Cycle<'a> {
    pub pod: &'a PodInfo,
    pub snapshot: &'a Snapshot,
    neighbours: OnceCell<Neighbours>,
    spreads: OnceCell<Vec<Spread>>,
}

/// Where Pods are that inter-Pod terms mean.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// Places that Pods already there forbid to this one.
    pub forbidden: HashSet<TopologyPair>,
    /// Places of Pods that all of this Pod's affinity terms mean.
    pub wanted: HashSet<TopologyPair>,
    /// Places that this Pod's own anti-affinity terms forbid.
    pub avoided: HashSet<TopologyPair>,
}

/// One spread constraint, counted.
#[derive(Debug)]
pub(super) struct Spread {
    pub key: String,
    pub max_skew: i64,
    pub hard: bool,
    /// 1 when the Pod itself counts.
    pub itself: i64,
    /// Matching Pods by value of the topology key.
    pub counts: HashMap<String, i64>,
    /// The smallest of them, 0 while there are fewer domains than wanted.
    pub least: i64,
}

impl<'a> Cycle<'a> {
    pub(super) fn new(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        Self { pod, snapshot, neighbours: OnceCell::new(), spreads: OnceCell::new() }
    }

    pub(super) fn neighbours(&self) -> &Neighbours {
        self.neighbours.get_or_init(|| neighbours(self.pod, self.snapshot))
    }

    pub(super) fn spreads(&self) -> &[Spread] {
        self.spreads.get_or_init(|| spreads(self.pod, self.snapshot))
    }
}

/// The place a node is in by a topology key.
pub(super) fn topology_pair(node: &NodeInfo, key: &str) -> Option<TopologyPair> {
    Some((key.to_owned(), node.label(key)?.clone()))
}

fn neighbours(pod: &PodInfo, snapshot: &Snapshot) -> Neighbours {
    let mut found = Neighbours::default();
    let (affinity, anti) = (pod.required(false), pod.required(true));
    let namespaces = &snapshot.namespaces;
    for (node, other) in snapshot.opinionated() {
        for term in other.required(true) {
            if pod_term(term, other.namespace(), pod, namespaces) {
                found.forbidden.extend(topology_pair(node, &term.topology_key));
            }
        }
    }
    if affinity.is_empty() && anti.is_empty() {
        return found;
    }
    for (node, other) in snapshot.pods() {
        for term in anti {
            if pod_term(term, pod.namespace(), other, namespaces) {
                found.avoided.extend(topology_pair(node, &term.topology_key));
            }
        }
        let all = affinity.iter().all(|term| pod_term(term, pod.namespace(), other, namespaces));
        if all {
            found.wanted.extend(affinity.iter().filter_map(|term| topology_pair(node, &term.topology_key)));
        }
    }
    found
}

/// Spread constraints of a Pod that names none: the replicas of one controller over nodes and zones,
/// where that is possible (upstream's default constraints).
fn defaults() -> [TopologySpreadConstraint; 2] {
    let soft = |key: &str, max_skew: i32| TopologySpreadConstraint {
        topology_key: key.to_owned(),
        max_skew,
        when_unsatisfiable: "ScheduleAnyway".to_owned(),
        ..TopologySpreadConstraint::default()
    };
    [soft("kubernetes.io/hostname", 3), soft("topology.kubernetes.io/zone", 5)]
}

fn spreads(pod: &PodInfo, snapshot: &Snapshot) -> Vec<Spread> {
    let own = pod.pod.spec.as_ref().and_then(|spec| spec.topology_spread_constraints.as_ref());
    if let Some(own) = own.filter(|own| !own.is_empty()) {
        let hard_keys: Vec<&str> = own
            .iter()
            .filter(|c| c.when_unsatisfiable == "DoNotSchedule")
            .map(|c| c.topology_key.as_str())
            .collect();
        return own.iter().map(|constraint| spread(pod, snapshot, constraint, &hard_keys)).collect();
    }
    let Some(uid) = controller_of(&pod.pod.metadata).map(|owner| owner.uid.as_str()) else {
        return Vec::new();
    };
    // The Pod itself waits, and so is on no node yet.
    let siblings = |node: &NodeInfo| node.siblings.get(uid).copied().unwrap_or(0);
    let of = |constraint| count(snapshot, constraint, &|_| true, &siblings, 1);
    match &pod.profile.spread {
        Some(own) => own.iter().map(of).collect(),
        None => defaults().iter().map(of).collect(),
    }
}

fn with_label_keys(constraint: &TopologySpreadConstraint, pod: &PodInfo) -> Option<LabelSelector> {
    let mut selector = constraint.label_selector.clone()?;
    for key in constraint.match_label_keys.iter().flatten() {
        if let Some(value) = pod.labels().and_then(|labels| labels.get(key)) {
            selector.match_labels.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
    Some(selector)
}

fn spread(
    pod: &PodInfo,
    snapshot: &Snapshot,
    constraint: &TopologySpreadConstraint,
    hard_keys: &[&str],
) -> Spread {
    let selector = with_label_keys(constraint, pod);
    let honour = |policy: Option<&String>, default: bool| policy.map_or(default, |policy| policy == "Honor");
    let by_affinity = honour(constraint.node_affinity_policy.as_ref(), true);
    let by_taints = honour(constraint.node_taints_policy.as_ref(), false);
    let tolerations = pod.pod.spec.as_ref().and_then(|spec| spec.tolerations.as_ref());
    let counts_node = |info: &NodeInfo| {
        let Some(node) = &info.node else { return false };
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let tainted = || first_untolerated(taints, tolerations, &["NoSchedule", "NoExecute"]).is_some();
        let hard = constraint.when_unsatisfiable == "DoNotSchedule";
        (!hard || hard_keys.iter().all(|key| info.label(key).is_some()))
            && (!by_affinity || node_allowed(&pod.pod, node))
            && !(by_taints && tainted())
    };
    let matches = |other: &PodInfo| {
        other.namespace() == pod.namespace()
            && selector.as_ref().is_some_and(|selector| selects(selector, other.labels()))
    };
    let itself = i64::from(selector.as_ref().is_some_and(|selector| selects(selector, pod.labels())));
    let here = |node: &NodeInfo| {
        let counted = node.pods.values().filter(|other| {
            let leaving = other.pod.metadata.deletion_timestamp.is_some();
            !leaving && other.pod.metadata.uid != pod.pod.metadata.uid && matches(other)
        });
        i64::try_from(counted.count()).unwrap_or(i64::MAX)
    };
    count(snapshot, constraint, &counts_node, &here, itself)
}

fn count(
    snapshot: &Snapshot,
    constraint: &TopologySpreadConstraint,
    counts_node: &dyn Fn(&NodeInfo) -> bool,
    here: &dyn Fn(&NodeInfo) -> i64,
    itself: i64,
) -> Spread {
    let mut counts: HashMap<String, i64> = HashMap::new();
    for node in snapshot.nodes().filter(|node| counts_node(node)) {
        let Some(value) = node.label(&constraint.topology_key) else { continue };
        *counts.entry(value.clone()).or_default() += here(node);
    }
    let domains = i32::try_from(counts.len()).unwrap_or(i32::MAX);
    let enough = domains >= constraint.min_domains.unwrap_or(1);
    let least = if enough { counts.values().copied().min().unwrap_or(0) } else { 0 };
    Spread {
        key: constraint.topology_key.clone(),
        max_skew: constraint.max_skew.into(),
        hard: constraint.when_unsatisfiable == "DoNotSchedule",
        itself,
        counts,
        least,
    }
}
