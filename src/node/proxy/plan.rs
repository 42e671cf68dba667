//! From what is observed to what must hold on this node, in the words of Services and in no backend's; no I/O, no clock,
//! same input, same plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::endpoints::{Target, choose, external};
use crate::node::network::{Kind, Port, Protocol, Service, ServiceKey, View};

/// What the plan must know of the node and the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub node: String,
    /// This node's address: load balancer source ranges that contain it admit the node itself.
    pub node_ip: Ipv4Addr,
    /// All Pod addresses: traffic to Services from elsewhere is masqueraded, and so is Pods' traffic that leaves it.
    pub pod_cidr: Ipv4Net,
    /// ClusterIPs that a process on every node answers itself (DNS): never translated, never refused.
    pub answered_here: BTreeSet<Ipv4Addr>,
}

/// All that the proxy makes true on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// All Pod addresses. Pods' own addresses are kept inside of it and become the node's beyond it.
    pub pods: Ipv4Net,
    /// In the order in which they win an address that two of them claim.
    pub services: Vec<ServicePort>,
    /// By healthCheckNodePort.
    pub health: BTreeMap<u16, HealthCheck>,
    /// UDP entries and their endpoints: the kernel goes on sending known flows to endpoints that are gone, so their
    /// connection tracking entries are deleted when they go.
    pub udp: BTreeMap<At, BTreeSet<Ipv4Addr>>,
}

/// Which endpoints a side of a Service uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// All endpoints.
    Cluster,
    /// Those on this node.
    Local,
}

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    pub service: ServiceKey,
    /// `namespace/name:port`, or without `:port` where the port has no name.
    pub name: String,
    pub protocol: Protocol,
    /// Seconds for which a client stays with its endpoint.
    pub affinity: Option<u32>,
    /// For clients that use the ClusterIP. They keep their address if they are Pods, and get the node's otherwise.
    pub internal: Policy,
    /// For clients that use any other frontend. With policy Cluster all of them get the node's address. With policy
    /// Local, clients from outside keep theirs and use this node's endpoints; Pods keep theirs and use all endpoints;
    /// the node itself uses all endpoints.
    pub external: Policy,
    /// Whether there is, or may be, a frontend for outside clients.
    pub exposed: bool,
    pub frontends: Vec<Frontend>,
    /// Whether any endpoint is usable, here or elsewhere.
    pub any: bool,
    /// The endpoints for policy Cluster; empty where no side uses it.
    pub cluster: Vec<Target>,
    /// The endpoints for policy Local; empty where no side uses it.
    pub local: Vec<Target>,
    /// The port on which load balancers ask for the health of this node's endpoints.
    pub health_check: Option<u16>,
}

impl ServicePort {
    /// The endpoints of a policy.
    pub fn targets(&self, policy: Policy) -> &[Target] {
        match policy {
            Policy::Cluster => &self.cluster,
            Policy::Local => &self.local,
        }
    }

    /// Every endpoint that some client may reach, once.
    pub fn all_targets(&self) -> impl Iterator<Item = &Target> {
        self.cluster.iter().chain(self.local.iter().filter(|target| !self.cluster.contains(target)))
    }
}

/// Where packets of a Service arrive: an address with a port, or a port on every address of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    Address(Ipv4Addr, u16),
    NodePort(u16),
}

/// Which field of a Service a frontend comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrontendKind {
    ClusterIp,
    ExternalIp,
    LoadBalancer,
    NodePort,
}

/// One way in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frontend {
    pub kind: FrontendKind,
    pub at: At,
    /// How connections end that find no endpoint.
    pub refusal: Option<Refusal>,
    /// Who may come in (all others are dropped); empty where everybody may.
    pub sources: Vec<Ipv4Net>,
}

/// Why connections without a usable endpoint end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No endpoint anywhere: refused.
    NoEndpoints,
    /// Endpoints elsewhere, but policy Local and none here: dropped, so that a client tries another node.
    NoLocalEndpoints,
}

/// What answers on a Service's healthCheckNodePort.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub service: ServiceKey,
    pub local_endpoints: usize,
}

