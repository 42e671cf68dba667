//! What is asked of the program inside a node, about its images.

use futures::future::join_all;
use serde::de::DeserializeOwned;

use crate::docker::Docker;
use crate::{ClusterError, find, inside};

/// Asks one node about its images.
pub(super) async fn ask<T: DeserializeOwned>(
    docker: &Docker,
    node: &str,
    words: &[&str],
) -> Result<T, String> {
    inside::ask(docker, node, &[&["images"], words].concat()).await
}

/// A cluster's running nodes, and the image they are made from.
pub(super) struct Nodes {
    pub(super) names: Vec<String>,
    pub(super) image: String,
}

/// Fails when the cluster does not exist, or none of its nodes runs.
pub(super) async fn running(docker: &Docker, cluster: &str) -> Result<Nodes, ClusterError> {
    let summary = find(docker, cluster).await?;
    let image = summary.nodes.first().map(|node| node.image.clone()).unwrap_or_default();
    let names: Vec<String> = summary.nodes.into_iter().filter(|n| n.running).map(|n| n.name).collect();
    match names.is_empty() {
        true => Err(ClusterError::NotRunning(cluster.to_owned())),
        false => Ok(Nodes { names, image }),
    }
}

/// Asks all nodes at once; returns each with its name. Fails with those that failed.
pub(super) async fn ask_all<T: DeserializeOwned>(
    docker: &Docker,
    nodes: &[String],
    what: &str,
    words: &[&str],
) -> Result<Vec<(String, T)>, ClusterError> {
    let answers = join_all(nodes.iter().map(|node| ask::<T>(docker, node, words))).await;
    let mut good = Vec::new();
    let mut failures = Vec::new();
    for (node, answer) in nodes.iter().zip(answers) {
        match answer {
            Ok(answer) => good.push((node.clone(), answer)),
            Err(why) => failures.push((node.clone(), why)),
        }
    }
    match failures.is_empty() {
        true => Ok(good),
        false => Err(ClusterError::Load { image: what.to_owned(), failures }),
    }
}
