//! The control plane: storage, API server, controllers and scheduler in one process.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::net::TcpListener;

use super::leading::Leading;
use super::{INTERFACE, state};
use apiserver::{self, bootstrap, serve};
use apiserver::{ApiServer, UserInfo};
use client::election::Terms;
use client::typed::CONTROL_PLANE;
use config::{BuildInfo, Feature, NodeConfig, Servers};
use pki::ServerPki;
use rt::{Clock, SystemClock, Tasks};
use storage::Store;
use sys::netlink::{self, Netlink};

/// Starts the control plane; returns when the API is served and the first objects are stored. What it stands on runs in tasks of
/// its own, `below`, which stop after everything else.
pub async fn run(
    config: &NodeConfig,
    build: BuildInfo,
    tasks: &Tasks,
    below: &Tasks,
) -> anyhow::Result<ControlPlane> {
    // First of all: whoever comes while the rest starts waits in the queue, and need not come again.
    let listener =
        TcpListener::bind(("0.0.0.0", config.server_port)).await.context("binding the API's port")?;
    announce(config, tasks).await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let pki = ServerPki::prepare(Path::new(NodeConfig::PKI_DIR), &config.cluster, &names(config)?)?;
    let engine = state::engine(config, below).await.context("taking up the state")?;
    let store = storage::open(storage::Config { engine, clock: clock.clone(), ..storage::Config::default() })
        .await
        .context("opening the store")?;
    let tls = serve::tls(&pki.serving, pki.authority.certificate_pem())?;
    let server = apiserver::start(store.clone(), clock.clone(), &pki, config, build, tasks).await?;
    serve::serve(listener, server.router(), tls, tasks);
    tracing::info!("the API is served");

    let arguments = &config.settings.arguments;
    let settings = controllers::Settings {
        pod_cidr: config.pod_cidr,
        lb_first: config.lb_first,
        lb_last: config.lb_last,
        authority: Arc::new(pki.authority),
        node_monitor_grace: arguments
            .node_monitor_grace()
            .unwrap_or(controllers::Settings::NODE_MONITOR_GRACE),
        terminated_pod_threshold: arguments
            .terminated_pods
            .and_then(|pods| usize::try_from(pods).ok())
            .unwrap_or(controllers::Settings::TERMINATED_POD_THRESHOLD),
        without: without(config),
        clock,
    };
    let leading = if store.alone() {
        Leading::alone(&server, settings, tasks)
    } else {
        Leading::elected(&server, settings, &config.node, Terms::UPSTREAM, tasks)
    };
    let admin = server.client(UserInfo::new("kubernetes-admin", &["system:masters", "system:authenticated"]));
    Ok(ControlPlane { store, admin, server, leading })
}

/// Tells the cluster's network who has this server's address. Nodes start at once, and one that asked for the address while
/// nobody had it would ask again only a second later (`net.ipv4.neigh.*.retrans_time_ms`).
async fn announce(config: &NodeConfig, tasks: &Tasks) {
    let told = async {
        let link = Netlink::open(tasks)?.link(INTERFACE).await?;
        netlink::announce(&link, config.node_ip)
    };
    if let Err(error) = told.await {
        tracing::info!(%error, "nodes that were there first may join late");
    }
}

/// The controllers of what the cluster is without.
fn without(config: &NodeConfig) -> Vec<&'static str> {
    let of = [(Feature::Ingress, "ingress-controller"), (Feature::LoadBalancer, "service-controller")];
    of.into_iter().filter(|(feature, _)| !config.settings.has(*feature)).map(|(_, name)| name).collect()
}

/// A control plane that runs.
pub struct ControlPlane {
    store: Arc<dyn Store>,
    /// Acts as the administrator.
    admin: Client,
    server: ApiServer,
    leading: Leading,
}

impl ControlPlane {
    /// Resolves, with the reason, when the control plane must not go on: the store can take no more writes, because a disk is
    /// full or broken, or something runs that another server may run by now. Only starting again helps then.
    pub async fn failed(&self) -> anyhow::Error {
        tokio::select! {
            reason = self.store.failed() => anyhow::anyhow!(
                "the cluster's state cannot be written any more: {reason}; is the disk full?"
            ),
            error = self.leading.overstayed() => error,
        }
    }

    /// Says from now on that the API is not ready for more; it is served until the tasks stop.
    pub fn leave(&self) {
        self.server.leave();
    }

    /// Says which node runs the control plane. The node itself may not: it could claim anything.
    pub async fn mark(&self, node: &str) -> anyhow::Result<()> {
        let patch = json!({ "metadata": { "labels": { CONTROL_PLANE: "" } } });
        let nodes: Api<Node> = Api::all(self.admin.clone());
        nodes.patch_metadata(node, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }
}

/// Names and addresses under which clients reach the servers; all of them, as any server may answer.
fn names(config: &NodeConfig) -> anyhow::Result<Vec<String>> {
    let mut names = vec![config.node.clone(), config.server_ip.to_string(), config.node_ip.to_string()];
    names.extend(config.api_sans.iter().cloned());
    for server in Servers::read().with_context(|| format!("reading {}", Servers::FILE))?.0 {
        names.extend([server.node, server.ip.to_string()]);
    }
    names.push(bootstrap::api_cluster_ip(config).to_string());
    names.extend(
        ["localhost", "127.0.0.1", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
            .map(String::from),
    );
    names.push(format!("kubernetes.default.svc.{}", config.cluster_domain));
    Ok(names)
}
