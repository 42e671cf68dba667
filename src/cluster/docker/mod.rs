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
mod tunnel;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

pub use containers::{Container, Death, WorkMount};
pub use engine::EngineInfo;
pub use error::DockerError;
pub use exec::ExecOutput;
pub use images::BuildRequest;
use tunnel::Tunnel;

/// How long the engine may be busy with what it is sent, packages through a slow proxy or a large archive, or with files it removes.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Between two questions whether an engine is back.
const AGAIN: Duration = Duration::from_millis(250);

/// A connection to a Docker Engine. Cheap to clone.
#[derive(Clone)]
pub struct Docker {
    api: bollard::Docker,
    endpoint: String,
    /// What leads to an engine on another machine, for as long as this is held.
    _tunnel: Option<Arc<Tunnel>>,
}

/// How long an engine may take to answer, in seconds.
const TIMEOUT: u64 = 120;

impl Docker {
    /// Connects as `docker` would (`DOCKER_HOST`, then the current context, then the local socket; over TLS or ssh where
    /// they say so) and agrees on a version of the API.
    pub async fn connect() -> Result<Self, DockerError> {
        let endpoint::Endpoint { host, certificates } = endpoint::find(|name| std::env::var(name).ok())?;
        let fail = |error| DockerError::from_connect(&host, error);
        endpoint::check_socket(&host)?;
        let (api, tunnel) = match certificates {
            _ if host.starts_with("ssh://") => {
                let tunnel = Tunnel::open(&host).await?;
                let socket = format!("unix://{}", tunnel.socket().display());
                (bollard::Docker::connect_with_host(&socket).map_err(fail)?, Some(Arc::new(tunnel)))
            }
            Some(dir) if !host.starts_with("unix://") => {
                let [key, cert, ca] = ["key.pem", "cert.pem", "ca.pem"].map(|name| dir.join(name));
                let version = bollard::API_DEFAULT_VERSION;
                let api = bollard::Docker::connect_with_ssl(&host, &key, &cert, &ca, TIMEOUT, version);
                (api.map_err(fail)?, None)
            }
            _ => (bollard::Docker::connect_with_host(&host).map_err(fail)?, None),
        };
        let api = api.negotiate_version().await.map_err(fail)?;
        Ok(Self { api, endpoint: host, _tunnel: tunnel })
    }

    /// A client for requests that are answered only once all that is sent has come, as slowly as somebody makes it, or all the
    /// files of something are gone from a slow disk.
    fn patient(&self) -> bollard::Docker {
        self.api.clone().with_timeout(PATIENCE)
    }

    /// Waits until the engine answers again, at most `bound`: it tells nobody when it does. Returns whether it answers.
    pub async fn is_back(&self, bound: Duration) -> bool {
        let answers = async {
            while self.api.ping().await.is_err() {
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::time::timeout(bound, answers).await.is_ok()
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
