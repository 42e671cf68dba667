//! The node's network as one thing: one set of watches feeds service proxy, DNS, routes and load balancer addresses,
//! and the node is Ready only when a name and a Service have been reached through them.
//!
//! ```text
//! prepare (sysctls, DNS address) --> watch --both lists here--> rules applied --name + connection--> proven
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::watch;

use client::typed::Front;
use config::{Feature, NodeConfig};
use node::network::{Feed, announced, announced_fronts, feed};
use node::policy::{self, Policies};
use node::prove::prove;
use node::{cni, dns, proxy, routes};
use rt::Tasks;
use sys::exec::{ExecError, System};
use sys::netlink::{self, Link, Netlink};

/// The interface that has the DNS address. Loopback rather than a dummy interface: the dummy module is missing on some
/// kernels, and every node has this one.
const DNS_INTERFACE: &str = "lo";
const DNS_PORT: u16 = 53;
/// Where CoreDNS tells its metrics.
const DNS_METRICS_PORT: u16 = 9153;
/// The name of the machine that the cluster runs on.
const HOST_NAME: &str = "host.minik.internal";

/// The node's network could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Netlink(#[from] netlink::Error),
    #[error(transparent)]
    Dns(#[from] dns::Error),
    #[error(transparent)]
    PacketFilter(#[from] ExecError),
}

/// What others on the node take from its network.
#[derive(Clone)]
pub struct Handles {
    pub feed: Feed,
    /// The generation of the feed whose rules are in the kernel; 0 before the first.
    pub applied: watch::Receiver<u64>,
    /// True once a name and a Service have been reached from this node: a condition of Ready.
    pub proven: watch::Receiver<bool>,
    /// The LoadBalancer addresses that this node answers for; None until Services have been listed.
    pub announced: watch::Receiver<Option<BTreeSet<Ipv4Addr>>>,
    /// What is served at which address, while this node answers for it.
    pub fronts: watch::Receiver<BTreeMap<Ipv4Addr, Front>>,
    /// Network policies, which a new Pod waits for.
    pub policies: Policies,
    /// For what else has to be set on this node's interfaces.
    pub netlink: Netlink,
}

/// What this machine itself has for the network: ready before anybody knows the cluster.
pub struct Local {
    config: NodeConfig,
    netlink: Netlink,
    listeners: dns::Listeners,
    /// For the numbers that DNS counts.
    metrics: TcpListener,
    /// None where somebody else brings the rules.
    backend: Option<proxy::BackendKind>,
}

impl Local {
    /// Sets the node up for Pods' traffic: kernel settings, the DNS address and its listeners, the kind of rules that work
    /// here. Fails where the kernel or its tools cannot do it.
    pub async fn prepare(config: &NodeConfig, tasks: &Tasks) -> Result<Self, Error> {
        routes::apply_settings();
        let netlink = Netlink::open(tasks)?;
        let address = async {
            let lo: Link = netlink.link(DNS_INTERFACE).await?;
            netlink.add_address(&lo, config.dns_ip).await?;
            let address = SocketAddr::new(IpAddr::V4(config.dns_ip), DNS_PORT);
            let metrics = SocketAddr::new(address.ip(), DNS_METRICS_PORT);
            let listen = |source| dns::Error::Listen { address: metrics, source };
            let metrics = TcpListener::bind(metrics).await.map_err(listen)?;
            Ok::<_, Error>((dns::Listeners::bind(address).await?, metrics))
        };
        let brought = config.settings.brought;
        let backend = async {
            Ok(match brought.proxy {
                true => None,
                false => Some(proxy::BackendKind::detect(Arc::new(System)).await?),
            })
        };
        let ((listeners, metrics), backend) = tokio::try_join!(address, backend)?;
        if brought.cni {
            cni::unpack_plugins(&System).await?;
        }
        tracing::info!(?backend, "service rules");
        Ok(Self { config: config.clone(), netlink, listeners, metrics, backend })
    }

    /// Starts what keeps the network so: DNS, Service rules, routes to peers. `client` speaks to the API as this node: it
    /// lists and watches Services, EndpointSlices and Nodes. DNS' answers, and the rules, follow the first lists.
    pub fn run(self, client: Client, tasks: &Tasks) -> Result<Handles, Error> {
        let Local { config, netlink, listeners, metrics, backend } = self;
        let feed = feed(&client, tasks);
        let upstream = dns::Upstream::of_node(IpAddr::V4(config.dns_ip)).unwrap_or_else(|error| {
            tracing::warn!(%error, "names outside the cluster will not resolve");
            dns::Upstream::none()
        });
        let dns_options = dns::Options {
            cluster_domain: config.cluster_domain.clone(),
            dns_ip: config.dns_ip,
            networks: vec![config.service_cidr, config.pod_cidr],
        };
        let custom = dns::follow(client.clone(), names_outside(&config), tasks);
        let counted = dns::run(listeners, &dns_options, feed.clone(), upstream, custom, tasks)?;
        counted.serve(metrics, tasks);
        let brought = config.settings.brought;
        if !brought.cni {
            routes::run(feed.clone(), config.node.clone(), config.pod_cidr, netlink.clone(), tasks);
        }
        let applied = match backend {
            None => fixed(1, tasks),
            Some(kind) => {
                let backend = proxy::open(kind, Arc::new(System));
                let settings = settings(&config);
                let applied = proxy::run(proxy::Proxy { feed: feed.clone(), settings, backend }, tasks);
                proxy::serve_status(kind, &feed, applied.clone(), tasks);
                applied
            }
        };
        let announced = announced(feed.clone(), config.node.clone(), tasks);
        let enforcing = policy::Options {
            client,
            feed: feed.clone(),
            node: config.node.clone(),
            dns_ip: config.dns_ip,
            exec: Arc::new(System),
        };
        let enforced = !brought.cni && config.settings.has(Feature::NetworkPolicy);
        let policies = if enforced { policy::run(enforcing, tasks) } else { Policies::none() };
        let fronts = announced_fronts(feed.clone(), config.node.clone(), tasks);
        // Somebody else's proxy runs as a Pod, which needs a node that is Ready.
        let proven =
            if brought.proxy { fixed(true, tasks) } else { follow_proof(&config, applied.clone(), tasks) };
        Ok(Handles { feed, applied, proven, announced, fronts, policies, netlink })
    }
}

/// What never changes, for those who follow it.
fn fixed<T: Send + Sync + 'static>(value: T, tasks: &Tasks) -> watch::Receiver<T> {
    let (kept, seen) = watch::channel(value);
    tasks.spawn_until_stop(async move { kept.closed().await });
    seen
}

