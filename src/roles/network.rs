//! The node's network as one thing: one set of watches feeds service proxy, DNS, routes and load balancer addresses,
//! and the node is Ready only when a name and a Service have been reached through them.
//!
//! ```text
//! prepare (sysctls, DNS address) --> watch --both lists here--> rules applied --name + connection--> proven
//! ```

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use kube::Client;
use tokio::sync::watch;

use crate::client::typed::INGRESS_SERVICE;
use crate::config::NodeConfig;
use crate::node::network::{Feed, ServiceKey, announced, announced_address, feed};
use crate::node::policy::{self, Policies};
use crate::node::prove::prove;
use crate::node::{dns, proxy, routes};
use crate::rt::Tasks;
use crate::sys::exec::{ExecError, System};
use crate::sys::netlink::{self, Link, Netlink};

/// The interface that has the DNS address. Loopback rather than a dummy interface: the dummy module is missing on some
/// kernels, and every node has this one.
const DNS_INTERFACE: &str = "lo";
const DNS_PORT: u16 = 53;
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

/// What the node's network works with.
#[derive(Clone)]
pub struct Options {
    /// Speaks to the API as this node: it lists and watches Services, EndpointSlices and Nodes.
    pub client: Client,
    pub config: NodeConfig,
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
    /// The address that Ingresses are served at, while this node answers for it.
    pub ingress: watch::Receiver<Option<Ipv4Addr>>,
    /// Network policies, which a new Pod waits for.
    pub policies: Policies,
    /// For what else has to be set on this node's interfaces.
    pub netlink: Netlink,
}

/// Sets the node up for Pods' traffic and starts what keeps it so: DNS, Service rules, routes to peers. DNS listens when
/// this returns; its answers, and the rules, follow the first lists from the API.
pub async fn run(options: Options, tasks: &Tasks) -> Result<Handles, Error> {
    let Options { client, config } = options;
    routes::apply_settings();
    let netlink = Netlink::open(tasks)?;
    let lo: Link = netlink.link(DNS_INTERFACE).await?;
    netlink.add_address(&lo, config.dns_ip).await?;
    let address = SocketAddr::new(IpAddr::V4(config.dns_ip), DNS_PORT);
    let listeners = dns::Listeners::bind(address).await?;
    let backend = proxy::BackendKind::detect(Arc::new(System)).await?;
    tracing::info!(?backend, "service rules");

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
    let custom = dns::follow(client.clone(), names_of_the_host(), tasks);
    dns::run(listeners, &dns_options, feed.clone(), upstream, custom, tasks)?;
    routes::run(feed.clone(), config.node.clone(), netlink.clone(), tasks);
    let applied = proxy::run(
        proxy::Proxy {
            feed: feed.clone(),
            settings: settings(&config),
            backend: proxy::open(backend, Arc::new(System)),
        },
        tasks,
    );
    let announced = announced(feed.clone(), config.node.clone(), tasks);
    let policies = policy::run(
        policy::Options { client, node: config.node.clone(), dns_ip: config.dns_ip, exec: Arc::new(System) },
        tasks,
    );
    let (namespace, name) = INGRESS_SERVICE;
    let ingress =
        announced_address(feed.clone(), ServiceKey::new(namespace, name), config.node.clone(), tasks);
    let proven = follow_proof(&config, applied.clone(), tasks);
    Ok(Handles { feed, applied, proven, announced, ingress, policies, netlink })
}

/// The machine that the cluster runs on, as its nodes see it.
fn names_of_the_host() -> dns::Custom {
    let gateway = netlink::default_gateway();
    if gateway.is_none() {
        tracing::warn!("{HOST_NAME} will not resolve: the node has no default route");
    }
    dns::Custom {
        hosts: gateway.map(|ip| (HOST_NAME.to_owned(), vec![ip])).into_iter().collect(),
        ..dns::Custom::default()
    }
}

fn settings(config: &NodeConfig) -> proxy::Settings {
    proxy::Settings {
        node: config.node.clone(),
        node_ip: config.node_ip,
        pod_cidr: config.pod_cidr,
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
