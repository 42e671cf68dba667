//! What a node is told when its container is made.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::{Arguments, Datastore};

/// What a node container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The control plane, and the agent beside it.
    Server,
    /// The agent alone.
    Agent,
}

/// Everything a node knows before it has spoken to anybody. It travels as JSON in the environment variable
/// [`NodeConfig::ENV`] of the container, so it survives restarts without a file of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    pub cluster: String,
    /// Node name, container name and host name at once.
    pub node: String,
    pub role: Role,
    /// This node's address on the cluster's Docker network; fixed for the node's life.
    pub node_ip: Ipv4Addr,
    /// Where the API server is.
    pub server_ip: Ipv4Addr,
    pub server_port: u16,
    /// The join token that the cluster was made with. Nodes that come later are handed one of their own, in the file
    /// [`NodeConfig::JOIN_TOKEN`].
    pub token: String,
    /// `sha256:<hex>` of the cluster authority's public key (SubjectPublicKeyInfo), as kubeadm pins it.
    pub ca_hash: String,
    /// All Pod addresses; every node gets a /24 of it.
    pub pod_cidr: Ipv4Net,
    pub service_cidr: Ipv4Net,
    /// ClusterIP of the service `kube-dns`.
    pub dns_ip: Ipv4Addr,
    pub cluster_domain: String,
    /// Addresses for LoadBalancer Services: first and last, inside the Docker subnet, outside Docker's own range.
    pub lb_first: Ipv4Addr,
    pub lb_last: Ipv4Addr,
    /// Names and addresses, beside the node's own, under which clients reach the API server.
    pub api_sans: Vec<String>,
    /// What a person asked of this node alone.
    #[serde(default, skip_serializing_if = "NodeSettings::is_empty")]
    pub settings: NodeSettings,
}

/// What a cluster may be without.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Feature {
    /// The Ingress proxy: Ingresses wait for a controller of somebody else's.
    Ingress,
    /// Services of type LoadBalancer wait for somebody else's addresses.
    LoadBalancer,
    /// Policies are left to somebody else's network.
    NetworkPolicy,
}

impl Feature {
    pub const ALL: [Self; 3] = [Self::Ingress, Self::LoadBalancer, Self::NetworkPolicy];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::LoadBalancer => "loadBalancer",
            Self::NetworkPolicy => "networkPolicy",
        }
    }
}

impl std::str::FromStr for Feature {
    type Err = String;

    /// Dashes and capitals do not count: `network-policy` is `networkPolicy`.
    fn from_str(text: &str) -> Result<Self, String> {
        let plain = |text: &str| text.replace('-', "").to_ascii_lowercase();
        if plain(text).starts_with("metrics") {
            return Err(
                "metrics cannot be left out: nothing is measured until somebody asks, and nothing runs for it".to_owned()
            );
        }
        Self::ALL.into_iter().find(|feature| plain(feature.name()) == plain(text)).ok_or_else(|| {
            let known: Vec<&str> = Self::ALL.iter().map(|feature| feature.name()).collect();
            format!("{text:?} cannot be left out: {} can", known.join(", "))
        })
    }
}

/// What a person asked of one node. Everything may be absent: a node made by another version of minik reads what it
/// knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSettings {
    /// Labels the node registers with.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// `KEY=VALUE:EFFECT`: taints the node registers with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub taints: Vec<String>,
    /// What `host.minik.internal` means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "Brought::is_nothing")]
    pub brought: Brought,
    /// Names of hosts outside.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub host_aliases: BTreeMap<String, Ipv4Addr>,
    /// What the cluster is without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disabled: Vec<Feature>,
    #[serde(skip_serializing_if = "Arguments::is_default")]
    pub arguments: Arguments,
    /// For a server: where somebody else keeps the cluster's state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datastore: Option<Datastore>,
    /// For a server: it runs a member of the etcd that keeps the cluster's state. The members are the cluster's servers.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub etcd: bool,
}

