//! What is known about a cluster beyond its containers: the specification, and what was drawn or found when it was made.
//! One file on each server's volume; written before the server first starts, replaced when the cluster is changed.

use std::net::Ipv4Addr;
use std::path::Path;

use bytes::Bytes;
use futures::future::join_all;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use super::ClusterError;
use super::docker::{Container, Docker, DockerError};
use super::files::Carried;
use super::identity::{member, servers};
use super::node_image::archive;
use super::proxy_env::ProxyEnv;
use super::settings::Addresses;
use super::spec::{ClusterName, ClusterSpec};
use super::subnet::Subnet;
use config::NodeConfig;

/// File name in the state folder of the server.
const FILE: &str = "cluster.json";

/// The version of the record's form; a later form is refused, not guessed at.
const VERSION: u32 = 1;

/// Everything the plan depends on besides the specification: drawn by lot or found on the machine, once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drawn {
    pub image: String,
    pub subnet: Subnet,
    /// The cluster that this one was made from: its nodes have the names they had there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named_after: Option<ClusterName>,
    /// The network of somebody else that the cluster's addresses are a part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub around: Option<Around>,
    /// MTU of Docker's own bridge, where it says one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<String>,
    /// Address and port of the host under which the API is published, and the host's name in its URL.
    pub api_bind: Ipv4Addr,
    pub api_host: String,
    pub api_port: u16,
    pub token: String,
    pub ca_hash: String,
    #[serde(default)]
    pub proxy: ProxyEnv,
    /// What the nodes' containers may do, of what this machine has.
    pub capabilities: Vec<String>,
    /// Whether SELinux confines containers: the nodes' are taken out of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub selinux: bool,
    /// Whether the engine maps users: nodes run in the host's user namespace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_users: bool,
}

impl Drawn {
    /// URL of the API as the host reaches it.
    pub fn api_url(&self) -> String {
        format!("https://{}:{}", self.api_host, self.api_port)
    }

    /// All addresses that are inside the cluster.
    pub fn inside(&self, addresses: &Addresses) -> [Ipv4Net; 3] {
        let network = self.around.as_ref().map_or(self.subnet.net(), |around| around.net);
        [network, addresses.pods(), addresses.services()]
    }

    /// The host's address in the cluster's network.
    pub fn gateway(&self) -> Ipv4Addr {
        let around = self.around.as_ref().and_then(|around| around.gateway);
        around.unwrap_or_else(|| self.subnet.gateway())
    }
}

/// A network of somebody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Around {
    pub net: Ipv4Net,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
}

/// The stored form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterRecord {
    version: u32,
    pub spec: ClusterSpec,
    pub drawn: Drawn,
    #[serde(default)]
    pub carried: Carried,
}

impl ClusterRecord {
    pub fn new(spec: ClusterSpec, drawn: Drawn) -> Self {
        Self { version: VERSION, spec, drawn, carried: Carried::default() }
    }

    /// The cluster whose name its nodes' names begin with.
    pub(super) fn nodes_named_after(&self) -> &ClusterName {
        self.drawn.named_after.as_ref().unwrap_or(&self.spec.name)
    }

    /// Path and content, for the archive that goes to the server's volume.
    pub(super) fn file(&self) -> (std::path::PathBuf, String) {
        let state = Path::new(NodeConfig::STATE_DIR);
        let text = serde_json::to_string_pretty(self).expect("a record is plain data");
        (state.strip_prefix("/").unwrap_or(state).join(FILE), text)
    }

    /// Replaces the stored record on the servers there are. Fails when there is none.
    pub(super) async fn store(&self, docker: &Docker) -> Result<(), ClusterError> {
        let (path, text) = self.file();
        let files = [(path.as_path(), text.as_bytes(), 0o600)].into_iter();
        let tar: Bytes =
            archive(files).map_err(|source| ClusterError::File { path: path.clone(), source })?;
        let containers = docker.containers(Some(self.spec.name.as_str())).await?;
        let servers = servers(&containers);
        if servers.is_empty() {
            return Err(ClusterError::NoServer(self.spec.name.to_string()));
        }
        let put = servers.iter().map(|server| docker.put_archive(&server.id, "/", tar.clone()));
        Ok(join_all(put).await.into_iter().collect::<Result<(), _>>()?)
    }

    /// Reads a cluster's record from a server's volume; the server need not run. Fails when there is no server, or none that
    /// has a record.
    pub async fn read(
        docker: &Docker,
        cluster: &str,
        containers: &[Container],
    ) -> Result<Self, ClusterError> {
        if containers.is_empty() {
            return Err(ClusterError::NoSuchCluster(cluster.to_owned()));
        }
        let servers = servers(containers);
        if servers.is_empty() {
            return Err(ClusterError::NoServer(cluster.to_owned()));
        }
        let path = format!("{}/{FILE}", NodeConfig::STATE_DIR);
        for server in servers {
            let tar = match docker.get_archive(&server.id, &path).await {
                Ok(tar) => tar,
                Err(DockerError::NotFound(_)) => continue,
                Err(other) => return Err(other.into()),
            };
            if let Some(text) = member(&tar, FILE) {
                return Self::parse(cluster, &text);
            }
        }
        Err(ClusterError::NoRecord(cluster.to_owned()))
    }

    fn parse(cluster: &str, text: &str) -> Result<Self, ClusterError> {
        let unreadable = |why: String| ClusterError::BadRecord { cluster: cluster.to_owned(), why };
        let value: serde_json::Value =
            serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))?;
        if value["version"] != VERSION {
            return Err(unreadable(format!(
                "it has version {}, this minik knows {VERSION}",
                value["version"]
            )));
        }
        serde_json::from_value(value).map_err(|error| unreadable(error.to_string()))
    }
}

#[cfg(test)]
pub(super) use tests::drawn as test_drawn;

#[cfg(test)]
mod tests {
    use super::*;

    pub(in super::super) fn drawn() -> Drawn {
        Drawn {
            image: "minik/node:test".into(),
            subnet: Subnet::choose(&[], 0).expect("a block"),
            around: None,
            named_after: None,
            mtu: None,
            api_bind: Ipv4Addr::LOCALHOST,
            api_host: "127.0.0.1".into(),
            api_port: 40123,
            token: "abcdef.0123456789abcdef".into(),
            ca_hash: "sha256:00".into(),
            proxy: ProxyEnv::default(),
            capabilities: super::super::plan::capabilities(None),
            selinux: false,
            host_users: false,
        }
    }

    #[test]
    fn a_record_comes_back_and_a_later_one_is_refused() {
        let spec = ClusterSpec::new("t".parse().expect("good name"), 2).expect("good");
        let record = ClusterRecord::new(spec, drawn());
        let (path, text) = record.file();
        assert_eq!(path, Path::new("var/lib/minik/cluster.json"));
        assert_eq!(ClusterRecord::parse("t", &text).expect("readable"), record);
        let later = text.replace("\"version\": 1", "\"version\": 2");
        let error = ClusterRecord::parse("t", &later).expect_err("unknown").to_string();
        assert!(error.contains("version 2"), "{error}");
    }
}
