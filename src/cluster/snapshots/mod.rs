//! Snapshots: what a cluster is at one moment, kept on a volume, and clusters put back to it or made from it.
//!
//! ```text
//! save:   nodes stand still --copy of their volumes--> minik-snapshot-NAME --> nodes go on; images into the shared store
//! reset:  nodes are killed, their volumes written over, the nodes started
//! fork:   a new cluster's volumes written before its nodes first start; names of nodes and the authority stay
//! ```
//!
//! The runtime's own volume is not copied: images come from the store that all clusters share, containers are made anew.

mod copy;
mod restore;

use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::diff::is_load_balancer;
use super::docker::{Container, Docker};
use super::inside;
use super::labels::{self, Labels};
use super::lock::lock;
use super::node_image;
use super::observe::observe;
use super::progress::{Phases, Progress};
use super::record::ClusterRecord;
use super::spec::ClusterName;
use super::{ClusterError, begin_fault, heal, images};
use config::{Fault, FaultKind};
pub use restore::{fork, reset};
use rt::Stop;

/// Nodes that stand still for a copy go on by themselves after so many seconds, should this program die.
const STILL: u32 = 300;
/// What is kept beside the volumes.
const ABOUT: &str = "about.json";

/// A snapshot, as lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SnapshotInfo {
    pub name: String,
    pub cluster: String,
    /// When it was made, as the engine says it.
    pub created: String,
}

/// What a snapshot says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct About {
    record: ClusterRecord,
    /// Full names of the images that were on nodes.
    images: Vec<String>,
}

fn volume_name(name: &ClusterName) -> String {
    format!("minik-snapshot-{name}")
}

fn volume_labels(name: &ClusterName, cluster: &str) -> Labels {
    [
        (labels::SNAPSHOT, name.as_str()),
        (labels::SNAPSHOT_OF, cluster),
        (labels::VERSION, labels::THIS_VERSION),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// All snapshots, by name.
pub async fn list_snapshots(docker: &Docker) -> Result<Vec<SnapshotInfo>, ClusterError> {
    let of = |(mut labels, created): (Labels, String)| {
        let (name, cluster) = (labels.remove(labels::SNAPSHOT)?, labels.remove(labels::SNAPSHOT_OF)?);
        Some(SnapshotInfo { name, cluster, created })
    };
    let volumes = docker.labelled_volumes(labels::SNAPSHOT).await?;
    let mut all: Vec<SnapshotInfo> = volumes.into_iter().filter_map(of).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

async fn find(docker: &Docker, name: &ClusterName) -> Result<SnapshotInfo, ClusterError> {
    let all = list_snapshots(docker).await?;
    let found = all.into_iter().find(|snapshot| snapshot.name == name.as_str());
    found.ok_or_else(|| ClusterError::NoSuchSnapshot(name.to_string()))
}

/// Removes a snapshot; returns whether it was there.
pub async fn delete_snapshot(docker: &Docker, name: &ClusterName) -> Result<bool, ClusterError> {
    match find(docker, name).await {
        Err(ClusterError::NoSuchSnapshot(_)) => Ok(false),
        found => {
            found?;
            docker.remove_volume(&volume_name(name)).await?;
            Ok(true)
        }
    }
}

/// Keeps what a cluster is at this moment. Its nodes stand still meanwhile, which takes as long as the copy; they need not
/// run. Fails when the name is taken, and leaves nothing then.
pub async fn save(
    docker: &Docker,
    cluster: &ClusterName,
    name: &ClusterName,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<SnapshotInfo, ClusterError> {
    let _lock = lock(cluster)?;
    if find(docker, name).await.is_ok() {
        return Err(ClusterError::SnapshotExists(name.to_string()));
    }
    let observed = observe(docker, cluster).await?;
    let record = ClusterRecord::read(docker, cluster.as_str(), &observed.containers).await?;
    let phases = Phases::new(progress);
    let nodes: Vec<&Container> = observed.containers.iter().filter(|node| !is_load_balancer(node)).collect();
    let running: Vec<&Container> = nodes.iter().copied().filter(|node| node.running).collect();
    let images = match running.is_empty() {
        true => Vec::new(),
        false => {
            let kept = images::keep(docker, cluster, &phases);
            phases.run("images into the store", kept).await?
        }
    };
    let about = About { record, images };
    let copied = phases.run(
        "copying",
        still(docker, &running, async {
            let labels = volume_labels(name, cluster.as_str());
            let copying = copy::save(docker, &about, name, &labels);
            stop.run_until_cancelled(copying).await.unwrap_or(Err(ClusterError::Interrupted))
        }),
    );
    if let Err(error) = copied.await {
        node_image::remove_unfinished(docker, true, 0).await;
        docker.remove_volume(&volume_name(name)).await?;
        return Err(error);
    }
    find(docker, name).await
}

/// Does something while nodes stand still; they go on whatever comes of it.
async fn still<T>(
    docker: &Docker,
    nodes: &[&Container],
    work: impl Future<Output = Result<T, ClusterError>>,
) -> Result<T, ClusterError> {
    // One that is broken on purpose already stays so.
    let paused = async |node: &&Container| {
        let faults = inside::ask::<Vec<Fault>>(docker, &node.name, &["fault", "list"]).await;
        faults.unwrap_or_default().iter().any(|fault| fault.kind == FaultKind::Pause)
    };
    let mut stopped = Vec::new();
    for (node, already) in nodes.iter().zip(join_all(nodes.iter().map(paused)).await) {
        if !already {
            stopped.push(*node);
        }
    }
    let begun =
        join_all(stopped.iter().map(|node| begin_fault(docker, node, &FaultKind::Pause, STILL))).await;
    let begun: Result<Vec<_>, _> = begun.into_iter().collect();
    let result = match begun {
        Ok(_) => work.await,
        Err(error) => Err(error),
    };
    for healed in join_all(stopped.iter().map(|node| heal(docker, node))).await {
        healed?;
    }
    result
}
