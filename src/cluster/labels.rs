//! Names and labels: the only place where a cluster's state is kept is Docker, and these say what belongs to what.

use std::collections::BTreeMap;

use super::numbers;
use super::ports::PortMapping;
use super::spec::ClusterName;

/// On everything that belongs to a cluster: its name.
pub const CLUSTER: &str = "dev.minik.cluster";
/// On containers: `server` or `agent`.
pub const ROLE: &str = "dev.minik.role";
/// On containers: the node's name.
pub const NODE: &str = "dev.minik.node";
/// On everything: the version of minik that made it.
pub const VERSION: &str = "dev.minik.version";
/// On servers' containers: the URL of the API as the host reaches it.
pub const API: &str = "dev.minik.api";
/// On containers: a hash of everything the container was made from.
pub const REVISION: &str = "dev.minik.revision";
/// On load balancers: the host port they carry.
pub const PORT: &str = "dev.minik.port";
/// On clusters of `minik run`: when they may be removed, in seconds since 1970.
pub const EXPIRES: &str = "dev.minik.expires";
/// On registries: the name.
pub const REGISTRY: &str = "dev.minik.registry";
/// On snapshots: the name, and the cluster each is of.
pub const SNAPSHOT: &str = "dev.minik.snapshot";
pub const SNAPSHOT_OF: &str = "dev.minik.snapshot-of";
/// On images: `base` or `node`.
pub const IMAGE: &str = "dev.minik.image";

/// Ends the name of a container that gives way to a new one, for as long as that is not known to run.
pub const BEFORE: &str = "-before";

/// On the volume of images that all clusters share.
pub const STORE: &str = "dev.minik.store";
/// On containers in which an image is made: the process that makes it.
pub const RUN: &str = "dev.minik.run";

/// The version of this binary.
pub const THIS_VERSION: &str = env!("CARGO_PKG_VERSION");

pub type Labels = BTreeMap<String, String>;

/// The labels that everything of a cluster carries.
pub fn of(cluster: &ClusterName) -> Labels {
    [(CLUSTER, cluster.as_str()), (VERSION, THIS_VERSION)]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into_iter()
        .collect()
}

/// The labels of the volume of images that all clusters share.
pub fn store() -> Labels {
    [(STORE.to_owned(), "images".to_owned())].into()
}

/// The cluster's Docker network.
pub fn network(cluster: &ClusterName) -> String {
    format!("minik-{cluster}")
}

/// The context, cluster and user entry in a kubeconfig.
pub fn context(cluster: &str) -> String {
    format!("minik-{cluster}")
}

/// Node name, container name and host name.
pub fn node(cluster: &ClusterName, index: u32) -> String {
    format!("minik-{cluster}-{}", numbers::short_name(index))
}

/// The container that carries the API's host port to the servers.
pub fn api_load_balancer(cluster: &ClusterName) -> String {
    format!("minik-{cluster}-lb-api")
}

/// The container that carries a host port.
pub fn load_balancer(cluster: &ClusterName, mapping: &PortMapping) -> String {
    format!("minik-{cluster}-lb-{}-{}", mapping.host_port, mapping.protocol.as_str())
}
