//! From what is observed to what must hold on this node, in the words of Services and in no backend's; no I/O, no clock,
//! same input, same plan.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use ipnet::Ipv4Net;

use super::endpoints::{Target, choose, external};
use crate::network::{Changed, Kind, Port, Protocol, Service, ServiceKey, View};

/// What the plan must know of the node and the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub node: String,
    /// This node's address: load balancer source ranges that contain it admit the node itself.
    pub node_ip: Ipv4Addr,
    /// All Pod addresses: traffic to Services from elsewhere is masqueraded, and so is Pods' traffic that leaves it.
    pub pod_cidr: Ipv4Net,
    /// What ClusterIPs are taken from, where that is known: nothing beyond the cluster answers for an address of it.
    pub service_cidr: Option<Ipv4Net>,
    /// ClusterIPs that a process on every node answers itself (DNS): never translated, never refused.
    pub answered_here: BTreeSet<Ipv4Addr>,
}

/// All that the proxy makes true on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// All Pod addresses. Pods' own addresses are kept inside of it and become the node's beyond it.
    pub pods: Ipv4Net,
    /// The range of ClusterIPs. What is sent there and is for no Service is dropped, or it would leave the cluster.
    pub cluster_ips: Option<Ipv4Net>,
    /// The ports of each Service, in the order in which Services win an address that two of them claim.
    pub services: BTreeMap<ServiceKey, Arc<[ServicePort]>>,
    /// Services whose health load balancers ask for.
    checked: BTreeSet<ServiceKey>,
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
    /// Ready endpoints on this node.
    pub local_ready: usize,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    let mut plan = Plan::new(settings);
    plan.update(view, settings, &Changed::Everything);
    plan
}

impl Plan {
    /// The plan of a node that knows of no Service.
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            pods: settings.pod_cidr,
            cluster_ips: settings.service_cidr,
            services: BTreeMap::new(),
            checked: BTreeSet::new(),
        }
    }

    /// Plans what has changed again: what that costs does not grow with what has not.
    pub(super) fn update(&mut self, view: &View, settings: &Settings, changed: &Changed) {
        match changed {
            Changed::Everything => {
                self.services.clear();
                self.checked.clear();
                view.services()
                    .for_each(|service| self.put(&service.key, service_ports(view, settings, service)));
            }
            Changed::Of(keys) => {
                for key in keys {
                    let ports = view.service(key).map(|service| service_ports(view, settings, service));
                    self.put(key, ports.unwrap_or_default());
                }
            }
        }
    }

    fn put(&mut self, key: &ServiceKey, ports: Vec<ServicePort>) {
        self.checked.remove(key);
        if ports.iter().any(|port| port.health_check.is_some()) {
            self.checked.insert(key.clone());
        }
        if ports.is_empty() {
            self.services.remove(key);
        } else {
            self.services.insert(key.clone(), ports.into());
        }
    }

    /// All ports of all Services.
    pub fn ports(&self) -> impl Iterator<Item = &ServicePort> + Clone {
        self.services.values().flat_map(|ports| ports.iter())
    }

    /// What answers on healthCheckNodePorts, by port.
    pub(super) fn health(&self) -> BTreeMap<u16, HealthCheck> {
        let mut all = BTreeMap::<u16, HealthCheck>::new();
        let ports =
            self.checked.iter().filter_map(|key| self.services.get(key)).flat_map(|ports| ports.iter());
        for (number, port) in ports.filter_map(|port| Some((port.health_check?, port))) {
            let fresh = || HealthCheck { service: port.service.clone(), local_endpoints: 0 };
            let check = all.entry(number).or_insert_with(fresh);
            check.local_endpoints = check.local_endpoints.max(port.local_ready);
        }
        all
    }
}

/// The ports of one Service; none where other rules than ours, or none at all, hold for it.
fn service_ports(view: &View, settings: &Settings, service: &Service) -> Vec<ServicePort> {
    let left_alone = service.other_proxy || service.unproxied;
    let ours = !left_alone && !matches!(service.kind, Kind::ExternalName(_));
    let cluster_ip = service.cluster_ip.filter(|ip| ours && !settings.answered_here.contains(ip));
    let Some(cluster_ip) = cluster_ip else { return Vec::new() };
    let planned =
        |port| service_port(settings, service, port, cluster_ip, choose(view, &settings.node, service, port));
    service.ports.iter().map(planned).collect()
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
        local_ready: usable.local_ready,
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
