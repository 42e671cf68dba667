//! What a cluster should be: its name, its nodes, its host ports. Checked when it is made, and stored once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::numbers::{self, FURTHER_SERVERS, MAX_SERVERS};
use super::ports::PortMapping;
use super::settings::{Addresses, Registries};
use super::size::{Cpus, Memory};
use api::validate::{label_value, qualified_name};
use config::{Arguments, Brought, Datastore, Feature, Role};

/// Why a specification was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpecError {
    #[error(
        "invalid cluster name {0:?}: it must start and end with a lower-case letter or digit and contain only those and '-'"
    )]
    NameCharacters(String),
    #[error("invalid cluster name {name:?}: {length} characters, at most {max} are allowed", max = ClusterName::MAX)]
    NameLength { name: String, length: usize },
    #[error("a cluster has 1 to {max} nodes, not {0}", max = ClusterSpec::MAX_NODES)]
    Nodes(u32),
    #[error(
        "{servers} servers among {nodes} nodes: 1 to {max} are possible, and no more than there are nodes",
        max = MAX_SERVERS
    )]
    Servers { servers: u32, nodes: u32 },
    #[error(
        "the cluster was made for one server, which keeps the state: let it have several first (minik cluster edit --servers 3)"
    )]
    Single,
    #[error("{0}")]
    Port(String),
    #[error("{0}")]
    Size(String),
    #[error("{0}")]
    Mount(String),
    #[error("host port {port}/{protocol} is asked for twice")]
    PortTwice { port: u16, protocol: &'static str },
    #[error("{0}")]
    Node(String),
    #[error("{0}")]
    Address(String),
    #[error("{0}")]
    Registry(String),
}

/// A cluster's name: a DNS label, short enough that node names made of it are DNS labels too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(String);

impl ClusterName {
    /// `minik-<name>-server-0` has to fit 63 characters, with room for a larger number.
    pub const MAX: usize = 40;
    /// The name used when none is given.
    pub const DEFAULT: &'static str = "default";

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = SpecError;

    fn from_str(name: &str) -> Result<Self, SpecError> {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(inner) || name.starts_with('-') || name.ends_with('-') {
            return Err(SpecError::NameCharacters(name.to_owned()));
        }
        if name.len() > Self::MAX {
            return Err(SpecError::NameLength { name: name.to_owned(), length: name.len() });
        }
        Ok(Self(name.to_owned()))
    }
}

impl TryFrom<String> for ClusterName {
    type Error = SpecError;

    fn try_from(name: String) -> Result<Self, SpecError> {
        name.parse()
    }
}

