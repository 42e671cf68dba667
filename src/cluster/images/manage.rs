//! Images that are there: listed, fetched, removed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::load::store_index;
use super::on_node::{ask_all, running};
use crate::docker::Docker;
use crate::node_image::archive;
use crate::{ClusterError, ClusterName, list};
use config::image_store::{DIR, LOADS, Load, full_name};
use rt::{Clock, Stop, SystemClock};

/// An image, and the nodes that have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeImage {
    pub name: String,
    pub id: String,
    pub size: u64,
    pub nodes: Vec<String>,
}

/// As a node tells it.
#[derive(Clone, Debug, Deserialize)]
struct Told {
    id: String,
    names: Vec<String>,
    size: u64,
}

/// The images on the running nodes of a cluster, by name.
pub async fn list_images(docker: &Docker, cluster: &ClusterName) -> Result<Vec<NodeImage>, ClusterError> {
    let nodes = running(docker, cluster.as_str()).await?;
    let answers: Vec<(String, Vec<Told>)> = ask_all(docker, &nodes.names, "the list", &["list"]).await?;
    let mut images: BTreeMap<(String, String), NodeImage> = BTreeMap::new();
    for (node, told) in answers {
        for image in told {
            for name in &image.names {
                let entry = images.entry((name.clone(), image.id.clone())).or_insert_with(|| NodeImage {
                    name: name.clone(),
                    id: image.id.clone(),
                    size: image.size,
                    nodes: Vec::new(),
                });
                entry.nodes.push(node.clone());
            }
        }
    }
    Ok(images.into_values().collect())
}

/// Has every running node fetch images from their registries; when `stop` is cancelled they leave it. Fails when one cannot.
pub async fn pull(
    docker: &Docker,
    cluster: &ClusterName,
    names: &[String],
    stop: &Stop,
) -> Result<Vec<String>, ClusterError> {
    let nodes = running(docker, cluster.as_str()).await?;
    for name in names {
        let words = ["pull", name.as_str()];
        let pulled = ask_all::<String>(docker, &nodes.names, name, &words);
        stop.run_until_cancelled(pulled).await.ok_or(ClusterError::Interrupted)??;
    }
    Ok(names.iter().map(|name| full_name(name)).collect())
}

/// Removes images from every running node, and from the store, so that no node takes them again. Returns those that
/// were anywhere.
pub async fn remove(
    docker: &Docker,
    cluster: &ClusterName,
    names: &[String],
) -> Result<Vec<String>, ClusterError> {
    let nodes = running(docker, cluster.as_str()).await?;
    let node = nodes.names.first().map(String::as_str).unwrap_or_default();
    let index = store_index(docker, node).await?;
    let mut removed = Vec::new();
    let mut in_store = Vec::new();
    for name in names.iter().map(|name| full_name(name)) {
        let answers: Vec<(String, bool)> = ask_all(docker, &nodes.names, &name, &["remove", &name]).await?;
        let stored = index.names.contains_key(&name);
        if stored {
            in_store.push(name.clone());
        }
        if stored || answers.iter().any(|(_, there)| *there) {
            removed.push(name);
        }
    }
    if !in_store.is_empty() {
        forget(docker, &nodes.image, in_store).await?;
    }
    Ok(removed)
}

/// Writes into the store that names no longer mean anything.
async fn forget(docker: &Docker, image: &str, names: Vec<String>) -> Result<(), ClusterError> {
    let time = i64::try_from(SystemClock.now().as_nanosecond()).unwrap_or(i64::MAX);
    let load = Load { time, removed: names, ..Load::default() };
    let text = serde_json::to_vec(&load).expect("a load is plain data");
    let path = std::path::PathBuf::from(LOADS).join(format!("{}.json", uuid::Uuid::new_v4()));
    let files = [(path.as_path(), text.as_slice(), 0o444)].into_iter();
    let tar = archive(files).map_err(|source| ClusterError::File { path: path.clone(), source })?;
    let container = docker.store_container(image, None).await?;
    let put = docker.put_archive(&container, DIR, tar).await;
    docker.remove_container(&container).await?;
    Ok(put?)
}

/// What was cleared away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// By node.
    pub images: BTreeMap<String, Vec<String>>,
    pub freed: u64,
}

/// Removes what no container of a cluster uses from its nodes; and from the store what no name needs, or everything if
/// `all` and there is no cluster any more.
pub async fn prune(docker: &Docker, cluster: &ClusterName, all: bool) -> Result<Pruned, ClusterError> {
    let clusters = list(docker).await?;
    if all && clusters.is_empty() {
        docker.remove_volume(config::image_store::VOLUME).await?;
        return Ok(Pruned::default());
    }
    let nodes = running(docker, cluster.as_str()).await?;
    let answers: Vec<(String, Vec<String>)> = ask_all(docker, &nodes.names, "the rest", &["prune"]).await?;
    let command = ["/usr/bin/minik", "node", "images", "compact"];
    let container = docker.store_container(&nodes.image, Some(&command)).await?;
    let work = async {
        let code = docker.run_to_end(&container).await?;
        let said = docker.last_lines(&container, 1).await?;
        Ok::<_, ClusterError>((code, said))
    };
    let done = work.await;
    docker.remove_container(&container).await?;
    match done? {
        (0, said) => {
            let freed = said.first().and_then(|line| line.trim().parse().ok()).unwrap_or_default();
            Ok(Pruned { images: answers.into_iter().collect(), freed })
        }
        (_, said) => {
            let failures = vec![("the store".to_owned(), said.join(" "))];
            Err(ClusterError::Load { image: "what is unused".to_owned(), failures })
        }
    }
}
