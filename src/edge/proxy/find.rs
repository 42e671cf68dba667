//! Where a Service's port takes connections: endpoints, or a name outside that is looked up.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use tokio::sync::watch;

use super::rules::{Protocol, ServicePort};

/// What stands behind a Service's port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Those that take connections now.
    pub endpoints: Vec<SocketAddr>,
    /// The name and port that an ExternalName Service stands for.
    pub name: Option<(String, u16)>,
    /// What the port says of itself (`appProtocol`).
    pub protocol: Option<Protocol>,
}

impl Protocol {
    /// What an `appProtocol` means, where it means anything here.
    pub fn of_port(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "kubernetes.io/h2c" | "h2c" | "grpc" => Some(Self::Http2),
            "https" => Some(Self::Https),
            "grpcs" => Some(Self::Http2Tls),
            _ => None,
        }
    }
}

type Find = dyn Fn(&ServicePort) -> Option<Found> + Send + Sync;

/// What stands behind Services' ports.
#[derive(Clone)]
pub struct Services {
    find: Arc<Find>,
    changed: watch::Receiver<u64>,
}

impl Services {
    /// `find` returns None where there is no such port; `changed` moves on when it may find something else than before.
    pub fn new(
        find: impl Fn(&ServicePort) -> Option<Found> + Send + Sync + 'static,
        changed: watch::Receiver<u64>,
    ) -> Self {
        Self { find: Arc::new(find), changed }
    }

    pub(super) fn find(&self, port: &ServicePort) -> Option<Found> {
        (self.find)(port)
    }

    /// Moves on when something else may be found than now.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        let mut changes = self.changed.clone();
        changes.mark_unchanged();
        changes
    }
}

/// Looks up names as Pods do.
#[derive(Clone)]
pub struct Names(Option<TokioResolver>);

impl Names {
    /// Asks this server.
    pub fn of(server: IpAddr) -> Self {
        let config = ResolverConfig::from_name_servers(vec![NameServerConfig::udp_and_tcp(server)]);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().ndots = 0;
        builder.options_mut().use_hosts_file = ResolveHosts::Never;
        match builder.build() {
            Ok(resolver) => Self(Some(resolver)),
            Err(error) => {
                tracing::error!(%error, "names of ExternalName Services cannot be looked up");
                Self(None)
            }
        }
    }

    /// Asks nobody: only addresses are names.
    pub fn none() -> Self {
        Self(None)
    }

    pub(super) async fn addresses(&self, name: &str, port: u16) -> Vec<SocketAddr> {
        if let Ok(ip) = name.parse::<IpAddr>() {
            return vec![SocketAddr::new(ip, port)];
        }
        let Some(resolver) = &self.0 else { return Vec::new() };
        match resolver.lookup_ip(format!("{}.", name.trim_end_matches('.'))).await {
            // IPv4 before IPv6, which nodes seldom have.
            Ok(found) => {
                let mut all: Vec<_> = found.iter().map(|ip| SocketAddr::new(ip, port)).collect();
                all.sort_by_key(SocketAddr::is_ipv6);
                all
            }
            Err(error) => {
                tracing::debug!(name, %error, "the name of an ExternalName Service");
                Vec::new()
            }
        }
    }
}
