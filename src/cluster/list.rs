//! Clusters and their nodes as lists show them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::diff::is_load_balancer;
use super::docker::{Container, Docker};
use super::{ClusterError, labels};

/// A cluster as `cluster list` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSummary {
    pub name: String,
    /// `Running`, `Stopped`, `Degraded` (some nodes run, or some are missing) or `Remains` (no node at all).
    pub status: &'static str,
    pub server: Option<String>,
    pub version: Option<String>,
    /// Seconds since 1970.
    pub created: i64,
    pub nodes: Vec<NodeSummary>,
    /// Host ports that lead into the cluster.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSummary {
    pub name: String,
    pub role: String,
    pub running: bool,
    pub image: String,
    /// What Docker says of the container: `running`, `paused`, `exited`, ...
    pub state: String,
}

impl ClusterSummary {
    pub fn running(&self) -> usize {
        self.nodes.iter().filter(|node| node.running).count()
    }
}

/// All clusters, by name; those of which only a network or a volume is left as well.
pub async fn list(docker: &Docker) -> Result<Vec<ClusterSummary>, ClusterError> {
    let (containers, networks, volumes) = futures::try_join!(
        docker.containers(None),
        docker.cluster_networks(None),
        docker.cluster_volumes(None),
    )?;
    Ok(summarise(containers, networks, volumes))
}

/// One cluster that has nodes. Fails when there is none of that name.
pub async fn find(docker: &Docker, name: &str) -> Result<ClusterSummary, ClusterError> {
    let (containers, volumes) =
        futures::try_join!(docker.containers(Some(name)), docker.cluster_volumes(Some(name)))?;
    match containers.is_empty() {
        true => Err(ClusterError::NoSuchCluster(name.to_owned())),
        false => summarise(containers, Vec::new(), volumes)
            .into_iter()
            .next()
            .ok_or_else(|| ClusterError::NoSuchCluster(name.to_owned())),
    }
}

/// What there is of one cluster.
#[derive(Default)]
struct Parts {
    containers: Vec<Container>,
    volumes: Vec<String>,
}

/// Networks and volumes come as name or id, and the cluster they belong to.
fn summarise(
    containers: Vec<Container>,
    networks: Vec<(String, String)>,
    volumes: Vec<(String, String)>,
) -> Vec<ClusterSummary> {
    let mut clusters: BTreeMap<String, Parts> = BTreeMap::new();
    for (_, cluster) in networks {
        clusters.entry(cluster).or_default();
    }
    for (name, cluster) in volumes {
        clusters.entry(cluster).or_default().volumes.push(name);
    }
    for container in containers {
        clusters.entry(container.cluster().to_owned()).or_default().containers.push(container);
    }
    clusters.into_iter().map(|(name, parts)| summary(name, &parts)).collect()
}

/// Whether every node is there: a node's volumes outlive its container.
fn complete(parts: &Parts) -> bool {
    let there = |name: &str| parts.containers.iter().any(|container| container.name == name);
    let server =
        parts.containers.iter().any(|c| c.labels.get(labels::ROLE).is_some_and(|role| role == "server"));
    server && parts.volumes.iter().filter_map(|volume| volume.strip_suffix("-state")).all(there)
}

fn summary(name: String, parts: &Parts) -> ClusterSummary {
    let label = |key: &str| parts.containers.iter().find_map(|c| c.labels.get(key).cloned());
    let (lbs, nodes): (Vec<&Container>, Vec<&Container>) =
        parts.containers.iter().partition(|container| is_load_balancer(container));
    let running = nodes.iter().filter(|c| c.running).count();
    let status = match (nodes.len(), running) {
        (0, _) => "Remains",
        (_, 0) => "Stopped",
        (all, running) if running == all && complete(parts) => "Running",
        _ => "Degraded",
    };
    let mut summaries: Vec<NodeSummary> = nodes
        .iter()
        .map(|container| NodeSummary {
            name: container.name.clone(),
            role: container.labels.get(labels::ROLE).cloned().unwrap_or_default(),
            running: container.running,
            image: container.image.clone(),
            state: container.state.clone(),
        })
        .collect();
    // The server first, then by name; a number of two digits after those of one.
    summaries.sort_by_key(|node| (node.role != "server", node.name.len(), node.name.clone()));
    let mut ports: Vec<String> = lbs.iter().filter_map(|c| c.labels.get(labels::PORT).cloned()).collect();
    ports.sort();
    ClusterSummary {
        server: label(labels::API),
        version: label(labels::VERSION),
        created: nodes.iter().map(|c| c.created).min().unwrap_or_default(),
        name,
        status,
        nodes: summaries,
        ports,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(cluster: &str, node: &str, role: &str, running: bool) -> Container {
        let labels = [(labels::CLUSTER, cluster), (labels::ROLE, role), (labels::VERSION, "1")];
        Container {
            id: node.to_owned(),
            name: node.to_owned(),
            image: "i".to_owned(),
            running,
            created: 7,
            state: if running { "running" } else { "exited" }.to_owned(),
            networks: Vec::new(),
            labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        }
    }

    #[test]
    fn the_status_says_what_runs() {
        let check = |containers: Vec<Container>, expect: &str| {
            let volumes = vec![("x-state".to_owned(), "a".to_owned())];
            let list = summarise(containers, vec![], volumes);
            assert_eq!((list.len(), list[0].status), (1, expect));
        };
        check(vec![], "Remains");
        check(vec![container("a", "x", "agent", false)], "Stopped");
        check(vec![container("a", "x", "agent", true)], "Degraded");
        check(vec![container("a", "x", "agent", true), container("a", "y", "server", true)], "Running");
        check(vec![container("a", "x", "agent", true), container("a", "y", "server", false)], "Degraded");
        check(vec![container("a", "y", "server", true)], "Degraded");
    }

    #[test]
    fn clusters_come_by_name_and_servers_first() {
        let list = summarise(
            vec![container("b", "agent", "agent", true), container("b", "server", "server", true)],
            vec![("id".to_owned(), "a".to_owned())],
            vec![],
        );
        let names: Vec<_> = list.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(list[1].nodes[0].name, "server");
    }
}
