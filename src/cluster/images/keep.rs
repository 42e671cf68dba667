//! Sees to it that everything on a cluster's nodes is in the store that all clusters share: what nodes pulled themselves is
//! not.

use std::collections::BTreeMap;

use futures::StreamExt;

use super::load::{bring, store_index};
use super::manage::list_images;
use super::on_node::running;
use crate::docker::Docker;
use crate::progress::Phases;
use crate::{ClusterError, ClusterName};

/// Takes into the store what it does not have; returns the full names of all images. What a node cannot give is said, and
/// left to be pulled again. Fails when the nodes or the store cannot be asked.
pub(crate) async fn keep(
    docker: &Docker,
    cluster: &ClusterName,
    phases: &Phases<'_>,
) -> Result<Vec<String>, ClusterError> {
    let nodes = running(docker, cluster.as_str()).await?;
    let first = nodes.names.first().map(String::as_str).unwrap_or_default();
    let (index, listed) = futures::try_join!(store_index(docker, first), list_images(docker, cluster))?;
    let mut on_node: BTreeMap<String, String> = BTreeMap::new();
    for image in listed {
        // One without a tag is reached by nobody but the containers that have it; the node image has the sandbox's.
        let own = image.name.contains('@') || image.name.starts_with("registry.k8s.io/pause:");
        if let Some(node) = image.nodes.first().filter(|_| !own) {
            on_node.insert(image.name, node.clone());
        }
    }
    for (name, node) in &on_node {
        if index.names.get(name).is_some_and(|image| index.is_complete(image)) {
            continue;
        }
        phases.detail(&format!("taking {name} from {node}"));
        let command = ["ctr", "--namespace", "k8s.io", "images", "export", "-", name];
        let archive = docker.exec_stream(node, &command).await?.boxed();
        if let Err(error) = bring(docker, &nodes, archive, None).await {
            phases.warn(&format!("{name} is not kept, and will be pulled again: {error}"));
        }
    }
    Ok(on_node.into_keys().collect())
}
