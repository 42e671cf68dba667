//! The edge to the Docker Engine: the only place that names its client library.
//!
//! [`Docker`] offers what the steps of a cluster need, in this crate's own types; errors say what a person can do.

mod containers;
mod endpoint;
mod engine;
mod error;
mod exec;
mod images;
mod networks;

use std::net::Ipv4Addr;

pub use containers::{Container, Death};
pub use engine::EngineInfo;
pub use error::DockerError;
pub use exec::ExecOutput;
pub use images::BuildRequest;

/// A connection to a Docker Engine. Cheap to clone.
#[derive(Clone)]
pub struct Docker {
    api: bollard::Docker,
    endpoint: String,
}

impl Docker {
    /// Connects as `docker` would (`DOCKER_HOST`, then the current context, then the local socket) and agrees on a
    /// version of the API.
    pub async fn connect() -> Result<Self, DockerError> {
        let endpoint = endpoint::find(|name| std::env::var(name).ok())?;
        let fail = |error| DockerError::from_connect(&endpoint, error);
        endpoint::check_socket(&endpoint)?;
        let api = bollard::Docker::connect_with_host(&endpoint).map_err(fail)?;
        let api = api.negotiate_version().await.map_err(fail)?;
        Ok(Self { api, endpoint })
    }

    /// The engine's version.
    pub async fn engine_version(&self) -> Result<String, DockerError> {
        Ok(self.api.version().await?.version.unwrap_or_default())
    }

    /// Whether the engine runs on this machine, reached by its socket.
    pub fn is_local(&self) -> bool {
        self.endpoint.starts_with("unix://")
    }

    /// Where published ports of containers are: the address to bind on the engine's machine, and the host name to use.
    pub fn publish_at(&self) -> (Ipv4Addr, String) {
        match endpoint::remote_host(&self.endpoint) {
            None => (Ipv4Addr::LOCALHOST, Ipv4Addr::LOCALHOST.to_string()),
            Some(host) => (Ipv4Addr::UNSPECIFIED, host),
        }
    }
}
