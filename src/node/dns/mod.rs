//! Cluster DNS, answered on every node for its own Pods.
//!
//! Names of the cluster (the Kubernetes DNS specification, schema 1.1.0) come from the node's view of Services and
//! endpoints; all others are asked upstream, as the node itself would ask them.

mod custom;
mod handler;
mod metrics;
mod outside;
mod records;
mod upstream;
mod zone;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_server::Server;
use hickory_server::proto::ProtoError;
use ipnet::Ipv4Net;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;

pub use custom::{Custom, follow};
pub use metrics::Metrics;
pub use upstream::{Upstream, UpstreamError};
pub use zone::{Answer, Zone};

use crate::network::Feed;
use outside::Outside;
use rt::Tasks;

/// An idle TCP client is hung up on after this.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Answers that may wait for a slow TCP reader.
const TCP_BUFFER: usize = 32;

/// DNS could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("DNS cannot listen on {address}: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the cluster domain {domain:?} is no domain name: {source}")]
    Domain { domain: String, source: ProtoError },
}

/// What the server answers for.
#[derive(Clone, Debug)]
pub struct Options {
    pub cluster_domain: String,
    pub dns_ip: Ipv4Addr,
    /// Networks whose reverse names are the cluster's: Services and Pods.
    pub networks: Vec<Ipv4Net>,
}

/// Sockets that are bound, so that what comes before the first answer waits instead of being refused.
#[derive(Debug)]
pub struct Listeners {
    udp: UdpSocket,
    tcp: TcpListener,
}

impl Listeners {
    /// Binds both transports; port 0 takes a free one, the same for both.
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let listen = |source| Error::Listen { address, source };
        let tcp = TcpListener::bind(address).await.map_err(listen)?;
        let address = tcp.local_addr().map_err(listen)?;
        let udp = UdpSocket::bind(address).await.map_err(listen)?;
        Ok(Self { udp, tcp })
    }

    /// Where they listen.
    pub fn address(&self) -> Result<SocketAddr, Error> {
        let unspecified = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        self.tcp.local_addr().map_err(|source| Error::Listen { address: unspecified, source })
    }
}

/// Serves until `tasks` stops. `upstream` is asked for names outside the cluster where `custom` says nothing else. Fails
/// when the cluster's domain is no domain name. Answers the numbers that it counts.
pub fn run(
    listeners: Listeners,
    options: &Options,
    feed: Feed,
    upstream: Upstream,
    custom: watch::Receiver<Custom>,
    tasks: &Tasks,
) -> Result<Metrics, Error> {
    let zone = Zone::new(options)?;
    let (outside, metrics) = (Outside::follow(upstream, custom, tasks), Metrics::default());
    let mut server = Server::new(handler::Handler::new(zone, feed, outside, metrics.clone()));
    server.register_socket(listeners.udp);
    server.register_listener(listeners.tcp, TCP_IDLE, TCP_BUFFER);
    let stop = tasks.stop();
    tasks.spawn(async move {
        stop.cancelled().await;
        if let Err(error) = server.shutdown_gracefully().await {
            tracing::warn!(%error, "DNS server ended");
        }
    });
    Ok(metrics)
}
