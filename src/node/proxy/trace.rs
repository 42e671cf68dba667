//! Says what happens to a packet under a plan, and why, without any backend: what users are told, and what the backends'
//! rules are compared with.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

use super::endpoints::Target;
use super::plan::{At, Frontend, FrontendKind, Plan, Policy, Refusal, ServicePort};
use crate::network::Protocol;

/// The first packet of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    pub source: Ipv4Addr,
    pub to: Ipv4Addr,
    pub port: u16,
    pub protocol: Protocol,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Sent to an endpoint, with the node's address as its source where `as_node`.
    Endpoint {
        address: Ipv4Addr,
        port: u16,
        as_node: bool,
    },
    /// Not for a Service.
    Untouched {
        address: Ipv4Addr,
        port: u16,
        as_node: bool,
    },
    Refused,
    Dropped,
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, address, port, as_node) = match self {
            Self::Endpoint { address, port, as_node } => ("", address, port, as_node),
            Self::Untouched { address, port, as_node } => ("untouched ", address, port, as_node),
            Self::Refused => return f.write_str("refused"),
            Self::Dropped => return f.write_str("dropped"),
        };
        let suffix = if *as_node { " as node" } else { "" };
        write!(f, "{what}{address}:{port}{suffix}")
    }
}

/// The fates of a packet and their probabilities, and the reason in a few words. `local` says which addresses the node
/// has.
pub fn trace(
    plan: &Plan,
    packet: &Packet,
    local: impl Fn(Ipv4Addr) -> bool,
) -> (BTreeMap<Fate, f64>, String) {
    let sure = |fate, why: String| (BTreeMap::from([(fate, 1.0)]), why);
    let address = At::Address(packet.to, packet.port);
    let node_port = At::NodePort(packet.port);
    let here = local(packet.to);
    let ways = || {
        let ports = plan.ports().filter(|port| port.protocol == packet.protocol);
        let all = ports.flat_map(|port| port.frontends.iter().map(move |frontend| (port, frontend)));
        let mine = move |at: At| all.clone().filter(move |(_, frontend)| frontend.at == at);
        mine(address).chain(mine(node_port).filter(move |_| here)).collect::<Vec<_>>()
    };
    let ways = ways();
    if let Some((port, _)) = ways.iter().find(|(port, frontend)| keeps_out(port, frontend, packet)) {
        return sure(Fate::Dropped, format!("{} does not admit {}", port.name, packet.source));
    }
    if let Some((port, frontend)) = ways.iter().find(|(port, frontend)| serves(port, frontend)) {
        let (targets, masquerade) = chosen(plan, port, frontend, packet, &local);
        if !targets.is_empty() {
            return (spread(targets, masquerade, packet), format!("{} has an endpoint for it", port.name));
        }
    }
    if let Some((port, frontend)) = ways.iter().find(|(_, frontend)| frontend.refusal.is_some()) {
        return match frontend.refusal {
            Some(Refusal::NoLocalEndpoints) => sure(
                Fate::Dropped,
                format!("{} has endpoints, but none on this node (policy Local)", port.name),
            ),
            _ => sure(Fate::Refused, format!("{} has no ready endpoints", port.name)),
        };
    }
    if packet.to.is_loopback() && !packet.source.is_loopback() {
        return sure(Fate::Dropped, "localhost is not reached from the network".into());
    }
    if !here && plan.cluster_ips.is_some_and(|range| range.contains(&packet.to)) {
        return sure(Fate::Dropped, "no Service has this address and port, of those for Services".into());
    }
    let as_node = plan.pods.contains(&packet.source) && !plan.pods.contains(&packet.to) && !here;
    let fate = Fate::Untouched { address: packet.to, port: packet.port, as_node };
    sure(fate, "no Service has this address and port".into())
}

fn keeps_out(port: &ServicePort, frontend: &Frontend, packet: &Packet) -> bool {
    let admitted = frontend.sources.iter().any(|range| range.contains(&packet.source));
    !frontend.sources.is_empty() && (!port.any || !admitted)
}

fn serves(port: &ServicePort, frontend: &Frontend) -> bool {
    match frontend.kind {
        FrontendKind::ClusterIp => frontend.refusal.is_none(),
        _ => port.any,
    }
}

/// The endpoints among which one is taken, and whether the source becomes the node's whichever it is.
fn chosen<'a>(
    plan: &Plan,
    port: &'a ServicePort,
    frontend: &Frontend,
    packet: &Packet,
    local: impl Fn(Ipv4Addr) -> bool,
) -> (&'a [Target], bool) {
    let from_pod = plan.pods.contains(&packet.source);
    match (frontend.kind, port.external) {
        (FrontendKind::ClusterIp, _) => (port.targets(port.internal), !from_pod),
        (_, Policy::Cluster) => (&port.cluster, true),
        (_, Policy::Local) if from_pod && !port.cluster.is_empty() => (&port.cluster, false),
        (_, Policy::Local) if local(packet.source) && !port.cluster.is_empty() => (&port.cluster, true),
        (_, Policy::Local) => (&port.local, false),
    }
}

fn spread(targets: &[Target], masquerade: bool, packet: &Packet) -> BTreeMap<Fate, f64> {
    let mut fates = BTreeMap::new();
    for target in targets {
        // A Pod that reaches itself must see an answerable source.
        let as_node = masquerade || target.address == packet.source;
        let fate = Fate::Endpoint { address: target.address, port: target.port, as_node };
        *fates.entry(fate).or_default() += 1.0 / targets.len() as f64;
    }
    fates
}
