//! What a load balancer's container is told when it is made.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// One host port that is carried into the cluster. It travels as JSON in the environment variable [`LbConfig::ENV`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LbConfig {
    pub cluster: String,
    /// The port to listen on, and to lead to.
    pub port: u16,
    #[serde(default)]
    pub udp: bool,
    /// Lead to the cluster's servers, which may change while this runs.
    #[serde(default)]
    pub servers: bool,
    /// The nodes to lead to; none: the Services of type LoadBalancer that have this port.
    #[serde(default)]
    pub nodes: Vec<Ipv4Addr>,
    /// URL of the API inside the cluster's network.
    pub server: String,
}

impl LbConfig {
    /// The environment variable that carries the configuration.
    pub const ENV: &'static str = "MINIK_LB";
    /// Where the identity lies with which Services are read: `ca.crt`, `lb.crt`, `lb.key`.
    pub const IDENTITY_DIR: &'static str = "/etc/minik";
    /// The user that reads Services.
    pub const USER: &'static str = "system:minik:lb";
}
