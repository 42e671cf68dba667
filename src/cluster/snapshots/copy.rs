//! Copies volumes, in a container that has them and does nothing else.

use super::{ABOUT, About, volume_name};
use crate::docker::{Docker, WorkMount};
use crate::labels::{self, Labels};
use crate::node_image::archive;
use crate::spec::{ClusterName, NodeSpec};
use crate::{ClusterError, identity};

/// Where the snapshot's volume is, in the container.
const SNAPSHOT: &str = "/snapshot";
/// What of a node is copied: the part of its volumes' names, as the plan has them.
const PARTS: [&str; 2] = ["state", "kubelet"];
/// Copies one folder's content into another, with owners, modes and times, and shared blocks where the file system can.
const COPY: &str = "cp --archive --reflink=auto";

/// A node's volumes in the container: `/nodes/NUMBER/PART`.
fn of_node(cluster: &ClusterName, node: &NodeSpec, read_only: bool) -> Vec<WorkMount> {
    let of = |part: &str| WorkMount {
        volume: format!("{}-{part}", labels::node(cluster, node.number)),
        target: format!("/nodes/{}/{part}", node.number),
        read_only,
        labels: labels::of(cluster),
    };
    PARTS.map(of).into()
}

fn snapshot_mount(name: &ClusterName, labels: &Labels, read_only: bool) -> WorkMount {
    let (volume, target) = (volume_name(name), SNAPSHOT.to_owned());
    WorkMount { volume, target, read_only, labels: labels.clone() }
}

/// Copies the nodes' volumes into a snapshot's.
pub(super) async fn save(
    docker: &Docker,
    about: &About,
    name: &ClusterName,
    volume_labels: &Labels,
) -> Result<(), ClusterError> {
    let spec = &about.record.spec;
    let mut mounts = vec![snapshot_mount(name, volume_labels, false)];
    mounts.extend(spec.nodes.iter().flat_map(|node| of_node(&spec.name, node, true)));
    let script = format!("set -e; {COPY} /nodes {SNAPSHOT}/nodes");
    let text = serde_json::to_vec(about).expect("plain data");
    let path = std::path::PathBuf::from(ABOUT);
    let tar = archive([(path.as_path(), text.as_slice(), 0o600)].into_iter())
        .map_err(|source| ClusterError::File { path: path.clone(), source })?;
    run(docker, &about.record.drawn.image, mounts, &script, Some(tar)).await
}

/// Writes a snapshot over the volumes of a cluster's nodes; those that are not there come into being.
pub(super) async fn restore(
    docker: &Docker,
    about: &About,
    name: &ClusterName,
    cluster: &ClusterName,
) -> Result<(), ClusterError> {
    let nodes = &about.record.spec.nodes;
    let mut mounts = vec![snapshot_mount(name, &Labels::new(), true)];
    mounts.extend(nodes.iter().flat_map(|node| of_node(cluster, node, false)));
    let each = nodes.iter().flat_map(|node| PARTS.map(|part| format!("{}/{part}", node.number)));
    let lines = each.map(|at| {
        format!("find /nodes/{at} -mindepth 1 -delete; {COPY} {SNAPSHOT}/nodes/{at}/. /nodes/{at}/")
    });
    let script = format!("set -e; {}", lines.collect::<Vec<_>>().join("; "));
    run(docker, &about.record.drawn.image, mounts, &script, None).await
}

/// What a snapshot says of itself. Its own node image need not be there: any will do to read it.
pub(super) async fn about(docker: &Docker, name: &ClusterName, image: &str) -> Result<About, ClusterError> {
    let mounts = [snapshot_mount(name, &Labels::new(), true)];
    let container = docker.work_container(image, &mounts, None).await?;
    let read = docker.get_archive(&container, &format!("{SNAPSHOT}/{ABOUT}")).await;
    docker.remove_container(&container).await?;
    let text = identity::member(&read?, ABOUT).unwrap_or_default();
    serde_json::from_str(&text)
        .map_err(|error| ClusterError::BadSnapshot { name: name.to_string(), why: error.to_string() })
}

async fn run(
    docker: &Docker,
    image: &str,
    mounts: Vec<WorkMount>,
    script: &str,
    first: Option<bytes::Bytes>,
) -> Result<(), ClusterError> {
    let container = docker.work_container(image, &mounts, Some(&["sh", "-c", script])).await?;
    let work = async {
        if let Some(tar) = first {
            docker.put_archive(&container, SNAPSHOT, tar).await?;
        }
        let code = docker.run_to_end(&container).await?;
        let said = docker.last_lines(&container, 3).await?;
        Ok::<_, ClusterError>((code, said))
    };
    let done = work.await;
    docker.remove_container(&container).await?;
    match done? {
        (0, _) => Ok(()),
        (_, said) => Err(ClusterError::Copy(said.join("; "))),
    }
}