/// Parts of the network that somebody else brings: the node leaves them alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Brought {
    /// The Pods' network: its plugin, the routes to other nodes' Pods, and network policies.
    pub cni: bool,
    /// The rules of Services.
    pub proxy: bool,
}

impl Brought {
    /// Everything is minik's own.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl NodeSettings {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the cluster has it.
    pub fn has(&self, feature: Feature) -> bool {
        !self.disabled.contains(&feature)
    }
}

impl NodeConfig {
    /// The environment variable that carries the configuration.
    pub const ENV: &'static str = "MINIK_NODE";
    /// Where a node keeps what must survive a restart; a volume.
    pub const STATE_DIR: &'static str = "/var/lib/minik";
    /// A join token of this node's own: put here before an added node first starts, gone once it has joined.
    pub const JOIN_TOKEN: &'static str = "/var/lib/minik/join-token";
    /// Put here before a server of a new cluster first starts, gone once its etcd runs: it is one of those that form the etcd,
    /// and need not ask to be let in.
    pub const ETCD_FOUNDER: &'static str = "/var/lib/minik/etcd-founder";
    /// Where a server looks for an audit policy (`audit.k8s.io/v1`) when it starts: a volume of the person's own brings it.
    pub const AUDIT_POLICY: &'static str = "/etc/minik/audit-policy.yaml";
    /// Where what the policy wants is written, one event a line.
    pub const AUDIT_LOG: &'static str = "/var/log/minik/audit.log";
    /// Namespace and name of the ConfigMap by which people add to the cluster's names: every node's DNS reads it.
    pub const DNS_CONFIG_MAP: (&'static str, &'static str) = ("kube-system", "minik-dns");
    /// The cluster authority and the administrator's identity: put here before the server node first starts.
    pub const PKI_DIR: &'static str = "/var/lib/minik/pki";

    /// A node as the command line makes one: the first agent of the cluster `dev`. What tests start from.
    pub fn example() -> Self {
        let network = |a: u8, b: u8| Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), 16);
        Self {
            cluster: "dev".into(),
            node: "dev-agent-0".into(),
            role: Role::Agent,
            node_ip: Ipv4Addr::new(172, 20, 0, 3),
            server_ip: Ipv4Addr::new(172, 20, 0, 2),
            server_port: 6443,
            token: "abcdef.0123456789abcdef".into(),
            ca_hash: String::new(),
            pod_cidr: network(10, 42),
            service_cidr: network(10, 43),
            dns_ip: Ipv4Addr::new(10, 43, 0, 10),
            cluster_domain: "cluster.local".into(),
            lb_first: Ipv4Addr::new(172, 20, 1, 1),
            lb_last: Ipv4Addr::new(172, 20, 1, 9),
            api_sans: Vec::new(),
            settings: Default::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node image of an earlier version runs under a later command line: what it does not know is no reason to fail.
    #[test]
    fn features_are_written_in_several_ways() {
        assert_eq!("network-policy".parse(), Ok(Feature::NetworkPolicy));
        assert_eq!("networkPolicy".parse(), Ok(Feature::NetworkPolicy));
        assert!("dns".parse::<Feature>().expect_err("needed").contains("ingress"));
        for feature in Feature::ALL {
            assert_eq!(serde_json::to_value(feature).expect("plain data"), feature.name());
        }
    }

    #[test]
    fn fields_of_another_version_are_passed_over() {
        let text = r#"{"cluster":"c","node":"n","role":"agent","nodeIp":"10.0.0.2","serverIp":"10.0.0.1","serverPort":6443,
            "token":"t","caHash":"h","podCidr":"10.42.0.0/16","serviceCidr":"10.43.0.0/16","dnsIp":"10.43.0.10",
            "clusterDomain":"cluster.local","lbFirst":"10.0.1.1","lbLast":"10.0.1.2","apiSans":[],"ofTomorrow":{"a":1}}"#;
        let config: NodeConfig = serde_json::from_str(text).expect("readable");
        assert_eq!(config.settings, NodeSettings::default());
        assert!(!serde_json::to_string(&config).expect("plain data").contains("settings"));
    }
}
