use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::labels::{self, Labels};
use super::proxy_env::ProxyEnv;
use super::spec::ClusterSpec;
use super::subnet::Subnet;
use crate::config::{NodeConfig, Role};

/// Port of the API server inside the cluster's network.
pub const API_PORT: u16 = 6443;
/// Addresses of Pods and of Services; they never leave the cluster's own network namespaces.
const POD_CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 42, 0, 0), 16);
const SERVICE_CIDR: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 43, 0, 0), 16);
const DNS_IP: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 10);
const DOMAIN: &str = "cluster.local";

/// What a node's container may do beyond Docker's defaults, by name and kernel number: mounts and namespaces for Pods,
/// their network, looking into their processes, and what privileged Pods may be given.
const CAPABILITIES: &[(&str, u32)] = &[
    ("AUDIT_WRITE", 29),
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("DAC_READ_SEARCH", 2),
    ("FOWNER", 3),
    ("FSETID", 4),
    ("IPC_LOCK", 14),
    ("KILL", 5),
    ("LEASE", 28),
    ("LINUX_IMMUTABLE", 9),
    ("MKNOD", 27),
    ("NET_ADMIN", 12),
    ("NET_BIND_SERVICE", 10),
    ("NET_BROADCAST", 11),
    ("NET_RAW", 13),
    ("SETFCAP", 31),
    ("SETGID", 6),
    ("SETPCAP", 8),
    ("SETUID", 7),
    ("SYSLOG", 34),
    ("SYS_ADMIN", 21),
    ("SYS_CHROOT", 18),
    ("SYS_NICE", 23),
    ("SYS_PTRACE", 19),
    ("SYS_RESOURCE", 24),
];

/// What the plan depends on besides the specification: everything observed or drawn by lot.
#[derive(Clone, Debug)]
pub struct Observed {
    pub image: String,
    pub subnet: Subnet,
    /// MTU of Docker's own bridge, where it says one.
    pub mtu: Option<String>,
    /// Address and port of the host under which the API is published.
    pub api_bind: Ipv4Addr,
    pub api_host: String,
    pub api_port: u16,
    pub token: String,
    pub ca_hash: String,
    pub proxy: ProxyEnv,
    /// Capabilities of [`capabilities`] that this machine has.
    pub capabilities: Vec<String>,
}

/// Everything that will be made.
#[derive(Clone, Debug)]
pub struct ClusterPlan {
    pub network: NetworkPlan,
    pub nodes: Vec<NodePlan>,
    /// URL of the API as the host reaches it.
    pub api_url: String,
}

#[derive(Clone, Debug)]
pub struct NetworkPlan {
    pub name: String,
    pub subnet: Subnet,
    pub mtu: Option<String>,
    pub labels: Labels,
}

