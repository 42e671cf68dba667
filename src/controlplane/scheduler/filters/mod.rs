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

/// Every filter, in upstream's order.
const ALL: &[Filter] = &[
    node_unschedulable::check,
    node_name::check,
    taints::check,
    node_affinity::check,
    host_ports::check,
    resources_fit::check,
    volumes::check,
    topology_spread::check,
    pod_affinity::check,
];

/// Whether the Pod may run on the node.
pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
    ALL.iter().try_for_each(|filter| filter(cycle, node))
}
