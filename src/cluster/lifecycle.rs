//! Stops a cluster, or single nodes, and starts them again: the same containers, addresses, objects and Pods.

use std::net::Ipv4Addr;

use futures::future::join_all;
use jiff::Timestamp;

use super::change::{ChangeOptions, Changed, change};
use super::diff::is_load_balancer;
use super::docker::{Container, Docker};
use super::lock::lock;
use super::progress::{Phases, Progress};
use super::record::ClusterRecord;
use super::spec::ClusterName;
use super::wait::{self, Waited};
use super::{ClusterError, access_of, identity, numbers};
use rt::{Clock, Stop, SystemClock};

/// Starts everything of a cluster that does not run, makes anew what somebody removed, and waits until the nodes are
/// Ready. Does nothing where everything runs.
pub async fn start(
    docker: &Docker,
    name: &ClusterName,
    options: &ChangeOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<Changed, ClusterError> {
    change(docker, name, options, progress, stop, |_| Ok(())).await
}

/// Ends containers at once, and waits until all have ended.
pub(super) async fn kill<'a>(
    docker: &Docker,
    containers: impl IntoIterator<Item = &'a Container>,
) -> Result<(), ClusterError> {
    let all = containers.into_iter().map(|container| docker.kill_container(&container.id));
    Ok(join_all(all).await.into_iter().collect::<Result<(), _>>()?)
}

/// Stops a cluster's containers: what carries host ports, then the agents, then the server, which their last reports
/// go to. Returns the names of those that ran.
pub async fn stop(
    docker: &Docker,
    name: &ClusterName,
    progress: &dyn Progress,
) -> Result<Vec<String>, ClusterError> {
    let _lock = lock(name)?;
    let containers = existing(docker, name).await?;
    let running: Vec<Container> = containers.into_iter().filter(|c| c.running).collect();
    let phases = Phases::new(progress);
    // What carries the API's port goes with the agents: nobody outside has to speak to a cluster that stops.
    let servers = identity::servers(&running);
    let others = running.iter().filter(|one| servers.iter().all(|server| server.id != one.id)).collect();
    let last = if servers.len() > 1 { "stopping the servers" } else { "stopping the server" };
    for (phase, group) in [("stopping agents", others), (last, servers)] {
        if !group.is_empty() {
            phases.run(phase, stop_all(docker, &group)).await?;
        }
    }
    Ok(running.into_iter().map(|container| container.name).collect())
}

async fn stop_all(docker: &Docker, containers: &[&Container]) -> Result<(), ClusterError> {
    let stopped = join_all(containers.iter().map(|container| docker.stop_container(&container.id))).await;
    Ok(stopped.into_iter().collect::<Result<(), _>>()?)
}

/// The containers of a cluster that has some.
pub(super) async fn existing(docker: &Docker, name: &ClusterName) -> Result<Vec<Container>, ClusterError> {
    let containers = docker.containers(Some(name.as_str())).await?;
    match containers.is_empty() {
        true => Err(ClusterError::NoSuchCluster(name.to_string())),
        false => Ok(containers),
    }
}

/// The container of one node, by its name or the part of it behind the cluster's.
pub async fn find_node(
    docker: &Docker,
    cluster: &ClusterName,
    node: &str,
) -> Result<Container, ClusterError> {
    let long = format!("minik-{cluster}-{node}");
    existing(docker, cluster)
        .await?
        .into_iter()
        .filter(|container| !is_load_balancer(container))
        .find(|container| container.name == node || container.name == long)
        .ok_or_else(|| ClusterError::NoSuchNode { cluster: cluster.to_string(), node: node.to_owned() })
}

/// Stops one node; returns whether it ran.
pub async fn stop_node(docker: &Docker, cluster: &ClusterName, node: &str) -> Result<bool, ClusterError> {
    let container = find_node(docker, cluster, node).await?;
    docker.stop_container(&container.id).await?;
    Ok(container.running)
}

/// Starts one node and waits until it is Ready.
pub async fn start_node(
    docker: &Docker,
    cluster: &ClusterName,
    node: &Container,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<(), ClusterError> {
    let phases = Phases::new(progress);
    let access = access_of(docker, cluster.as_str()).await?;
    let since = SystemClock.now();
    docker.start_container(&node.id).await?;
    let timeout = ChangeOptions::default().timeout;
    let waited = Waited { cluster, nodes: vec![node.node().to_owned()], since, timeout, fresh: true };
    wait::ready(docker, &waited, &access, &phases, stop).await
}

/// The address of one node.
pub async fn node_ip(docker: &Docker, cluster: &ClusterName, node: &str) -> Result<Ipv4Addr, ClusterError> {
    let containers = existing(docker, cluster).await?;
    let record = ClusterRecord::read(docker, cluster.as_str(), &containers).await?;
    let container = find_node(docker, cluster, node).await?;
    node_number(cluster, &container.name)
        .map(|number| record.drawn.subnet.node(number))
        .ok_or_else(|| ClusterError::NoSuchNode { cluster: cluster.to_string(), node: node.to_owned() })
}

/// Waits until nodes that were broken on purpose are healed, at `until`, and Ready again.
pub async fn wait_healed(
    docker: &Docker,
    cluster: &ClusterName,
    nodes: &[Container],
    until: Timestamp,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<(), ClusterError> {
    let phases = Phases::new(progress);
    let left = until.duration_since(SystemClock.now());
    let healed = async {
        tokio::time::sleep(left.try_into().unwrap_or_default()).await;
        Ok(())
    };
    phases.run("broken on purpose", wait::until(stop, healed)).await?;
    let access = access_of(docker, cluster.as_str()).await?;
    let waited = Waited {
        cluster,
        nodes: nodes.iter().map(|node| node.node().to_owned()).collect(),
        since: until,
        timeout: ChangeOptions::default().timeout,
        fresh: true,
    };
    wait::ready(docker, &waited, &access, &phases, stop).await
}

/// The number of a node's container, from its name.
pub fn node_number(cluster: &ClusterName, container: &str) -> Option<u32> {
    numbers::of_short_name(container.strip_prefix(&format!("minik-{cluster}-"))?)
}
