use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

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
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSummary {
    pub name: String,
    pub role: String,
    pub running: bool,
    pub image: String,
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
    let remains = networks.into_iter().chain(volumes).map(|(_, cluster)| cluster).collect();
    Ok(summarise(containers, remains))
}

/// One cluster that has nodes.
pub async fn find(docker: &Docker, name: &str) -> Result<ClusterSummary, ClusterError> {
    let containers = docker.containers(Some(name)).await?;
    summarise(containers, BTreeSet::new())
        .into_iter()
        .next()
        .ok_or_else(|| ClusterError::NoSuchCluster(name.to_owned()))
}

fn summarise(containers: Vec<Container>, remains: BTreeSet<String>) -> Vec<ClusterSummary> {
    let mut clusters: BTreeMap<String, Vec<Container>> =
        remains.into_iter().map(|name| (name, Vec::new())).collect();
    for container in containers {
        clusters.entry(container.cluster().to_owned()).or_default().push(container);
    }
    clusters.into_iter().map(|(name, containers)| summary(name, containers)).collect()
}

fn summary(name: String, containers: Vec<Container>) -> ClusterSummary {
    let label = |key: &str| containers.iter().find_map(|c| c.labels.get(key).cloned());
    let expected = label(labels::NODES).and_then(|n| n.parse::<usize>().ok()).unwrap_or(containers.len());
    let running = containers.iter().filter(|c| c.running).count();
    let status = match (containers.len(), running) {
        (0, _) => "Remains",
        (_, 0) => "Stopped",
        (_, running) if running == expected => "Running",
        _ => "Degraded",
    };
    let mut nodes: Vec<NodeSummary> = containers
        .iter()
        .map(|container| NodeSummary {
            name: container.name.clone(),
            role: container.labels.get(labels::ROLE).cloned().unwrap_or_default(),
            running: container.running,
            image: container.image.clone(),
        })
        .collect();
    // The server first, then by name.
    nodes.sort_by_key(|node| (node.role != "server", node.name.clone()));
    ClusterSummary {
        server: label(labels::API),
        version: label(labels::VERSION),
        created: containers.iter().map(|c| c.created).min().unwrap_or_default(),
        name,
        status,
        nodes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(cluster: &str, node: &str, role: &str, running: bool) -> Container {
        let labels =
            [(labels::CLUSTER, cluster), (labels::ROLE, role), (labels::NODES, "2"), (labels::VERSION, "1")];
        Container {
            id: node.to_owned(),
            name: node.to_owned(),
            image: "i".to_owned(),
            running,
            created: 7,
            labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        }
    }

    #[test]
    fn the_status_says_what_runs() {
        let check = |containers: Vec<Container>, expect: &str| {
            let list = summarise(containers, BTreeSet::from(["a".to_owned()]));
            assert_eq!((list.len(), list[0].status), (1, expect));
        };
        check(vec![], "Remains");
        check(vec![container("a", "x", "agent", false)], "Stopped");
        check(vec![container("a", "x", "agent", true)], "Degraded");
        check(vec![container("a", "x", "agent", true), container("a", "y", "server", true)], "Running");
        check(vec![container("a", "x", "agent", true), container("a", "y", "server", false)], "Degraded");
    }

    #[test]
    fn clusters_come_by_name_and_servers_first() {
        let list = summarise(
            vec![container("b", "agent", "agent", true), container("b", "server", "server", true)],
            BTreeSet::from(["a".to_owned()]),
        );
        let names: Vec<_> = list.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(list[1].nodes[0].name, "server");
    }
}
