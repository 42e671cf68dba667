//! What rules a node out. One file per filter; the first refusal of a node counts.

mod host_ports;
mod node_affinity;
mod node_name;
mod node_unschedulable;
mod pod_affinity;
mod resources_fit;
mod taints;
mod topology_spread;
mod volumes;

use super::cycle::Cycle;
use super::snapshot::NodeInfo;
use super::why::Refusal;

type Filter = fn(&Cycle<'_>, &NodeInfo) -> Result<(), Refusal>;

/// Every filter by upstream's name, in upstream's order.
pub(super) const ALL: &[(&str, Filter)] = &[
    ("NodeUnschedulable", node_unschedulable::check),
    ("NodeName", node_name::check),
    ("TaintToleration", taints::check),
    ("NodeAffinity", node_affinity::check),
    ("NodePorts", host_ports::check),
    ("NodeResourcesFit", resources_fit::check),
    ("VolumeRestrictions", volumes::exclusive),
    ("NodeVolumeLimits", volumes::limits),
    ("VolumeBinding", volumes::reach),
    ("VolumeZone", volumes::zone),
    ("PodTopologySpread", topology_spread::check),
    ("InterPodAffinity", pod_affinity::check),
];

/// Whether the Pod may run on the node, by the filters of its profile.
pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
    let chosen = cycle.pod.profile.filters.as_ref();
    let mut counting = ALL.iter().filter(|(name, _)| chosen.is_none_or(|chosen| chosen.contains(name)));
    counting.try_for_each(|(_, filter)| filter(cycle, node))
}