/// The machine that the cluster runs on, as its nodes see it, and the hosts that people named.
fn names_outside(config: &NodeConfig) -> dns::Custom {
    let gateway = config.settings.host_ip.or_else(netlink::default_gateway);
    if gateway.is_none() {
        tracing::warn!("{HOST_NAME} will not resolve: the node has no default route");
    }
    let aliases = config.settings.host_aliases.iter().map(|(name, ip)| (name.clone(), vec![*ip]));
    let own = gateway.map(|ip| (HOST_NAME.to_owned(), vec![ip]));
    dns::Custom { hosts: aliases.chain(own).collect(), ..dns::Custom::default() }
}

fn settings(config: &NodeConfig) -> proxy::Settings {
    proxy::Settings {
        node: config.node.clone(),
        node_ip: config.node_ip,
        pod_cidr: config.pod_cidr,
        service_cidr: Some(config.service_cidr),
        answered_here: BTreeSet::from([config.dns_ip]),
    }
}

fn follow_proof(
    config: &NodeConfig,
    mut applied: watch::Receiver<u64>,
    tasks: &Tasks,
) -> watch::Receiver<bool> {
    let (proven, seen) = watch::channel(false);
    let (dns_ip, domain) = (config.dns_ip, config.cluster_domain.clone());
    tasks.spawn_until_stop(async move {
        if applied.wait_for(|generation| *generation > 0).await.is_ok() {
            prove(dns_ip, &domain, applied).await;
            tracing::info!("network proven: a name and a Service have been reached");
            proven.send_replace(true);
        }
        // Kept open: what is proven stays so.
        std::future::pending::<()>().await;
    });
    seen
}
