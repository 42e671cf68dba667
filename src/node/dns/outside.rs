//! Who is asked for a name outside the cluster: the hosts that people added, the servers of a stub domain, or the node's.

use std::net::Ipv4Addr;
use std::sync::{Arc, PoisonError, RwLock};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_server::proto::rr::{Name, RecordType};
use tokio::sync::watch;

use super::custom::Custom;
use super::upstream::{Reply, Upstream};
use rt::Tasks;

/// The present configuration, with its resolvers.
struct Configured {
    custom: Custom,
    upstream: Upstream,
    /// Longest domain first.
    stubs: Vec<(Name, Upstream)>,
}

/// Follows the configuration. Cloning shares it.
#[derive(Clone)]
pub(super) struct Outside(Arc<RwLock<Arc<Configured>>>);

impl Outside {
    /// Starts to follow `custom`; `upstream` is asked where it says nothing else.
    pub(super) fn follow(upstream: Upstream, mut custom: watch::Receiver<Custom>, tasks: &Tasks) -> Self {
        let first = configure(custom.borrow_and_update().clone(), &upstream);
        let outside = Self(Arc::new(RwLock::new(Arc::new(first))));
        let own = outside.clone();
        tasks.spawn_until_stop(async move {
            while custom.changed().await.is_ok() {
                let next = configure(custom.borrow_and_update().clone(), &upstream);
                *own.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
            }
        });
        outside
    }

    fn now(&self) -> Arc<Configured> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The addresses of a name that somebody has added.
    pub(super) fn host(&self, name: &Name) -> Option<Vec<Ipv4Addr>> {
        self.now().custom.host(name).map(<[Ipv4Addr]>::to_vec)
    }

    /// Whether questions are logged.
    pub(super) fn logs(&self) -> bool {
        self.now().custom.log
    }

    /// Asks whoever is responsible.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Reply {
        let now = self.now();
        let stub = now.stubs.iter().find(|(domain, _)| domain.zone_of(name)).map(|(_, upstream)| upstream);
        stub.unwrap_or(&now.upstream).ask(name, kind).await
    }
}

fn configure(custom: Custom, node: &Upstream) -> Configured {
    let resolver = |servers: &[std::net::SocketAddr]| {
        let servers = servers.iter().map(|server| {
            let transports = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut transport| {
                transport.port = server.port();
                transport
            });
            NameServerConfig::new(server.ip(), true, transports.into())
        });
        Upstream::servers(ResolverConfig::from_name_servers(servers.collect()))
            .map_err(|error| tracing::warn!(%error, "name servers cannot be used"))
            .unwrap_or_else(|()| Upstream::none())
    };
    let mut stubs: Vec<(Name, Upstream)> = custom
        .stubs
        .iter()
        .filter_map(|(domain, servers)| {
            let mut name = Name::from_ascii(domain).ok()?;
            name.set_fqdn(true);
            Some((name, resolver(servers)))
        })
        .collect();
    stubs.sort_by_key(|(domain, _)| std::cmp::Reverse(domain.num_labels()));
    let upstream = if custom.upstreams.is_empty() { node.clone() } else { resolver(&custom.upstreams) };
    Configured { custom, upstream, stubs }
}
