//! The agent: runtime, network and kubelet of one node.

use std::path::Path;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{INTERFACE, network};
use config::{Feature, NodeConfig};
use edge::proxy::{Found, Names, PortRef, Protocol, ServicePort, Services};
use edge::{self, loadbalancer};
use node::cni;
use node::cri::Runtime;
use node::cri::containerd::{self, ContainerdOptions};
use node::images::{Arrival, Images};
use node::kubelet::{self, Kubelet, KubeletOptions, identity};
use node::network::{Feed, Kind, Port, ServiceKey};
use rt::Tasks;

/// The kubelet's port, on every node of every cluster.
const KUBELET_PORT: u16 = 10250;

/// A runtime that is starting.
pub type Booting = JoinHandle<Option<anyhow::Result<(Runtime, watch::Receiver<bool>)>>>;

/// Starts the runtime. It needs nothing of the cluster, and so boots while everything else starts.
pub fn boot(tasks: &Tasks) -> Booting {
    let inner = tasks.clone();
    tasks.spawn_until_stop(async move {
        cni::install(Path::new(cni::BIN_DIR)).context("installing Pods' network plugin")?;
        let runtime = containerd::supervise(ContainerdOptions::default(), &inner)
            .await
            .context("starting containerd")?;
        tracing::info!("the runtime answers");
        Ok(runtime)
    })
}

/// Starts everything a node runs for Pods; returns when the node is registered.
pub async fn run(config: &NodeConfig, booting: Booting, tasks: &Tasks) -> anyhow::Result<Kubelet> {
    let listener =
        TcpListener::bind(("0.0.0.0", KUBELET_PORT)).await.context("binding the kubelet's port")?;
    let runtime = async { booting.await?.context("told to stop while containerd started")? };
    let connected = async {
        // What the machine itself must have for the network waits for nobody.
        let local = async { network::Local::prepare(config, tasks).await.context("preparing the network") };
        let joined = async { identity::join(config, tasks).await.context("joining the cluster") };
        let (local, identity) = tokio::try_join!(local, joined)?;
        let network = local.run(identity.client(), tasks).context("starting the node's network")?;
        anyhow::Ok((identity, network))
    };
    let ((runtime, runtime_up), (identity, network)) = tokio::try_join!(runtime, connected)?;
    if config.settings.has(Feature::LoadBalancer) {
        let options = loadbalancer::Options {
            interface: INTERFACE.to_owned(),
            range: config.lb_first..=config.lb_last,
            announced: network.announced.clone(),
        };
        loadbalancer::run(options, network.netlink.clone(), tasks);
    }
    edge::run(
        edge::Options {
            client: identity.client(),
            fronts: network.fronts.clone(),
            services: services(network.feed.clone()),
            names: Names::of(config.dns_ip.into()),
        },
        tasks,
    );
    let images = Arrival::expect(Images::of_this_node(), tasks);
    let options = KubeletOptions {
        config: config.clone(),
        images: images.clone(),
        identity,
        runtime,
        runtime_up,
        services: network.feed,
        policies: network.policies,
        network_proven: network.proven,
        listener,
    };
    let kubelet = kubelet::run(options, tasks).await.context("starting the kubelet")?;
    let ready = kubelet.ready();
    tasks.spawn_until_stop(async move {
        ready.await;
        images.begin();
    });
    Ok(kubelet)
}

/// What routes find behind a Service's port.
fn services(feed: Feed) -> Services {
    let changed = feed.services();
    let find = move |wanted: &ServicePort| {
        let key = ServiceKey::new(&wanted.namespace, &wanted.service);
        let view = feed.read();
        let is_it = |port: &Port| match &wanted.port {
            PortRef::Number(number) => port.port == *number,
            PortRef::Name(name) => port.name == *name,
        };
        let service = view.service(&key)?;
        let port = service.ports.iter().find(|port| is_it(port));
        let number = match (&wanted.port, port) {
            (_, Some(port)) => port.port,
            (PortRef::Number(number), None) => *number,
            (PortRef::Name(_), None) => return None,
        };
        let name = match &service.kind {
            Kind::ExternalName(name) => Some((name.clone(), number)),
            _ => None,
        };
        // A name outside is reached at any port, whatever the Service lists.
        port.map(|_| ()).or(name.as_ref().map(|_| ()))?;
        let protocol = port.and_then(|port| Protocol::of_port(port.app_protocol.as_deref()?));
        Some(Found { endpoints: view.serving(&key, is_it), name, protocol })
    };
    Services::new(find, changed)
}
