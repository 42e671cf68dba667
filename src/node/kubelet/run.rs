//! Starts the kubelet's parts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::context::Context;
use super::eviction;
use super::identity::Identity;
use super::node::{Reporter, Signals, keep_lease};
use super::objects::Objects;
use super::plugins::{self, Drivers};
use super::pods::Manager;
use super::pressure::{Limits, Pressure};
use super::probe::Answers;
use super::rotation;
use super::server::{self, Routes, ServerError};
use super::services::Services;
use super::statics::Mirrors;
use super::stats::Sampler;
use crate::cri::Runtime;
use crate::images::Arrival;
use crate::network::Feed;
use crate::policy::Policies;
use client::events::Recorder;
use config::NodeConfig;
use rt::{SystemClock, Tasks};
use sys::identity::Machine;
use sys::{cgroups, inotify};

/// Where Pods' folders and plugins' sockets are: drivers' manifests name this place. A volume.
const DIR: &str = "/var/lib/kubelet";

/// What a kubelet is made of.
pub struct KubeletOptions {
    pub config: NodeConfig,
    /// From [`super::identity::join`].
    pub identity: Identity,
    /// From [`crate::cri::containerd::supervise`]: the runtime, and whether it is up.
    pub runtime: Runtime,
    pub runtime_up: watch::Receiver<bool>,
    /// Images on their way here, which a Pod that needs one waits for.
    pub images: Arrival,
    /// The cluster's Services, for Pods' environment variables.
    pub services: Feed,
    /// Must hold for a Pod before its first container starts.
    pub policies: Policies,
    /// True once the node's network has been proven: without it the node is not Ready.
    pub network_proven: watch::Receiver<bool>,
    /// Port 10250 on all addresses.
    pub listener: TcpListener,
}

/// The kubelet cannot run on this machine.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Watch(#[from] inotify::WatchError),
    #[error("{path}: {source}")]
    Folder { path: PathBuf, source: std::io::Error },
}

/// Registers the node and runs its Pods until the tasks stop. Returns once the node is registered; it becomes Ready
/// by itself when runtime, Pods' network, the proof and the serving certificate are there.
///
/// Fails when the kernel's limits are used up, when its folder cannot be made, or when its server cannot be set up.
pub async fn run(options: KubeletOptions, tasks: &Tasks) -> Result<Kubelet, KubeletError> {
    inotify::check_limits()?;
    let KubeletOptions {
        config,
        identity,
        runtime,
        runtime_up,
        images,
        services,
        policies,
        network_proven,
        listener,
    } = options;
    let dir = PathBuf::from(DIR);
    let folder = |source| KubeletError::Folder { path: dir.clone(), source };
    std::fs::create_dir_all(dir.join("pods")).map_err(folder)?;
    let client = identity.client();
    let capacity = cgroups::capacity();
    let context = Arc::new(Context {
        events: Recorder::start(client.clone(), "kubelet", &config.node, Arc::new(SystemClock), tasks),
        objects: Objects::new(client.clone(), tasks.clone()),
        services: Services::new(services),
        policies,
        drivers: Drivers::new(&dir),
        mirrors: Mirrors::default(),
        probes: Answers::default(),
        tasks: tasks.clone(),
        limits: Limits::new(&config.settings.arguments),
        pressure: watch::Sender::new(Pressure::default()),
        node: watch::Sender::new(Arc::default()),
        runtime: runtime.clone(),
        images,
        resolv_conf: std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        cpu_milli: capacity.cpu_milli,
        memory: capacity.memory,
        dir: dir.clone(),
        client,
        config: config.clone(),
    });
    let (serving, server_up) = watch::channel(false);
    let signals = Signals { runtime: runtime_up, network: network_proven, server: server_up };
    let reporter = Reporter::register(context.clone(), Machine::read(), signals).await;
    tasks.spawn_until_stop(reporter.run());
    let known = context.node.subscribe();
    tasks.spawn_until_stop(keep_lease(context.client.clone(), config.node.clone(), known));

    let plugins = plugins::run(context.clone());
    tasks.spawn_until_stop(async move {
        if let Err(error) = plugins.await {
            tracing::error!(%error, "storage drivers cannot register");
        }
    });
    let manager = Manager::new(context.clone());
    manager.start();
    tasks.spawn_until_stop(rotation::run(runtime.clone()));
    let sampler = Sampler::new(runtime.clone(), &dir, tasks.clone());
    tasks.spawn_until_stop(eviction::run(context.clone(), manager.clone(), sampler.clone()));
    let routes = Routes {
        access: server::Access::new(context.client.clone(), &config.node),
        node: config.node.clone(),
        started: Timestamp::now(),
        sampler,
        manager: manager.clone(),
        runtime,
        tasks: tasks.clone(),
    };
    server::serve(listener, &identity, routes, tasks)?;
    let hosts = vec![config.node.clone(), config.node_ip.to_string()];
    let inner = tasks.clone();
    tasks.spawn_until_stop(async move {
        match identity.serve(&hosts, &inner).await {
            Ok(()) => drop(serving.send_replace(true)),
            Err(error) => tracing::error!(%error, "the kubelet has no serving certificate"),
        }
        // Kept open for the reporter.
        std::future::pending::<()>().await;
    });
    Ok(Kubelet { manager, node: context.node.subscribe() })
}

/// A kubelet that runs.
pub struct Kubelet {
    manager: Manager,
    /// This machine's Node as the API server last told it.
    node: watch::Receiver<Arc<Node>>,
}

impl Kubelet {
    /// Resolves when the API server knows the node as Ready, or when the kubelet is gone.
    pub fn ready(&self) -> impl Future<Output = ()> + use<> {
        let mut node = self.node.clone();
        async move {
            let _ = node.wait_for(|node| is_ready(node)).await;
        }
    }

    /// Ends this node's Pods before the node stops, hooks included, and says so in their status. At most `bound`.
    pub async fn shutdown(&self, bound: Duration) {
        self.manager.shutdown(bound).await;
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
