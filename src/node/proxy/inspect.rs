//! What would happen to packets for one Service, on each node, from each kind of client: the tracer, for people.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::Serialize;

use super::plan::{At, FrontendKind, Settings, plan};
use super::trace::{Packet, trace};
use crate::network::{Node, ServiceKey, View};

/// An address that belongs to nobody (RFC 5737): stands for clients outside the cluster.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);

/// One kind of packet and its fate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub node: String,
    /// `Pod`, `node` or `outside`.
    pub from: &'static str,
    /// `address:port/protocol`.
    pub to: String,
    /// Where it goes, one of them by chance; `refused` or `dropped`.
    pub fates: Vec<String>,
    pub why: String,
}

/// Traces packets to every frontend of the Service that `key` names, on every node that has an address and a Pod network.
pub fn inspect(view: &View, key: &ServiceKey, pods: Ipv4Net) -> Vec<Finding> {
    let nodes = view.nodes().filter_map(|node| Some((node, node.internal_ip?, node.pod_cidr?)));
    nodes.flat_map(|(node, ip, cidr)| on_node(view, key, pods, node, ip, cidr)).collect()
}

fn on_node(
    view: &View,
    key: &ServiceKey,
    pods: Ipv4Net,
    node: &Node,
    node_ip: Ipv4Addr,
    cidr: Ipv4Net,
) -> Vec<Finding> {
    let settings = Settings {
        node: node.name.clone(),
        node_ip,
        pod_cidr: pods,
        service_cidr: None,
        answered_here: [].into(),
    };
    let plan = plan(view, &settings);
    // The last address of a node's range is never a Pod's.
    let clients = [("Pod", cidr.broadcast()), ("node", node_ip), ("outside", OUTSIDE)];
    let mut found = Vec::new();
    for port in plan.services.get(key).into_iter().flat_map(|ports| ports.iter()) {
        for frontend in &port.frontends {
            let (to, number) = match frontend.at {
                At::Address(ip, number) => (ip, number),
                At::NodePort(number) => (node_ip, number),
            };
            let outside = frontend.kind != FrontendKind::ClusterIp;
            for (from, source) in clients.into_iter().filter(|(from, _)| outside || *from != "outside") {
                let packet = Packet { source, to, port: number, protocol: port.protocol };
                let (fates, why) = trace(&plan, &packet, |ip| ip == node_ip || ip.is_loopback());
                found.push(Finding {
                    node: node.name.clone(),
                    from,
                    to: format!("{to}:{number}/{}", port.protocol.lower()),
                    fates: fates.keys().map(ToString::to_string).collect(),
                    why,
                });
            }
        }
    }
    found
}