/// The plan for everything in `view` on the node that `settings` describes.
pub fn plan(view: &View, settings: &Settings) -> Plan {
    let mut plan =
        Plan { pods: settings.pod_cidr, services: Vec::new(), health: BTreeMap::new(), udp: BTreeMap::new() };
    for service in view.services().filter(|service| !service.other_proxy) {
        let Some(cluster_ip) = service.cluster_ip else { continue };
        if settings.answered_here.contains(&cluster_ip) || matches!(service.kind, Kind::ExternalName(_)) {
            continue;
        }
        for port in &service.ports {
            let usable = choose(view, &settings.node, service, port);
            plan.check_health(service, usable.local_ready);
            let port = service_port(settings, service, port, cluster_ip, usable);
            plan.note_udp(&port);
            plan.services.push(port);
        }
    }
    plan
}

impl Plan {
    fn check_health(&mut self, service: &Service, local_ready: usize) {
        let Some(port) = service.health_check_node_port.filter(|_| service.external_local) else { return };
        let fresh = || HealthCheck { service: service.key.clone(), local_endpoints: 0 };
        let check = self.health.entry(port).or_insert_with(fresh);
        check.local_endpoints = check.local_endpoints.max(local_ready);
    }

    fn note_udp(&mut self, port: &ServicePort) {
        if port.protocol != Protocol::Udp {
            return;
        }
        for frontend in &port.frontends {
            let endpoints = port.all_targets().map(|target| target.address);
            self.udp.entry(frontend.at).or_default().extend(endpoints);
        }
    }
}

fn service_port(
    settings: &Settings,
    service: &Service,
    port: &Port,
    cluster_ip: Ipv4Addr,
    usable: super::endpoints::Usable,
) -> ServicePort {
    let policy = |local| if local { Policy::Local } else { Policy::Cluster };
    let mut planned = ServicePort {
        service: service.key.clone(),
        name: port_name(&service.key, port),
        protocol: port.protocol,
        affinity: service.affinity,
        internal: policy(service.internal_local),
        external: policy(service.external_local),
        exposed: external(service, port),
        frontends: Vec::new(),
        any: usable.any,
        cluster: usable.cluster,
        local: usable.local,
        health_check: service.health_check_node_port.filter(|_| service.external_local),
    };
    let refusal = |policy| match (planned.any, planned.targets(policy).is_empty()) {
        (false, _) => Some(Refusal::NoEndpoints),
        (true, true) => Some(Refusal::NoLocalEndpoints),
        (true, false) => None,
    };
    let (inside, outside) = (refusal(planned.internal), refusal(planned.external));
    let at = |ip| At::Address(ip, port.port);
    let frontend = |kind, at, refusal| Frontend { kind, at, refusal, sources: Vec::new() };
    planned.frontends.push(frontend(FrontendKind::ClusterIp, at(cluster_ip), inside));
    let external_ips = service.external_ips.iter();
    planned.frontends.extend(external_ips.map(|ip| frontend(FrontendKind::ExternalIp, at(*ip), outside)));
    if service.kind == Kind::LoadBalancer {
        let sources = source_ranges(settings, service);
        let balancers = service.ingress_ips.iter().map(|ip| Frontend {
            sources: sources.clone(),
            ..frontend(FrontendKind::LoadBalancer, at(*ip), outside)
        });
        planned.frontends.extend(balancers);
    }
    let node_port = port.node_port.map(|port| frontend(FrontendKind::NodePort, At::NodePort(port), outside));
    planned.frontends.extend(node_port);
    planned
}

/// Who may use the load balancer's addresses. A node that may, may also do so with such an address as its source: that
/// is what the kernel takes when it is the destination.
fn source_ranges(settings: &Settings, service: &Service) -> Vec<Ipv4Net> {
    let mut sources = service.source_ranges.clone();
    if sources.iter().any(|range| range.contains(&settings.node_ip)) {
        sources.extend(service.ingress_ips.iter().map(|ip| Ipv4Net::from(*ip)));
    }
    sources
}

/// `namespace/name:port`, or without `:port` where the port has no name.
fn port_name(service: &ServiceKey, port: &Port) -> String {
    if port.name.is_empty() { service.to_string() } else { format!("{service}:{}", port.name) }
}
