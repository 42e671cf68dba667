//! Names and labels: the only place where a cluster's state is kept is Docker, and these say what belongs to what.

use std::collections::BTreeMap;

use super::spec::ClusterName;

/// On everything that belongs to a cluster: its name.
pub const CLUSTER: &str = "dev.minik.cluster";
/// On containers: `server` or `agent`.
pub const ROLE: &str = "dev.minik.role";
/// On containers: the node's name.
pub const NODE: &str = "dev.minik.node";
/// On everything: the version of minik that made it.
pub const VERSION: &str = "dev.minik.version";
/// On the server's container: the URL of the API as the host reaches it.
pub const API: &str = "dev.minik.api";
/// On containers: how many nodes the cluster was made with.
pub const NODES: &str = "dev.minik.nodes";
/// On images: `base` or `node`.
pub const IMAGE: &str = "dev.minik.image";

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
    match index {
        0 => format!("minik-{cluster}-server-0"),
        n => format!("minik-{cluster}-agent-{}", n - 1),
    }
}
