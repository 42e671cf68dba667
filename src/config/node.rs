//! What a node is told when its container is made.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

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
    /// Bootstrap token, `<6 characters>.<16 characters>`, as kubeadm writes them.
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
}

impl NodeSettings {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl NodeConfig {
    /// The environment variable that carries the configuration.
    pub const ENV: &'static str = "MINIK_NODE";
    /// Where a node keeps what must survive a restart; a volume.
    pub const STATE_DIR: &'static str = "/var/lib/minik";
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
    fn fields_of_another_version_are_passed_over() {
        let text = r#"{"cluster":"c","node":"n","role":"agent","nodeIp":"10.0.0.2","serverIp":"10.0.0.1","serverPort":6443,
            "token":"t","caHash":"h","podCidr":"10.42.0.0/16","serviceCidr":"10.43.0.0/16","dnsIp":"10.43.0.10",
            "clusterDomain":"cluster.local","lbFirst":"10.0.1.1","lbLast":"10.0.1.2","apiSans":[],"ofTomorrow":{"a":1}}"#;
        let config: NodeConfig = serde_json::from_str(text).expect("readable");
        assert_eq!(config.settings, NodeSettings::default());
        assert!(!serde_json::to_string(&config).expect("plain data").contains("settings"));
    }
}
