//! Which endpoints a Service port uses on this node, by the rules of traffic policies, termination and hints.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::network::{Kind, Port, Service, View};

/// One endpoint of one port, merged from all slices that name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub address: Ipv4Addr,
    pub port: u16,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub local: bool,
    pub for_nodes: Vec<String>,
    pub for_zones: Vec<String>,
}

impl Target {
    /// `ip:port`, as rules and chain hashes write it.
    pub fn text(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    fn usable(&self) -> bool {
        self.ready || self.closing()
    }

    /// Serving its last requests: used only where nothing is ready.
    fn closing(&self) -> bool {
        self.serving && self.terminating
    }
}

/// The endpoints of one port, by policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Usable {
    /// Any endpoint at all, here or elsewhere: otherwise connections are refused, not dropped.
    pub any: bool,
    /// For policy Cluster; empty where no side of the Service uses it.
    pub cluster: Vec<Target>,
    /// For policy Local; empty where no side of the Service uses it.
    pub local: Vec<Target>,
    /// Ready endpoints on this node, for the health check port.
    pub local_ready: usize,
}

/// A Service that outside clients can reach has rules for them, and so has a port with a node port.
pub(super) fn external(service: &Service, port: &Port) -> bool {
    let addresses = !service.external_ips.is_empty()
        || (service.kind == Kind::LoadBalancer && !service.ingress_ips.is_empty());
    port.node_port.is_some() || addresses
}

/// Chooses among the endpoints of `port` as kube-proxy does: ready ones; where there is none, those that terminate but
/// still serve. Policy Cluster also serves Pods that use a Local Service's external addresses.
pub(super) fn choose(view: &View, node: &str, service: &Service, port: &Port) -> Usable {
    let all = targets(view, node, service, port);
    let external = external(service, port);
    let uses_cluster = !service.internal_local || external;
    let uses_local = service.internal_local || (service.external_local && external);

    let any = all.iter().any(Target::usable);
    let local_ready = all.iter().filter(|t| t.local && t.ready).count();
    let cluster = if uses_cluster { best(hinted(&all, node, view.zone(node))) } else { Vec::new() };
    let local = if uses_local { best(all.iter().filter(|t| t.local).collect()) } else { Vec::new() };
    Usable { any, cluster, local, local_ready }
}

fn best(targets: Vec<&Target>) -> Vec<Target> {
    let pick = |keep: fn(&Target) -> bool| -> Vec<Target> {
        targets.iter().filter(|t| keep(t)).map(|t| (*t).clone()).collect()
    };
    let ready = pick(|t| t.ready);
    if ready.is_empty() { pick(Target::closing) } else { ready }
}

/// The endpoints that the hints of trafficDistribution mean for this node: those for the node, else those for its zone.
/// Hints of a kind count only when every ready endpoint has one and at least one of them is meant for this node, as
/// kube-proxy has it; otherwise all endpoints serve.
fn hinted<'a>(all: &'a [Target], node: &str, zone: Option<&str>) -> Vec<&'a Target> {
    let ready: Vec<&Target> = all.iter().filter(|t| t.ready).collect();
    let meant = |hints: fn(&Target) -> &[String], name: &str| -> Vec<&'a Target> {
        let complete = ready.iter().all(|t| !hints(t).is_empty());
        let mine = ready.iter().filter(|t| complete && hints(t).iter().any(|hint| hint == name));
        mine.copied().collect()
    };
    let here = meant(|t| &t.for_nodes, node);
    if !here.is_empty() {
        return here;
    }
    let near = zone.map(|zone| meant(|t| &t.for_zones, zone)).unwrap_or_default();
    if near.is_empty() { all.iter().collect() } else { near }
}

/// Endpoints by address and port. During a move between slices one may stand in two: it counts once, at its best.
fn targets(view: &View, node: &str, service: &Service, port: &Port) -> Vec<Target> {
    let mut all = BTreeMap::<(Ipv4Addr, u16), Target>::new();
    for slice in view.slices(&service.key) {
        let matching = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
        for slice_port in matching {
            for endpoint in &slice.endpoints {
                let target = Target {
                    address: endpoint.address,
                    port: slice_port.port,
                    ready: endpoint.ready,
                    serving: endpoint.serving,
                    terminating: endpoint.terminating,
                    local: endpoint.node.as_deref() == Some(node),
                    for_nodes: endpoint.for_nodes.clone(),
                    for_zones: endpoint.for_zones.clone(),
                };
                let known = all.entry((target.address, target.port)).or_insert_with(|| target.clone());
                if target.ready && !known.ready {
                    *known = target;
                }
            }
        }
    }
    all.into_values().collect()
}
