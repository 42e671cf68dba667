//! From a specification and what was drawn for it to everything that should exist. Pure.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::Serialize;

use super::files;
use super::labels::{self, Labels};
use super::node_image::short_hash;
use super::numbers::FIRST_SERVER;
use super::ports::{PortMapping, Protocol, Target};
use super::record::{ClusterRecord, Drawn};
use super::size::{Cpus, Memory};
use super::spec::{ClusterSpec, HostMount, NodeSpec};
use super::subnet::Subnet;
use config::{LbConfig, NodeConfig, NodeSettings, Role, Server, Servers, image_store};

/// Port of the API server inside the cluster's network.
pub const API_PORT: u16 = 6443;
const DOMAIN: &str = "cluster.local";
/// What the host is called inside the cluster.
const HOST_NAME: &str = "host.minik.internal";

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

/// Everything that should exist.
#[derive(Clone, Debug)]
pub struct Desired {
    /// None where the cluster uses one that somebody else made.
    pub network: Option<NetworkPlan>,
    /// Nodes by number, then the load balancer of the API, where there are several servers, and those of host ports.
    pub containers: Vec<ContainerPlan>,
    /// URL of the API as the host reaches it.
    pub api_url: String,
}

impl ContainerPlan {
    /// Whether it is a load balancer that looks for its targets among Services, and so asks the API.
    pub fn reads_services(&self) -> bool {
        self.role == LB && self.labels.contains_key(labels::PORT)
    }
}

impl Desired {
    pub fn nodes(&self) -> impl Iterator<Item = &ContainerPlan> {
        self.containers.iter().filter(|container| container.role != LB)
    }
}

#[derive(Clone, Debug)]
pub struct NetworkPlan {
    pub name: String,
    pub subnet: Subnet,
    pub mtu: Option<String>,
    pub labels: Labels,
}

/// A container of a cluster: a node, or a load balancer for host ports.
#[derive(Clone, Debug, Serialize)]
pub struct ContainerPlan {
    pub name: String,
    /// What it calls itself: a node's name in its cluster. What is compared has it in its environment.
    #[serde(skip)]
    pub hostname: String,
    /// `server`, `agent` or [`LB`].
    pub role: &'static str,
    /// Docker chooses where there is none.
    pub ip: Option<Ipv4Addr>,
    pub image: String,
    pub network: String,
    pub env: Vec<String>,
    pub labels: Labels,
    pub volumes: Vec<VolumePlan>,
    pub mounts: Vec<HostMount>,
    pub capabilities: Vec<String>,
    pub publish: Vec<Publish>,
    pub memory: Option<Memory>,
    pub cpus: Option<Cpus>,
    pub selinux: bool,
    pub host_users: bool,
    /// `NAME:ADDRESS`, for what runs in the container itself.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_hosts: Vec<String>,
    /// What is put into it before it first starts. No part of what is compared: it can be put into one that runs.
    #[serde(skip)]
    pub files: Vec<PutFile>,
}

/// A file that is put into a container: its path without the first slash, its content, its mode.
pub type PutFile = (PathBuf, Vec<u8>, u32);

/// A published port: address and port of the host, port in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Publish {
    pub host_ip: Ipv4Addr,
    pub host_port: u16,
    pub port: u16,
    pub protocol: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VolumePlan {
    pub name: String,
    pub target: &'static str,
    pub labels: Labels,
    /// Whether what the image has at that place is copied into a new volume.
    pub populate: bool,
    /// The store of images: every node of every cluster has it, and none may write it.
    pub shared: bool,
}

/// The role of a container that carries host ports into the cluster, as its label says it.
pub const LB: &str = "lb";
/// The role of a container that is a registry.
pub const REGISTRY: &str = "registry";

