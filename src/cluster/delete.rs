//! Removes a cluster, whole or half made.

use std::path::PathBuf;

use futures::future::join_all;
use tokio::sync::Semaphore;

use super::diff::{is_own_volume, own_volumes};
use super::docker::{Container, Docker, DockerError};
use super::{ClusterError, labels};
use config::kubeconfig;
use rt::{Clock, SystemClock};

/// Removes a cluster, whole or half made: containers, network, volumes and kubeconfig entries. Returns whether there
/// was anything; what is gone already is no error.
pub async fn delete(
    docker: &Docker,
    cluster: &str,
    kubeconfigs: Option<&[PathBuf]>,
) -> Result<bool, ClusterError> {
    let found = remove_all(docker, cluster).await?;
    let entry = match kubeconfigs {
        Some(files) => kubeconfig::remove(files, &labels::context(cluster))?,
        None => false,
    };
    Ok(found || entry)
}

/// Clusters whose time is over: those of `minik run` and of tests that were killed.
pub async fn expired(docker: &Docker) -> Result<Vec<String>, ClusterError> {
    let now = SystemClock.now().as_second();
    let over = |container: &Container| {
        let label = container.labels.get(labels::EXPIRES)?;
        (label.parse::<i64>().ok()? < now).then(|| container.cluster().to_owned())
    };
    let mut names: Vec<String> = docker.containers(None).await?.iter().filter_map(over).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

/// Removes what Docker has of a cluster. Containers do not wait for each other: each leaves its network, is removed, and its
/// volumes after it. Docker takes as long for a network as for containers, and does both at once when nobody is in the network.
pub(super) async fn remove_all(docker: &Docker, cluster: &str) -> Result<bool, ClusterError> {
    let (containers, networks, volumes) = futures::try_join!(
        docker.containers(Some(cluster)),
        docker.cluster_networks(Some(cluster)),
        docker.cluster_volumes(Some(cluster)),
    )?;
    let any = !(containers.is_empty() && networks.is_empty() && volumes.is_empty());
    let networks: &Vec<String> = &networks.into_iter().map(|(id, _)| id).collect();
    let volumes: &Vec<String> = &volumes.into_iter().map(|(name, _)| name).collect();
    let running = containers.iter().filter(|container| container.running).count();
    let left = &Semaphore::new(0);
    let removals = containers.iter().map(|container| async move {
        if container.running {
            docker.leave_networks(networks, &container.id).await;
            left.add_permits(1);
        }
        docker.remove_container(&container.id).await?;
        remove_volumes(docker, own_volumes(container, volumes)).await
    });
    let all_left = async {
        let all = u32::try_from(running).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _ = left.acquire_many(all).await;
        try_networks(docker, networks).await
    };
    let (removed, in_use) = futures::join!(join_all(removals), all_left);
    let mut left_over = errors(removed);
    let others = volumes.iter().filter(|name| !containers.iter().any(|c| is_own_volume(c, name)));
    let networks = join_all(in_use.into_iter().map(|id| docker.remove_network(id)));
    let volumes = join_all(others.map(|name| docker.remove_volume(name)));
    let (networks, volumes) = futures::join!(networks, volumes);
    left_over.extend(errors(networks));
    left_over.extend(errors(volumes));
    match left_over.is_empty() {
        true => Ok(any),
        false => Err(ClusterError::Left { name: cluster.to_owned(), left: left_over }),
    }
}

/// Removes volumes at once. Fails with the first that cannot be.
pub(super) async fn remove_volumes<'a>(
    docker: &Docker,
    volumes: impl Iterator<Item = &'a String>,
) -> Result<(), DockerError> {
    join_all(volumes.map(|volume| docker.remove_volume(volume))).await.into_iter().collect()
}

/// Removes networks; returns those that were still in use.
async fn try_networks<'a>(docker: &Docker, networks: &'a [String]) -> Vec<&'a String> {
    let results = join_all(networks.iter().map(|id| docker.remove_network(id))).await;
    networks.iter().zip(results).filter(|(_, result)| result.is_err()).map(|(id, _)| id).collect()
}

fn errors(results: Vec<Result<(), DockerError>>) -> Vec<String> {
    results.into_iter().filter_map(Result::err).map(|error| error.to_string()).collect()
}
