//! What the node needs to know of Services, EndpointSlices and Nodes: a small part of the API objects, so that an idle
//! agent stays small however large the objects are.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use client::typed::{ANNOUNCED_BY, GATEWAY, OTHER_PROXY, SERVICE_NAME, UNPROXIED};

/// The zone that a node is in, as upstream labels it.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Upstream's default for sessionAffinityConfig.clientIP.timeoutSeconds.
const AFFINITY_SECONDS: u32 = 10_800;

/// Namespace and name of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    pub namespace: String,
    pub name: String,
}

impl ServiceKey {
    /// The key for `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Transport of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    /// The name in rules, DNS labels and chain hashes.
    pub fn lower(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The API's word for it; TCP where there is none.
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            Some("UDP") => Self::Udp,
            Some("SCTP") => Self::Sctp,
            _ => Self::Tcp,
        }
    }
}

/// How a Service is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    ClusterIp,
    NodePort,
    LoadBalancer,
    /// The name that DNS answers with, as written in the Service.
    ExternalName(String),
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Empty where the Service has one unnamed port.
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
    pub node_port: Option<u16>,
    /// What the port's clients speak, where the Service says so.
    pub app_protocol: Option<String>,
}

/// What a node needs of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub key: ServiceKey,
    pub kind: Kind,
    /// None for headless Services and for those that have no address (yet).
    pub cluster_ip: Option<Ipv4Addr>,
    pub headless: bool,
    pub ports: Vec<Port>,
    /// Seconds for which a client stays with its endpoint (sessionAffinity: ClientIP).
    pub affinity: Option<u32>,
    /// internalTrafficPolicy: Local.
    pub internal_local: bool,
    /// externalTrafficPolicy: Local.
    pub external_local: bool,
    pub health_check_node_port: Option<u16>,
    pub external_ips: Vec<Ipv4Addr>,
    /// status.loadBalancer.ingress addresses whose ipMode is VIP.
    pub ingress_ips: Vec<Ipv4Addr>,
    pub source_ranges: Vec<Ipv4Net>,
    pub publish_not_ready: bool,
    pub announced_by: Option<String>,
    /// Labelled for another proxy: DNS answers for it, rules leave it alone.
    pub other_proxy: bool,
    /// Labelled as left alone by all proxies.
    pub unproxied: bool,
    /// The Gateway that is served at its address.
    pub gateway: Option<String>,
}

impl Service {
    /// The part of an API object that matters here. IPv6 addresses are left out: nodes have IPv4 only.
    pub fn from_api(object: &core::Service) -> Self {
        let meta = &object.metadata;
        let spec = object.spec.clone().unwrap_or_default();
        let kind = match spec.type_.as_deref() {
            Some("NodePort") => Kind::NodePort,
            Some("LoadBalancer") => Kind::LoadBalancer,
            Some("ExternalName") => Kind::ExternalName(spec.external_name.clone().unwrap_or_default()),
            _ => Kind::ClusterIp,
        };
        let labelled = |label: &str| meta.labels.as_ref().is_some_and(|labels| labels.contains_key(label));
        let annotation = |name: &str| meta.annotations.as_ref().and_then(|all| all.get(name).cloned());
        let affinity = (spec.session_affinity.as_deref() == Some("ClientIP")).then(|| {
            let seconds = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
            seconds
                .and_then(|c| c.timeout_seconds)
                .and_then(|s| u32::try_from(s).ok())
                .unwrap_or(AFFINITY_SECONDS)
        });
        Self {
            key: ServiceKey::of(meta),
            cluster_ip: cluster_ip(&spec),
            headless: spec.cluster_ip.as_deref() == Some("None"),
            ports: spec.ports.iter().flatten().filter_map(port).collect(),
            affinity,
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
            health_check_node_port: spec.health_check_node_port.and_then(positive),
            external_ips: addresses(spec.external_ips.iter().flatten()),
            ingress_ips: ingress_ips(object.status.as_ref()),
            source_ranges: ranges(spec.load_balancer_source_ranges.iter().flatten()),
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or_default(),
            announced_by: annotation(ANNOUNCED_BY),
            gateway: annotation(GATEWAY),
            other_proxy: labelled(OTHER_PROXY),
            unproxied: labelled(UNPROXIED),
            kind,
        }
    }
}

fn cluster_ip(spec: &core::ServiceSpec) -> Option<Ipv4Addr> {
    spec.cluster_ip.iter().chain(spec.cluster_ips.iter().flatten()).find_map(|ip| ip.parse().ok())
}