/// What must outlive a restart: minik's state, the runtime's (overlay cannot stand on overlay), and Pods' volumes.
/// Only the runtime's state begins with something of the image: the sandbox image.
const VOLUMES: &[(&str, &str, bool)] = &[
    ("state", NodeConfig::STATE_DIR, false),
    ("containerd", "/var/lib/containerd", true),
    ("kubelet", "/var/lib/kubelet", false),
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

/// Turns a cluster's record into everything that should exist. Pure.
pub fn desired(record: &ClusterRecord) -> Desired {
    let ClusterRecord { spec, drawn, .. } = record;
    let network = spec.addresses.network.clone().unwrap_or_else(|| labels::network(&spec.name));
    let nodes = spec.nodes.iter().map(|of| node(record, &network, of));
    let api = spec.several.then(|| api_load_balancer(record, &network));
    let lbs = spec.ports.iter().map(|mapping| load_balancer(spec, drawn, &network, mapping));
    Desired {
        network: spec.addresses.network.is_none().then(|| NetworkPlan {
            name: network.clone(),
            subnet: drawn.subnet,
            mtu: drawn.mtu.clone(),
            labels: labels::of(&spec.name),
        }),
        containers: nodes.chain(api).chain(lbs).map(with_revision).collect(),
        api_url: drawn.api_url(),
    }
}

/// Says in a label what the container was made from, so that one made from something else is told apart.
fn with_revision(mut plan: ContainerPlan) -> ContainerPlan {
    let json = serde_json::to_vec(&plan).expect("a plan is plain data");
    plan.labels.insert(labels::REVISION.into(), short_hash(&[&json]));
    plan
}

fn node(record: &ClusterRecord, network: &str, of: &NodeSpec) -> ContainerPlan {
    let ClusterRecord { spec, drawn, .. } = record;
    let role = of.role();
    let config = node_config(spec, drawn, of);
    let name = labels::node(&spec.name, of.number);
    let mut labels = labels::of(&spec.name);
    labels.insert(labels::NODE.into(), config.node.clone());
    labels.insert(labels::ROLE.into(), role_name(role).into());
    if role == Role::Server {
        labels.insert(labels::API.into(), drawn.api_url());
    }
    let json = serde_json::to_string(&config).expect("a node configuration is plain data");
    let mut env = vec![format!("{}={json}", NodeConfig::ENV)];
    // Nodes are reached by address; were all their names listed, another node would change those there are.
    let names = [labels::node(&spec.name, FIRST_SERVER), HOST_NAME.to_owned()].into_iter();
    env.extend(drawn.proxy.for_node(&drawn.inside(&spec.addresses), DOMAIN, names));
    env.extend(of.env.iter().cloned());
    let volumes = VOLUMES.iter().map(|(part, target, populate)| VolumePlan {
        name: format!("{name}-{part}"),
        target,
        labels: labels::of(&spec.name),
        populate: *populate,
        shared: false,
    });
    let volumes = volumes.chain([VolumePlan {
        name: image_store::VOLUME.to_owned(),
        target: image_store::DIR,
        labels: labels::store(),
        populate: false,
        shared: true,
    }]);
    ContainerPlan {
        hostname: config.node,
        role: role_name(role),
        ip: Some(config.node_ip),
        image: drawn.image.clone(),
        network: network.to_owned(),
        env,
        labels,
        volumes: volumes.collect(),
        mounts: of.mounts.clone(),
        capabilities: drawn.capabilities.clone(),
        publish: if role == Role::Server && !spec.several { vec![api_port(drawn)] } else { Vec::new() },
        memory: of.memory,
        cpus: of.cpus,
        selinux: drawn.selinux,
        host_users: drawn.host_users,
        extra_hosts: spec.host_aliases.iter().map(|(name, ip)| format!("{name}:{ip}")).collect(),
        files: files::of_node(record, of).into_iter().chain(servers_file(spec, drawn)).collect(),
        name,
    }
}

/// The API's port of the host.
fn api_port(drawn: &Drawn) -> Publish {
    Publish { host_ip: drawn.api_bind, host_port: drawn.api_port, port: API_PORT, protocol: "tcp" }
}

/// What a node is called in its cluster.
fn node_name(spec: &ClusterSpec, drawn: &Drawn, number: u32) -> String {
    labels::node(drawn.named_after.as_ref().unwrap_or(&spec.name), number)
}

/// The cluster's servers, for a file of all that speak to them; none where there is one for good.
fn servers_file(spec: &ClusterSpec, drawn: &Drawn) -> Option<PutFile> {
    let server = |number| Server { node: node_name(spec, drawn, number), ip: drawn.subnet.node(number) };
    let servers = Servers(spec.servers().map(|node| server(node.number)).collect());
    let text = serde_json::to_vec(&servers).expect("plain data");
    spec.several.then(|| (PathBuf::from(Servers::FILE.trim_start_matches('/')), text, 0o644))
}

fn node_config(spec: &ClusterSpec, drawn: &Drawn, of: &NodeSpec) -> NodeConfig {
    let (lb_first, lb_last) = drawn.subnet.load_balancers();
    let mut api_sans = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let balancer = (spec.several && of.is_server()).then(|| drawn.subnet.api().to_string());
    for name in [&drawn.api_host].into_iter().chain(&spec.tls_sans).chain(&balancer) {
        if !api_sans.contains(name) {
            api_sans.push(name.clone());
        }
    }
    NodeConfig {
        cluster: spec.name.to_string(),
        node: node_name(spec, drawn, of.number),
        role: of.role(),
        node_ip: drawn.subnet.node(of.number),
        server_ip: if spec.several && of.is_server() {
            drawn.subnet.node(of.number)
        } else {
            drawn.subnet.node(FIRST_SERVER)
        },
        server_port: API_PORT,
        token: drawn.token.clone(),
        ca_hash: drawn.ca_hash.clone(),
        pod_cidr: spec.addresses.pods(),
        service_cidr: spec.addresses.services(),
        dns_ip: spec.addresses.dns(),
        cluster_domain: DOMAIN.to_owned(),
        lb_first,
        lb_last,
        api_sans,
        settings: NodeSettings {
            labels: of.labels.clone(),
            taints: of.taints.clone(),
            host_ip: Some(drawn.gateway()),
            host_aliases: spec.host_aliases.clone(),
            disabled: spec.disabled.iter().copied().collect(),
            brought: spec.brought,
            arguments: spec.arguments.clone(),
            datastore: spec.datastore.clone().filter(|_| of.is_server()),
            etcd: spec.runs_etcd() && of.is_server(),
        },
    }
}

/// One container for each host port: taking one away, or adding one, touches no connection through another.
fn load_balancer(spec: &ClusterSpec, drawn: &Drawn, network: &str, mapping: &PortMapping) -> ContainerPlan {
    let name = labels::load_balancer(&spec.name, mapping);
    let address = |number: &u32| drawn.subnet.node(*number);
    let those = |is: fn(&NodeSpec) -> bool| {
        spec.nodes.iter().filter(move |node| is(node)).map(|node| address(&node.number))
    };
    let nodes = match &mapping.target {
        Target::LoadBalancer => Vec::new(),
        Target::Nodes(numbers) => numbers.iter().map(address).collect(),
        Target::All => those(|_| true).collect(),
        Target::AllAgents(servers) => {
            servers.iter().map(address).chain(those(|node| !node.is_server())).collect()
        }
        Target::AllServers => those(NodeSpec::is_server).collect(),
    };
    let server = if spec.several { drawn.subnet.api() } else { drawn.subnet.node(FIRST_SERVER) };
    let config = LbConfig {
        cluster: spec.name.to_string(),
        port: mapping.port,
        udp: mapping.protocol == Protocol::Udp,
        servers: false,
        nodes,
        server: format!("https://{server}:{API_PORT}"),
    };
    let publish = Publish {
        host_ip: mapping.host_ip,
        host_port: mapping.host_port,
        port: mapping.port,
        protocol: mapping.protocol.as_str(),
    };
    let mut plan = balancer(spec, drawn, network, (name, &config), publish);
    plan.labels.insert(labels::PORT.into(), mapping.to_string());
    plan
}

/// What the host reaches the API through, where several servers serve it.
fn api_load_balancer(record: &ClusterRecord, network: &str) -> ContainerPlan {
    let ClusterRecord { spec, drawn, .. } = record;
    let config = LbConfig {
        cluster: spec.name.to_string(),
        port: API_PORT,
        udp: false,
        servers: true,
        nodes: Vec::new(),
        server: String::new(),
    };
    let name = labels::api_load_balancer(&spec.name);
    let mut plan = balancer(spec, drawn, network, (name, &config), api_port(drawn));
    plan.ip = Some(drawn.subnet.api());
    plan.files = servers_file(spec, drawn).into_iter().collect();
    plan
}

fn balancer(
    spec: &ClusterSpec,
    drawn: &Drawn,
    network: &str,
    (name, config): (String, &LbConfig),
    publish: Publish,
) -> ContainerPlan {
    let json = serde_json::to_string(config).expect("plain data");
    let mut labels = labels::of(&spec.name);
    labels.insert(labels::ROLE.into(), LB.into());
    ContainerPlan {
        hostname: name.clone(),
        name,
        role: LB,
        ip: None,
        image: drawn.image.clone(),
        network: network.to_owned(),
        env: vec![format!("{}={json}", LbConfig::ENV)],
        labels,
        volumes: Vec::new(),
        mounts: Vec::new(),
        // Ports below 1024 are listened on inside.
        capabilities: vec!["NET_BIND_SERVICE".to_owned()],
        publish: vec![publish],
        memory: None,
        cpus: None,
        selinux: drawn.selinux,
        // It needs nothing of the host, and its files belong to the root of its own users.
        host_users: false,
        extra_hosts: Vec::new(),
        files: Vec::new(),
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
    use super::super::record::test_drawn;
    use super::*;

    fn plan(nodes: u32) -> Desired {
        let spec = ClusterSpec::new("t".parse().expect("good name"), nodes).expect("good specification");
        desired(&ClusterRecord::new(spec, test_drawn()))
    }

    #[test]
    fn three_nodes_are_one_server_and_two_agents() {
        let plan = plan(3);
        let brief: Vec<_> = plan
            .containers
            .iter()
            .map(|n| (n.name.as_str(), n.role, n.ip.expect("fixed").to_string()))
            .collect();
        assert_eq!(
            brief,
            [
                ("minik-t-server-0", "server", "172.31.254.2".to_owned()),
                ("minik-t-agent-0", "agent", "172.31.254.3".to_owned()),
                ("minik-t-agent-1", "agent", "172.31.254.4".to_owned()),
            ]
        );
        assert_eq!(plan.api_url, "https://127.0.0.1:40123");
        let api = Publish { host_ip: Ipv4Addr::LOCALHOST, host_port: 40123, port: 6443, protocol: "tcp" };
        assert_eq!(plan.containers[0].publish, [api]);
        assert_eq!(plan.containers[1].publish, []);
        assert_eq!(plan.containers[0].labels[labels::API], plan.api_url);
        assert!(!plan.containers[1].labels.contains_key(labels::API));
    }

    #[test]
    fn several_servers_are_reached_through_one_address() {
        let spec = ClusterSpec::with_servers("t".parse().expect("good name"), 5, 3).expect("good");
        let mut record = ClusterRecord::new(spec, test_drawn());
        record.spec.ports = vec!["8080:80".parse().expect("good")];
        let plan = desired(&record);
        let brief: Vec<_> = plan
            .containers
            .iter()
            .map(|c| (c.name.as_str(), c.role, c.ip.map(|ip| ip.octets()[3]), c.publish.len()))
            .collect();
        assert_eq!(
            brief,
            [
                ("minik-t-server-0", "server", Some(2), 0),
                ("minik-t-agent-0", "agent", Some(3), 0),
                ("minik-t-agent-1", "agent", Some(4), 0),
                ("minik-t-server-1", "server", Some(126), 0),
                ("minik-t-server-2", "server", Some(125), 0),
                ("minik-t-lb-api", "lb", Some(127), 1),
                ("minik-t-lb-8080-tcp", "lb", None, 1),
            ]
        );
        let file = |c: &ContainerPlan| {
            let found = c.files.iter().find(|(path, ..)| path.ends_with("servers.json"));
            found.map(|(_, text, _)| serde_json::from_slice::<Servers>(text).expect("readable").0.len())
        };
        let files: Vec<_> = plan.containers.iter().map(file).collect();
        assert_eq!(files, [Some(3), Some(3), Some(3), Some(3), Some(3), Some(3), None]);
        let config = |at: usize| -> NodeConfig {
            let json = plan.containers[at].env[0].strip_prefix("MINIK_NODE=").expect("configuration first");
            serde_json::from_str(json).expect("readable")
        };
        assert!(config(0).settings.etcd && config(3).settings.etcd && !config(1).settings.etcd);
        assert_eq!((config(3).server_ip, config(1).server_ip), (config(3).node_ip, config(0).node_ip));
        assert!(config(4).api_sans.contains(&"172.31.254.127".to_owned()));
        let mut fewer = record.clone();
        fewer.spec.nodes.retain(|node| node.number != 0);
        let revisions = |record: &ClusterRecord| -> Vec<(String, String)> {
            let of = |c: &ContainerPlan| (c.name.clone(), c.labels[labels::REVISION].clone());
            desired(record).containers.iter().map(of).collect()
        };
        assert_eq!(revisions(&fewer)[..], revisions(&record)[1..], "those that stay are not made anew");
    }

    #[test]
    fn every_node_knows_the_same_server() {
        for node in plan(2).containers {
            let json = node.env[0].strip_prefix("MINIK_NODE=").expect("configuration first");
            let config: NodeConfig = serde_json::from_str(json).expect("readable");
            assert_eq!(config.server_ip.to_string(), "172.31.254.2");
            assert_eq!((config.node, Some(config.node_ip)), (node.name, node.ip));
        }
    }

    #[test]
    fn everything_is_labelled_with_its_cluster() {
        let plan = plan(2);
        assert_eq!(plan.network.as_ref().expect("its own").labels[labels::CLUSTER], "t");
        for node in &plan.containers {
            assert_eq!(node.labels[labels::CLUSTER], "t");
            let own = |v: &&VolumePlan| !v.shared;
            assert!(node.volumes.iter().filter(own).all(|v| v.labels[labels::CLUSTER] == "t"));
            assert!(
                node.volumes.iter().filter(|v| v.shared).all(|v| !v.labels.contains_key(labels::CLUSTER))
            );
        }
    }

    #[test]
    fn a_revision_follows_what_the_container_is_made_from() {
        let revisions = |record: &ClusterRecord| -> Vec<String> {
            desired(record).containers.iter().map(|c| c.labels[labels::REVISION].clone()).collect()
        };
        let spec = ClusterSpec::new("t".parse().expect("good name"), 2).expect("good");
        let record = ClusterRecord::new(spec, test_drawn());
        let before = revisions(&record);
        assert_eq!(revisions(&record), before);
        let mut more = record.clone();
        more.spec.nodes.push(NodeSpec::numbered(2));
        assert_eq!(revisions(&more)[..2], before, "another node changes nothing in those there are");
        let mut larger = record.clone();
        larger.spec.nodes[1].memory = Some("1Gi".parse().expect("good"));
        let after = revisions(&larger);
        assert!(after[0] == before[0] && after[1] != before[1]);
    }

    #[test]
    fn a_network_of_somebody_else_is_not_made() {
        let mut spec = ClusterSpec::new("t".parse().expect("good name"), 1).expect("good");
        spec.addresses.network = Some("theirs".to_owned());
        spec.host_aliases = [("db.corp".to_owned(), Ipv4Addr::new(10, 9, 9, 9))].into();
        let plan = desired(&ClusterRecord::new(spec, test_drawn()));
        assert!(plan.network.is_none() && plan.containers[0].network == "theirs");
        assert_eq!(plan.containers[0].extra_hosts, ["db.corp:10.9.9.9"]);
    }

    #[test]
    fn each_host_port_has_a_container_of_its_own() {
        let mut spec = ClusterSpec::new("t".parse().expect("good name"), 3).expect("good");
        spec.ports = vec!["8080:80".parse().expect("good"), "53:5353/udp@agent:*".parse().expect("good")];
        let plan = desired(&ClusterRecord::new(spec, test_drawn()));
        let names: Vec<_> = plan.containers[3..].iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["minik-t-lb-8080-tcp", "minik-t-lb-53-udp"]);
        assert_eq!(plan.nodes().count(), 3);
        let json = plan.containers[4].env[0].strip_prefix("MINIK_LB=").expect("configuration");
        let config: LbConfig = serde_json::from_str(json).expect("readable");
        assert!(config.udp && config.port == 5353);
        assert_eq!(
            config.nodes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["172.31.254.3", "172.31.254.4"]
        );
    }

    /// Under an engine that maps users, files put into a container belong to its own root: one without capabilities that
    /// ran as the host's could not read its key.
    #[test]
    fn only_nodes_need_the_host_s_users() {
        let mut spec = ClusterSpec::new("t".parse().expect("good name"), 2).expect("good");
        spec.ports = vec!["8080:80".parse().expect("good")];
        let drawn = Drawn { host_users: true, ..test_drawn() };
        let plan = desired(&ClusterRecord::new(spec, drawn));
        let who: Vec<_> = plan.containers.iter().map(|c| (c.role, c.host_users)).collect();
        assert_eq!(who, [("server", true), ("agent", true), ("lb", false)]);
    }

    #[test]
    fn only_capabilities_the_machine_has_are_asked_for() {
        let has = |set, name: &str| capabilities(set).iter().any(|c| c == name);
        assert!(has(None, "SYS_RESOURCE") && has(Some(u64::MAX), "SYS_RESOURCE"));
        assert!(!has(Some(!(1 << 24)), "SYS_RESOURCE") && has(Some(!(1 << 24)), "SYS_ADMIN"));
        assert_eq!(bounding_set("CapEff:\t01\nCapBnd:\t000001fffeffffff\n"), Some(0x0000_01ff_feff_ffff));
    }
}
