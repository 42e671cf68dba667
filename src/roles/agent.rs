//! The agent: runtime, network and kubelet of one node.

use std::sync::Arc;

use anyhow::Context;
use tokio::net::TcpListener;

use super::network;
use crate::config::NodeConfig;
use crate::edge::{ingress, loadbalancer};
use crate::node::cri::containerd::{self, ContainerdOptions};
use crate::node::images::Images;
use crate::node::kubelet::{self, Kubelet, KubeletOptions, identity};
use crate::node::network::{Feed, ServiceKey};
use crate::rt::Tasks;

/// The interface on the cluster's network.
const INTERFACE: &str = "eth0";
/// The kubelet's port, on every node of every cluster.
const KUBELET_PORT: u16 = 10250;

/// Starts everything a node runs for Pods; returns when the node is registered.
pub async fn run(config: &NodeConfig, tasks: &Tasks) -> anyhow::Result<Kubelet> {
    let listener =
        TcpListener::bind(("0.0.0.0", KUBELET_PORT)).await.context("binding the kubelet's port")?;
    // The runtime boots while the node joins: neither needs the other.
    let runtime = async {
        let runtime = containerd::supervise(ContainerdOptions::default(), tasks)
            .await
            .context("starting containerd")?;
        // Before the first Pod can ask for one. A store that cannot be read is no reason to be no node.
        match Images::of_this_node().take_all().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "images taken from the store"),
            Err(error) => tracing::warn!(%error, "the store of images cannot be used"),
        }
        anyhow::Ok(runtime)
    };
    let joined = async { identity::join(config, tasks).await.context("joining the cluster") };
    let ((runtime, runtime_up), identity) = tokio::try_join!(runtime, joined)?;
    let options = network::Options { client: identity.client(), config: config.clone() };
    let network = network::run(options, tasks).await.context("starting the node's network")?;
    loadbalancer::run(
        loadbalancer::Options {
            interface: INTERFACE.to_owned(),
            range: config.lb_first..=config.lb_last,
            announced: network.announced.clone(),
        },
        network.netlink.clone(),
        tasks,
    );
    ingress::run(
        ingress::Options {
            client: identity.client(),
            address: network.ingress.clone(),
            resolve: endpoints(network.feed.clone()),
        },
        tasks,
    );
    let options = KubeletOptions {
        config: config.clone(),
        identity,
        runtime,
        runtime_up,
        services: network.feed,
        policies: network.policies,
        network_proven: network.proven,
        listener,
    };
    kubelet::run(options, tasks).await.context("starting the kubelet")
}

/// What Ingresses find behind a Service's port.
fn endpoints(feed: Feed) -> ingress::Resolve {
    Arc::new(move |backend| {
        let key = ServiceKey::new(&backend.namespace, &backend.service);
        feed.read().serving(&key, |port| match &backend.port {
            ingress::PortRef::Number(number) => port.port == *number,
            ingress::PortRef::Name(name) => port.name == *name,
        })
    })
}