impl From<ClusterName> for String {
    fn from(name: ClusterName) -> Self {
        name.0
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was asked for, checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    pub name: ClusterName,
    /// By number, ascending.
    pub nodes: Vec<NodeSpec>,
    /// Made for several servers: they share an etcd, which they run themselves unless `datastore` names one, and a container of
    /// its own carries the API's port of the host to whichever of them answers. It stays so when servers are taken away.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub several: bool,
    /// A node image to use as it is, instead of the one this binary makes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// The host's address and port of the API; chosen when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_address: Option<Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_port: Option<u16>,
    /// Host ports that lead into the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortMapping>,
    /// Parts of the network that are not minik's.
    #[serde(default, skip_serializing_if = "Brought::is_nothing")]
    pub brought: Brought,
    #[serde(default, skip_serializing_if = "Addresses::is_default")]
    pub addresses: Addresses,
    /// Names of hosts outside, for Pods and nodes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub host_aliases: BTreeMap<String, Ipv4Addr>,
    #[serde(default, skip_serializing_if = "Registries::is_empty")]
    pub registries: Registries,
    /// What was asked of the cluster's components.
    #[serde(default, skip_serializing_if = "Arguments::is_default")]
    pub arguments: Arguments,
    /// What is left out of the cluster.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub disabled: BTreeSet<Feature>,
    /// Further names and addresses that the API server's certificate vouches for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls_sans: Vec<String>,
    /// The etcd of somebody else's that keeps the cluster's state, instead of the server's own store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datastore: Option<Datastore>,
}

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSpec {
    /// Role, address and name follow from it ([`super::numbers`]), so it never changes.
    pub number: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<Cpus>,
    /// Kubernetes labels the node registers with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `KEY=VALUE:EFFECT`, as kubectl writes taints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
    /// `KEY=VALUE`, for the node's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Folders of the host in the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<HostMount>,
}

/// `SOURCE:TARGET[:ro]`: a folder of the host in a node's container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostMount {
    pub source: String,
    pub target: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

impl FromStr for HostMount {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let wrong = |why: &str| SpecError::Mount(format!("invalid volume {text:?}: {why}"));
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, mode) = match parts.as_slice() {
            [source, target] => (source, target, "rw"),
            [source, target, mode] => (source, target, *mode),
            _ => return Err(wrong("SOURCE:TARGET[:ro] is expected")),
        };
        if !source.starts_with('/') {
            return Err(wrong("SOURCE must be an absolute path of the host"));
        }
        if !target.starts_with('/') || *target == "/" {
            return Err(wrong("TARGET must be an absolute path in the node"));
        }
        match mode {
            "ro" | "rw" => {}
            _ => return Err(wrong("after the second colon only ro or rw is possible")),
        }
        let (source, target) = ((*source).to_owned(), (*target).to_owned());
        Ok(Self { source, target, read_only: mode == "ro" })
    }
}