#[derive(Clone, Debug)]
pub struct NodePlan {
    pub name: String,
    pub role: Role,
    pub ip: Ipv4Addr,
    pub image: String,
    pub network: String,
    pub env: Vec<String>,
    pub labels: Labels,
    pub volumes: Vec<VolumePlan>,
    pub capabilities: Vec<String>,
    /// Published port: host address and port, port in the container.
    pub publish: Option<(Ipv4Addr, u16, u16)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumePlan {
    pub name: String,
    pub target: &'static str,
    pub labels: Labels,
}

/// What must outlive a restart: minik's state, the runtime's (overlay cannot stand on overlay), and Pods' volumes.
const VOLUMES: &[(&str, &str)] = &[
    ("state", NodeConfig::STATE_DIR),
    ("containerd", "/var/lib/containerd"),
    ("kubelet", "/var/lib/kubelet"),
];

/// The capabilities to ask for, given the bounding set of this machine (a bit per capability, as `CapBnd` in
/// `/proc/*/status`): asking for one that the machine lacks makes Docker refuse to start the container. Without a known
/// set all are asked for.
pub fn capabilities(bounding: Option<u64>) -> Vec<String> {
    CAPABILITIES
        .iter()
        .filter(|(_, number)| bounding.is_none_or(|set| set & (1 << number) != 0))
        .map(|(name, _)| (*name).to_owned())
        .collect()
}

/// The bounding set in the text of a `/proc/*/status`.
pub fn bounding_set(proc_status: &str) -> Option<u64> {
    let hex = proc_status.lines().find_map(|line| line.strip_prefix("CapBnd:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

/// Turns a specification into everything that has to be made. Pure.
pub fn plan(spec: &ClusterSpec, seen: &Observed) -> ClusterPlan {
    let network = labels::network(&spec.name);
    let nodes = (0..spec.nodes).map(|index| node(spec, seen, &network, index)).collect();
    ClusterPlan {
        network: NetworkPlan {
            name: network,
            subnet: seen.subnet,
            mtu: seen.mtu.clone(),
            labels: labels::of(&spec.name),
        },
        nodes,
        api_url: api_url(seen),
    }
}

fn api_url(seen: &Observed) -> String {
    format!("https://{}:{}", seen.api_host, seen.api_port)
}

fn node(spec: &ClusterSpec, seen: &Observed, network: &str, index: u32) -> NodePlan {
    let role = if index == 0 { Role::Server } else { Role::Agent };
    let config = node_config(spec, seen, role, index);
    let name = config.node.clone();
    let mut labels = labels::of(&spec.name);
    labels.insert(labels::NODE.into(), name.clone());
    labels.insert(labels::NODES.into(), spec.nodes.to_string());
    labels.insert(labels::ROLE.into(), role_name(role).into());
    if role == Role::Server {
        labels.insert(labels::API.into(), api_url(seen));
    }
    let json = serde_json::to_string(&config).expect("a node configuration is plain data");
    let mut env = vec![format!("{}={json}", NodeConfig::ENV)];
    let names = (0..spec.nodes).map(|index| labels::node(&spec.name, index));
    env.extend(seen.proxy.for_node(&[seen.subnet.net(), POD_CIDR, SERVICE_CIDR], DOMAIN, names));
    let volumes = VOLUMES
        .iter()
        .map(|(part, target)| VolumePlan {
            name: format!("{name}-{part}"),
            target,
            labels: labels::of(&spec.name),
        })
        .collect();
    NodePlan {
        role,
        ip: config.node_ip,
        image: seen.image.clone(),
        network: network.to_owned(),
        env,
        labels,
        volumes,
        capabilities: seen.capabilities.clone(),
        publish: (role == Role::Server).then_some((seen.api_bind, seen.api_port, API_PORT)),
        name,
    }
}

fn node_config(spec: &ClusterSpec, seen: &Observed, role: Role, index: u32) -> NodeConfig {
    let (lb_first, lb_last) = seen.subnet.load_balancers();
    let mut api_sans = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    if !api_sans.contains(&seen.api_host) {
        api_sans.push(seen.api_host.clone());
    }
    NodeConfig {
        cluster: spec.name.to_string(),
        node: labels::node(&spec.name, index),
        role,
        node_ip: seen.subnet.node(index),
        server_ip: seen.subnet.node(0),
        server_port: API_PORT,
        token: seen.token.clone(),
        ca_hash: seen.ca_hash.clone(),
        pod_cidr: POD_CIDR,
        service_cidr: SERVICE_CIDR,
        dns_ip: DNS_IP,
        cluster_domain: DOMAIN.to_owned(),
        lb_first,
        lb_last,
        api_sans,
    }
}

/// The role as labels write it.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Server => "server",
        Role::Agent => "agent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Observed {
        Observed {
            image: "minik/node:test".into(),
            subnet: Subnet::choose(&[], 0).expect("a block"),
            mtu: None,
            api_bind: Ipv4Addr::LOCALHOST,
            api_host: "127.0.0.1".into(),
            api_port: 40123,
            token: "abcdef.0123456789abcdef".into(),
            ca_hash: "sha256:00".into(),
            proxy: ProxyEnv::default(),
            capabilities: capabilities(None),
        }
    }

    fn spec(nodes: u32) -> ClusterSpec {
        ClusterSpec::new("t".parse().expect("good name"), nodes).expect("good specification")
    }

    #[test]
    fn three_nodes_are_one_server_and_two_agents() {
        let plan = plan(&spec(3), &seen());
        let brief: Vec<_> = plan.nodes.iter().map(|n| (n.name.as_str(), n.role, n.ip.to_string())).collect();
        assert_eq!(
            brief,
            [
                ("minik-t-server-0", Role::Server, "172.31.254.2".to_owned()),
                ("minik-t-agent-0", Role::Agent, "172.31.254.3".to_owned()),
                ("minik-t-agent-1", Role::Agent, "172.31.254.4".to_owned()),
            ]
        );
        assert_eq!(plan.api_url, "https://127.0.0.1:40123");
        assert_eq!(plan.nodes[0].publish, Some((Ipv4Addr::LOCALHOST, 40123, 6443)));
        assert_eq!(plan.nodes[1].publish, None);
        assert_eq!(plan.nodes[0].labels[labels::API], plan.api_url);
        assert!(!plan.nodes[1].labels.contains_key(labels::API));
    }

    #[test]
    fn every_node_knows_the_same_server() {
        for node in plan(&spec(2), &seen()).nodes {
            let json = node.env[0].strip_prefix("MINIK_NODE=").expect("configuration first");
            let config: NodeConfig = serde_json::from_str(json).expect("readable");
            assert_eq!(config.server_ip.to_string(), "172.31.254.2");
            assert_eq!((config.node, config.node_ip), (node.name, node.ip));
        }
    }

    #[test]
    fn everything_is_labelled_with_its_cluster() {
        let plan = plan(&spec(2), &seen());
        assert_eq!(plan.network.labels[labels::CLUSTER], "t");
        for node in &plan.nodes {
            assert_eq!(node.labels[labels::CLUSTER], "t");
            assert!(node.volumes.iter().all(|v| v.labels[labels::CLUSTER] == "t"));
        }
    }

    #[test]
    fn only_capabilities_the_machine_has_are_asked_for() {
        let has = |set, name: &str| capabilities(set).iter().any(|c| c == name);
        assert!(has(None, "SYS_RESOURCE") && has(Some(u64::MAX), "SYS_RESOURCE"));
        assert!(!has(Some(!(1 << 24)), "SYS_RESOURCE") && has(Some(!(1 << 24)), "SYS_ADMIN"));
        assert_eq!(bounding_set("CapEff:\t01\nCapBnd:\t000001fffeffffff\n"), Some(0x0000_01ff_feff_ffff));
    }
}