fn port(port: &core::ServicePort) -> Option<Port> {
    Some(Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: Protocol::parse(port.protocol.as_deref()),
        port: positive(port.port)?,
        node_port: port.node_port.and_then(positive),
        app_protocol: port.app_protocol.clone(),
    })
}

/// A port number, unless it is 0 (not set) or outside what a port can be.
fn positive(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|n| *n > 0)
}

fn addresses<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<Ipv4Addr> {
    texts.filter_map(|text| text.parse().ok()).collect()
}

fn ranges<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<Ipv4Net> {
    texts.filter_map(|text| text.trim().parse::<Ipv4Net>().ok()).map(|net| net.trunc()).collect()
}

fn ingress_ips(status: Option<&core::ServiceStatus>) -> Vec<Ipv4Addr> {
    let ingress = status.and_then(|s| s.load_balancer.as_ref()).and_then(|lb| lb.ingress.as_ref());
    ingress
        .into_iter()
        .flatten()
        .filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"))
        .filter_map(|entry| entry.ip.as_ref()?.parse().ok())
        .collect()
}

/// One port of an EndpointSlice; the name is that of the Service's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlicePort {
    pub name: String,
    pub protocol: Protocol,
    pub port: u16,
}

/// One endpoint of an EndpointSlice. Conditions left out count as upstream says: ready and serving, not terminating.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Ipv4Addr,
    pub ready: bool,
    pub serving: bool,
    pub terminating: bool,
    pub node: Option<String>,
    pub hostname: Option<String>,
    /// Nodes that should prefer this endpoint (hints.forNodes, trafficDistribution: PreferSameNode).
    pub for_nodes: Vec<String>,
    /// Zones that should prefer this endpoint (hints.forZones, trafficDistribution: PreferSameZone).
    pub for_zones: Vec<String>,
}

/// What a node needs of an EndpointSlice of IPv4 addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    pub name: String,
    pub service: ServiceKey,
    pub ports: Vec<SlicePort>,
    pub endpoints: Vec<Endpoint>,
}

impl Slice {
    /// The part of an API object that matters here; None where it belongs to no Service or holds no IPv4 addresses.
    pub fn from_api(object: &discovery::EndpointSlice) -> Option<Self> {
        let meta = &object.metadata;
        let service = meta.labels.as_ref()?.get(SERVICE_NAME)?;
        if object.address_type != "IPv4" {
            return None;
        }
        let endpoints = object.endpoints.iter().flatten().filter_map(endpoint).collect();
        let ports = object.ports.iter().flatten().filter_map(|port| {
            Some(SlicePort {
                name: port.name.clone().unwrap_or_default(),
                protocol: Protocol::parse(port.protocol.as_deref()),
                port: port.port.and_then(positive)?,
            })
        });
        Some(Self {
            name: meta.name.clone().unwrap_or_default(),
            service: ServiceKey::new(meta.namespace.clone().unwrap_or_default(), service.clone()),
            ports: ports.collect(),
            endpoints,
        })
    }
}

/// An API endpoint may list several addresses, of which consumers may take any: the first, as upstream does.
fn endpoint(endpoint: &discovery::Endpoint) -> Option<Endpoint> {
    let address = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let hints = endpoint.hints.clone().unwrap_or_default();
    Some(Endpoint {
        address,
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name.clone(),
        hostname: endpoint.hostname.clone(),
        for_nodes: hints.for_nodes.into_iter().flatten().map(|node| node.name).collect(),
        for_zones: hints.for_zones.into_iter().flatten().map(|zone| zone.name).collect(),
    })
}

/// What a node needs of its peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub internal_ip: Option<Ipv4Addr>,
    pub pod_cidr: Option<Ipv4Net>,
    pub zone: Option<String>,
}

impl Node {
    /// The part of an API object that matters here.
    pub fn from_api(object: &core::Node) -> Self {
        let addresses = object.status.as_ref().and_then(|s| s.addresses.as_ref());
        let spec = object.spec.as_ref();
        let cidrs = spec.into_iter().flat_map(|s| s.pod_cidr.iter().chain(s.pod_cidrs.iter().flatten()));
        Self {
            name: object.metadata.name.clone().unwrap_or_default(),
            internal_ip: addresses
                .into_iter()
                .flatten()
                .filter(|a| a.type_ == "InternalIP")
                .find_map(|a| a.address.parse().ok()),
            pod_cidr: cidrs.filter_map(|cidr| cidr.parse::<Ipv4Net>().ok()).next(),
            zone: object.metadata.labels.as_ref().and_then(|labels| labels.get(ZONE).cloned()),
        }
    }
}