/// `KEY=VALUE` as a label of a node. Fails when Kubernetes would refuse it.
pub fn node_label(text: &str) -> Result<(String, String), SpecError> {
    let wrong = |why: &str| SpecError::Node(format!("invalid label {text:?}: {why}"));
    let (key, value) = text.split_once('=').ok_or_else(|| wrong("KEY=VALUE is expected"))?;
    if let Some(why) = qualified_name(key).into_iter().chain(label_value(value)).next() {
        return Err(wrong(&why));
    }
    if key.starts_with("node-role.kubernetes.io/") {
        return Err(wrong("a node may not say its role itself; label it with kubectl"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `KEY[=VALUE]:EFFECT` as a taint of a node. Fails when Kubernetes would refuse it.
pub fn taint(text: &str) -> Result<String, SpecError> {
    let wrong = |why: &str| SpecError::Node(format!("invalid taint {text:?}: {why}"));
    let (rest, effect) = text.rsplit_once(':').ok_or_else(|| wrong("KEY=VALUE:EFFECT is expected"))?;
    if !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect) {
        return Err(wrong("the effect is NoSchedule, PreferNoSchedule or NoExecute"));
    }
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    if let Some(why) = qualified_name(key).into_iter().chain(label_value(value)).next() {
        return Err(wrong(&why));
    }
    Ok(text.to_owned())
}

impl NodeSpec {
    pub fn numbered(number: u32) -> Self {
        Self { number, ..Self::default() }
    }

    pub fn role(&self) -> Role {
        numbers::role(self.number)
    }

    pub fn is_server(&self) -> bool {
        self.role() == Role::Server
    }
}

impl ClusterSpec {
    /// Nodes have fixed addresses in the first 126 of the cluster's network.
    pub const MAX_NODES: u32 = 100;

    /// A cluster of so many nodes, one of them a server, with nothing particular. Fails when the number is out of bounds.
    pub fn new(name: ClusterName, nodes: u32) -> Result<Self, SpecError> {
        Self::with_servers(name, nodes, 1)
    }

    /// The same, of which so many are servers. Fails when a number is out of bounds.
    pub fn with_servers(name: ClusterName, nodes: u32, servers: u32) -> Result<Self, SpecError> {
        if servers > 0 && (nodes == 0 || nodes > Self::MAX_NODES) {
            return Err(SpecError::Nodes(nodes));
        }
        if servers == 0 || servers > MAX_SERVERS || servers > nodes {
            return Err(SpecError::Servers { servers, nodes });
        }
        let numbers = (0..=nodes - servers).chain((1..servers).map(numbers::server));
        Ok(Self {
            name,
            nodes: numbers.map(NodeSpec::numbered).collect(),
            several: servers > 1,
            image: None,
            api_address: None,
            api_port: None,
            ports: Vec::new(),
            brought: Brought::default(),
            addresses: Addresses::default(),
            host_aliases: BTreeMap::new(),
            registries: Registries::default(),
            arguments: Arguments::default(),
            disabled: BTreeSet::new(),
            tls_sans: Vec::new(),
            datastore: None,
        })
    }

    /// Checks what no single value can say. Fails with the first contradiction.
    pub fn validate(&self) -> Result<(), SpecError> {
        let numbers: BTreeSet<u32> = self.nodes.iter().map(|node| node.number).collect();
        let count = u32::try_from(self.nodes.len()).unwrap_or(u32::MAX);
        if numbers.len() != self.nodes.len() || count == 0 || count > Self::MAX_NODES {
            return Err(SpecError::Nodes(count));
        }
        let servers = u32::try_from(self.servers().count()).unwrap_or(u32::MAX);
        let highest = FURTHER_SERVERS + MAX_SERVERS - 1;
        if !(1..=MAX_SERVERS).contains(&servers) || numbers.last().is_some_and(|last| *last >= highest) {
            return Err(SpecError::Servers { servers, nodes: count });
        }
        if !self.several && (servers > 1 || !numbers.contains(&numbers::FIRST_SERVER)) {
            return Err(SpecError::Single);
        }
        self.addresses.validate(self.nodes.len())?;
        self.registries.validate()?;
        if let Some(datastore) = &self.datastore {
            datastore.validate().map_err(SpecError::Address)?;
        }
        if let Some(name) = self.tls_sans.iter().find(|name| !is_host(name)) {
            return Err(SpecError::Address(format!("{name:?} is no name or address of a host")));
        }
        let mut taken = BTreeSet::new();
        for mapping in &self.ports {
            if let Some(node) = mapping.nodes().iter().find(|node| !numbers.contains(node)) {
                let node = numbers::short_name(*node);
                return Err(SpecError::Port(format!("port {mapping} leads to {node}, which is not there")));
            }
            if !taken.insert((mapping.host_ip, mapping.host_port, mapping.protocol)) {
                let protocol = mapping.protocol.as_str();
                return Err(SpecError::PortTwice { port: mapping.host_port, protocol });
            }
        }
        Ok(())
    }

    /// The numbers of `count` further nodes of a role: the lowest that are free. Fails when there are not so many.
    pub fn free_numbers(&self, role: Role, count: u32) -> Result<Vec<u32>, SpecError> {
        let taken: BTreeSet<u32> = self.nodes.iter().map(|node| node.number).collect();
        let wanted = usize::try_from(count).unwrap_or(usize::MAX);
        let all: Vec<u32> = match role {
            Role::Server => (0..MAX_SERVERS).map(numbers::server).collect(),
            Role::Agent => (1..Self::MAX_NODES).collect(),
        };
        let free: Vec<u32> = all.into_iter().filter(|n| !taken.contains(n)).take(wanted).collect();
        if free.len() < wanted {
            let more = |there: usize| u32::try_from(there).unwrap_or(u32::MAX).saturating_add(count);
            let nodes = more(self.nodes.len());
            return Err(match role {
                Role::Agent => SpecError::Nodes(nodes),
                Role::Server => SpecError::Servers { servers: more(self.servers().count()), nodes },
            });
        }
        Ok(free)
    }

    /// What `other` is, under this one's name, port and subnet, with the host ports that were asked for here: the other one's may be
    /// in use.
    pub(super) fn made_like(&self, other: &Self) -> Self {
        let mut spec = Self { name: self.name.clone(), ports: self.ports.clone(), ..other.clone() };
        (spec.api_address, spec.api_port) = (self.api_address, self.api_port);
        spec.addresses.subnet = self.addresses.subnet;
        spec
    }

    /// Lets the cluster have so many servers: further ones are added, those too many are the last. From then on it is one for
    /// several. Fails when there cannot be so many.
    pub fn set_servers(&mut self, servers: u32) -> Result<(), SpecError> {
        let numbers: Vec<u32> = self.servers().map(|server| server.number).collect();
        let now = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
        if servers == 0 {
            return Err(SpecError::Servers {
                servers,
                nodes: u32::try_from(self.nodes.len()).unwrap_or(u32::MAX),
            });
        }
        self.several |= servers > 1;
        match servers.checked_sub(now) {
            Some(more) => {
                self.nodes.extend(self.free_numbers(Role::Server, more)?.into_iter().map(NodeSpec::numbered));
                self.nodes.sort_by_key(|node| node.number);
            }
            None => {
                let stay = &numbers[..usize::try_from(servers).unwrap_or(usize::MAX)];
                self.nodes.retain(|node| !node.is_server() || stay.contains(&node.number));
            }
        }
        Ok(())
    }

    /// The servers, by number.
    pub fn servers(&self) -> impl Iterator<Item = &NodeSpec> {
        self.nodes.iter().filter(|node| node.is_server())
    }

    /// The number of the first server there is.
    pub fn first_server(&self) -> u32 {
        self.servers().next().map_or(numbers::FIRST_SERVER, |server| server.number)
    }

    /// Whether the servers run the etcd that keeps the state.
    pub fn runs_etcd(&self) -> bool {
        self.several && self.datastore.is_none()
    }

    /// How many addresses for nodes it takes: numbers are never given to others, so gaps count.
    pub fn addresses_taken(&self) -> u32 {
        let numbers = |further: bool| {
            let numbers = self.nodes.iter().map(|node| node.number);
            numbers.filter(|number| (*number >= FURTHER_SERVERS) == further).max()
        };
        let further = numbers(true).map_or(0, |number| number - FURTHER_SERVERS + 1);
        numbers(false).map_or(0, |number| number + 1) + further + u32::from(self.several)
    }
}

/// Whether a text may name a host: a DNS name, or an address.
fn is_host(text: &str) -> bool {
    let label = |part: &str| {
        let good = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        (1..=63).contains(&part.len()) && part.bytes().all(good)
    };
    text.parse::<std::net::IpAddr>().is_ok()
        || (text.len() <= 253 && text.strip_prefix("*.").unwrap_or(text).split('.').all(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_dns_labels() {
        for good in ["a", "default", "my-cluster", "0", "a-0", &"x".repeat(40)] {
            assert!(good.parse::<ClusterName>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "ä", "a b", "../x"] {
            assert!(matches!(bad.parse::<ClusterName>(), Err(SpecError::NameCharacters(_))), "{bad}");
        }
        assert!(matches!("x".repeat(41).parse::<ClusterName>(), Err(SpecError::NameLength { .. })));
    }

    #[test]
    fn a_cluster_has_at_least_one_node() {
        let name: ClusterName = "a".parse().expect("good name");
        assert_eq!(ClusterSpec::new(name.clone(), 0).err(), Some(SpecError::Nodes(0)));
        assert_eq!(ClusterSpec::new(name.clone(), 101).err(), Some(SpecError::Nodes(101)));
        assert!(ClusterSpec::new(name, 1).is_ok());
    }

    #[test]
    fn new_nodes_get_the_lowest_free_numbers() {
        let mut spec = ClusterSpec::new("a".parse().expect("good name"), 4).expect("good");
        spec.nodes.remove(2);
        assert_eq!(spec.free_numbers(Role::Agent, 2), Ok(vec![2, 4]));
        assert_eq!(spec.free_numbers(Role::Agent, 98), Err(SpecError::Nodes(101)));
        assert_eq!(spec.free_numbers(Role::Server, 2), Ok(vec![100, 101]));
        assert_eq!(spec.free_numbers(Role::Server, 7), Err(SpecError::Servers { servers: 8, nodes: 10 }));
    }

    #[test]
    fn servers_are_some_of_the_nodes() {
        let name: ClusterName = "a".parse().expect("good name");
        let of = |nodes, servers| ClusterSpec::with_servers(name.clone(), nodes, servers);
        let numbers = |nodes, servers| -> Vec<u32> {
            of(nodes, servers).expect("good").nodes.iter().map(|node| node.number).collect()
        };
        assert_eq!(numbers(5, 3), [0, 1, 2, 100, 101]);
        assert_eq!(numbers(3, 3), [0, 100, 101]);
        assert_eq!(numbers(2, 1), [0, 1]);
        for (nodes, servers) in [(3, 0), (2, 3), (9, 8)] {
            assert_eq!(of(nodes, servers), Err(SpecError::Servers { servers, nodes }));
        }
        let mut spec = of(5, 3).expect("good");
        assert!(spec.several && spec.runs_etcd() && spec.validate().is_ok());
        assert_eq!((spec.addresses_taken(), of(5, 1).expect("good").addresses_taken()), (6, 5));
        spec.nodes.retain(|node| node.number != 0);
        assert_eq!((spec.validate(), spec.first_server()), (Ok(()), 100));
        spec.several = false;
        assert_eq!(spec.validate(), Err(SpecError::Single));
    }

    #[test]
    fn servers_come_and_go() {
        let mut spec = ClusterSpec::new("a".parse().expect("good name"), 2).expect("good");
        let mut after = |servers| {
            let set = spec.set_servers(servers);
            let numbers: Vec<u32> = spec.nodes.iter().map(|node| node.number).collect();
            set.map(|()| (numbers, spec.several))
        };
        assert_eq!(after(1), Ok((vec![0, 1], false)));
        assert_eq!(after(3), Ok((vec![0, 1, 100, 101], true)));
        assert_eq!(after(2), Ok((vec![0, 1, 100], true)));
        assert_eq!(after(1), Ok((vec![0, 1], true)), "it stays one for several");
        for bad in [0, 8] {
            assert!(matches!(after(bad), Err(SpecError::Servers { .. })), "{bad}");
        }
    }

    #[test]
    fn contradictions_are_found() {
        let good = ClusterSpec::new("a".parse().expect("good name"), 2).expect("good");
        assert_eq!(good.validate(), Ok(()));
        let mut twice = good.clone();
        twice.nodes[1].number = 0;
        assert!(twice.validate().is_err());
        let mut ports = good.clone();
        ports.ports = vec!["8080:80".parse().expect("good"), "8080:81".parse().expect("good")];
        assert_eq!(ports.validate(), Err(SpecError::PortTwice { port: 8080, protocol: "tcp" }));
        ports.ports[1].protocol = super::super::ports::Protocol::Udp;
        assert_eq!(ports.validate(), Ok(()));
    }

    #[test]
    fn volumes_are_absolute_on_both_sides() {
        let mount: HostMount = "/src:/dst:ro".parse().expect("good");
        assert_eq!((mount.source.as_str(), mount.target.as_str(), mount.read_only), ("/src", "/dst", true));
        for bad in ["/a", "a:/b", "/a:b", "/a:/", "/a:/b:rx", "/a:/b:ro:z"] {
            assert!(bad.parse::<HostMount>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_stored_form_comes_back() {
        let mut spec = ClusterSpec::new("a".parse().expect("good name"), 2).expect("good");
        spec.nodes[1].memory = Some("2Gi".parse().expect("good"));
        spec.ports = vec!["127.0.0.1:8080:80/udp@agent:0".parse().expect("good")];
        let text = serde_json::to_string(&spec).expect("plain data");
        assert_eq!(serde_json::from_str::<ClusterSpec>(&text).expect("readable"), spec, "{text}");
    }
}
