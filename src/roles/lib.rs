//! What runs inside a container: the composition roots, one file per role.
//!
//! ```text
//! prepare the container -> build -> spawn -> (SIGTERM) -> drain
//! ```

mod agent;
pub mod etcd;
mod lb;
pub mod leading;
pub mod network;
mod registry;
mod server;
mod state;

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use config::{BuildInfo, NodeConfig, Role};
use node::faults::Faults;
use node::kubelet::Kubelet;
use rt::Tasks;
use sys::{cgroups, identity, memory, mounts};

pub use lb::run as run_lb;
pub use registry::run as run_registry;

/// A node's interface on the cluster's network.
const INTERFACE: &str = "eth0";

/// Docker kills thirty seconds after the stop signal (the cluster's containers say so): Pods get most of that, then
/// the role's own tasks get the rest.
const DRAIN_PODS: Duration = Duration::from_secs(20);
const DRAIN: Duration = Duration::from_secs(6);
/// What the control plane stands on goes last.
const DRAIN_BELOW: Duration = Duration::from_secs(3);

/// Runs the role this node has, until the process is told to stop.
pub async fn run(config: NodeConfig, build: BuildInfo) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let faults = Faults::of_this_node();
    tokio::select! {
        alive = faults.wait_while_dead() => alive.context("waiting while dead on purpose")?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    }
    let (tasks, below) = (Tasks::new(), Tasks::new());
    memory::keep_slim(&tasks);
    tracing::info!(node = config.node, "the node starts");
    let started = async {
        prepare(&config)?;
        let runtime = agent::boot(&tasks);
        let control_plane = match config.role {
            Role::Server => Some(server::run(&config, build, &tasks, &below).await?),
            Role::Agent => None,
        };
        let rest = async {
            let kubelet = agent::run(&config, runtime, &tasks).await?;
            if let Some(control_plane) = &control_plane {
                control_plane.mark(&config.node).await.context("labelling the control plane's node")?;
            }
            anyhow::Ok(kubelet)
        };
        let kubelet = tokio::select! {
            kubelet = rest => kubelet?,
            error = failed(control_plane.as_ref()) => return Err(error),
        };
        anyhow::Ok((kubelet, control_plane))
    };
    let result = tokio::select! {
        result = started => match result {
            Ok((kubelet, control_plane)) => {
                tokio::select! {
                    _ = terminate.recv() => stop_pods(kubelet, control_plane.as_ref()).await,
                    _ = interrupt.recv() => stop_pods(kubelet, control_plane.as_ref()).await,
                    error = failed(control_plane.as_ref()) => Err(error),
                }
            }
            Err(error) => Err(error),
        },
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    for (tasks, bound) in [(tasks, DRAIN), (below, DRAIN_BELOW)] {
        if let Err(error) = tasks.drain(bound).await {
            tracing::warn!(%error, "not everything ended in time");
        }
    }
    result
}

/// While everything else still serves: their status is to be stored, their traffic turned away.
async fn stop_pods(kubelet: Kubelet, control_plane: Option<&server::ControlPlane>) -> anyhow::Result<()> {
    if let Some(control_plane) = control_plane {
        control_plane.leave();
    }
    kubelet.shutdown(DRAIN_PODS).await;
    Ok(())
}

/// Resolves when this node's control plane must not go on. The process ends then and says why, and is started again: it
/// carries on once there is room for the state.
async fn failed(control_plane: Option<&server::ControlPlane>) -> anyhow::Error {
    match control_plane {
        Some(control_plane) => control_plane.failed().await,
        None => std::future::pending().await,
    }
}

/// Makes the container fit for running containers in it.
fn prepare(config: &NodeConfig) -> anyhow::Result<()> {
    mounts::prepare().context("preparing mounts")?;
    cgroups::prepare().context("preparing cgroups")?;
    identity::ensure_machine_id(&config.node, Path::new(NodeConfig::STATE_DIR))
        .context("writing /etc/machine-id")?;
    Ok(())
}
