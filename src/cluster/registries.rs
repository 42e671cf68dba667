//! Registries of minik's own: each a container that the host pushes to and every cluster pulls from.
//!
//! ```text
//! docker push localhost:PORT/NAME --> container minik-registry-X (its images on a volume)
//!                                        ^ in every cluster's network; nodes know localhost:PORT as this
//! ```

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde::Serialize;

use super::docker::{Container, Docker, DockerError};
use super::execute::put_files;
use super::identity::servers;
use super::node_image;
use super::plan::{ContainerPlan, Publish, PutFile, REGISTRY, VolumePlan};
use super::progress::{Phases, Progress};
use super::spec::ClusterName;
use super::trust::{self, OwnRegistry, REGISTRY_PORT};
use super::wait::in_phase;
use super::{ClusterError, access_of, labels, wait};
use config::{RegistryConfig, Role};
use rt::Stop;

/// How long a registry may take to answer.
const ANSWERS: Duration = Duration::from_secs(20);
/// How long a cluster may take to hear of a registry.
const HEARS: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(15);
/// Where tools look for it (KEP-1755).
const HOSTING: (&str, &str) = ("kube-public", "local-registry-hosting");

/// A registry, as lists show it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryInfo {
    pub name: String,
    pub running: bool,
    /// What images are pushed to: `localhost:PORT`.
    pub host: String,
    /// What it is called in the clusters.
    pub inside: String,
    #[serde(skip)]
    pub(super) container: Container,
    #[serde(skip)]
    pub(super) own: OwnRegistry,
}

fn container_name(name: &str) -> String {
    format!("minik-registry-{name}")
}

/// All registries, by name.
pub async fn list_registries(docker: &Docker) -> Result<Vec<RegistryInfo>, ClusterError> {
    let of = |container: Container| {
        let name = container.labels.get(labels::REGISTRY)?.clone();
        let host_port = container.labels.get(labels::PORT)?.rsplit(':').next()?.parse().ok()?;
        let own = OwnRegistry { container: container.name.clone(), host_port };
        Some(RegistryInfo {
            name,
            running: container.running,
            host: format!("localhost:{host_port}"),
            inside: format!("{}:{REGISTRY_PORT}", container.name),
            container,
            own,
        })
    };
    let mut all: Vec<RegistryInfo> =
        docker.labelled(labels::REGISTRY).await?.into_iter().filter_map(of).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

async fn find(docker: &Docker, name: &str) -> Result<RegistryInfo, ClusterError> {
    let all = list_registries(docker).await?;
    all.into_iter()
        .find(|found| found.name == name)
        .ok_or_else(|| ClusterError::NoSuchRegistry(name.to_owned()))
}

/// Makes a registry, or starts the one there is with this name and port; every cluster knows it then. Returns it, and
/// whether it is new. Fails when the name or the port is taken, and leaves nothing then.
pub async fn create_registry(
    docker: &Docker,
    name: &ClusterName,
    (host_ip, host_port): (Ipv4Addr, u16),
    image: Option<&str>,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<(RegistryInfo, bool), ClusterError> {
    let phases = Phases::new(progress);
    let published = format!("{host_ip}:{host_port}");
    if let Ok(there) = find(docker, name.as_str()).await {
        if there.container.labels.get(labels::PORT) != Some(&published) {
            return Err(ClusterError::RegistryExists(name.to_string()));
        }
        docker.start_container(&there.container.id).await?;
        tell_all(docker, &there, &phases).await?;
        return Ok((there, false));
    }
    let image = phases.run("node image", node_image::ensure(docker, image, &phases, stop));
    let image = image.await.map_err(|error| in_phase("node image")(error.into()))?;
    let plan = plan(name.as_str(), &image, host_ip, host_port);
    let made = async {
        docker.create_container(&plan).await.map_err(|error| taken(error, host_port))?;
        docker.start_container(&plan.name).await.map_err(|error| taken(error, host_port))?;
        answers(docker, host_port).await
    };
    let made = phases.run("registry", async {
        stop.run_until_cancelled(made).await.unwrap_or(Err(ClusterError::Interrupted))
    });
    if let Err(error) = made.await {
        // The name may be somebody else's.
        let ours = docker.labelled(labels::REGISTRY).await?.iter().any(|found| found.name == plan.name);
        if ours {
            docker.remove_container(&plan.name).await?;
            join_all(plan.volumes.iter().map(|volume| docker.remove_volume(&volume.name))).await;
        }
        return Err(in_phase("registry")(error));
    }
    let registry = find(docker, name.as_str()).await?;
    tell_all(docker, &registry, &phases).await?;
    Ok((registry, true))
}

fn plan(name: &str, image: &str, host_ip: Ipv4Addr, host_port: u16) -> ContainerPlan {
    let container = container_name(name);
    let own = [(labels::REGISTRY, name), (labels::VERSION, labels::THIS_VERSION)];
    let mut all: labels::Labels = own.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let config = serde_json::to_string(&RegistryConfig { port: REGISTRY_PORT }).expect("plain data");
    let volume = VolumePlan {
        name: container.clone(),
        target: RegistryConfig::DIR,
        labels: all.clone(),
        populate: false,
        shared: false,
    };
    all.insert(labels::PORT.to_owned(), format!("{host_ip}:{host_port}"));
    ContainerPlan {
        hostname: container.clone(),
        name: container,
        role: REGISTRY,
        ip: None,
        image: image.to_owned(),
        network: "bridge".to_owned(),
        env: vec![format!("{}={config}", RegistryConfig::ENV)],
        labels: all,
        volumes: vec![volume],
        mounts: Vec::new(),
        capabilities: Vec::new(),
        publish: vec![Publish { host_ip, host_port, port: REGISTRY_PORT, protocol: "tcp" }],
        memory: None,
        cpus: None,
        selinux: false,
        host_users: false,
        extra_hosts: Vec::new(),
        files: Vec::new(),
    }
}

fn taken(error: DockerError, port: u16) -> ClusterError {
    match error.is_port_conflict() {
        true => ClusterError::PortTaken(port),
        false => error.into(),
    }
}

/// Waits until it answers as a registry does: Docker listens on the port before it does.
async fn answers(docker: &Docker, port: u16) -> Result<(), ClusterError> {
    let (_, host) = docker.publish_at();
    let url = format!("http://{host}:{port}/v2/");
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build();
    let client = client.map_err(|error| ClusterError::Client(error.to_string()))?;
    let answered = async {
        while !client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            tokio::time::sleep(RETRY).await;
        }
    };
    tokio::time::timeout(ANSWERS, answered)
        .await
        .map_err(|_| ClusterError::Client(format!("the registry does not answer at {url}")))
}

/// Every node of every cluster.
async fn all_nodes(docker: &Docker) -> Result<Vec<Container>, ClusterError> {
    let roles = [Role::Server, Role::Agent].map(super::plan::role_name);
    let mut nodes = docker.containers(None).await?;
    nodes.retain(|node| node.labels.get(labels::ROLE).is_some_and(|role| roles.contains(&role.as_str())));
    Ok(nodes)
}

/// Lets every cluster know a registry: its network has it, its nodes pull from it, its tools find it.
async fn tell_all(docker: &Docker, registry: &RegistryInfo, phases: &Phases<'_>) -> Result<(), ClusterError> {
    let nodes = all_nodes(docker).await?;
    let mut networks: Vec<&String> = nodes.iter().flat_map(|node| &node.networks).collect();
    networks.sort();
    networks.dedup();
    for network in networks {
        docker.join_network(network, &registry.container.id).await?;
    }
    put_into(docker, &nodes, &trust::of_own(std::slice::from_ref(&registry.own))).await?;
    for cluster in running_clusters(&nodes) {
        if let Err(error) = announce(docker, &cluster, Some(&registry.own)).await {
            phases.warn(&format!("cluster {cluster} does not tell its tools of the registry: {error}"));
        }
    }
    Ok(())
}

fn running_clusters(nodes: &[Container]) -> Vec<String> {
    let servers = servers(nodes).into_iter().filter(|node| node.running);
    let clusters: BTreeSet<String> = servers.map(|node| node.cluster().to_owned()).collect();
    clusters.into_iter().collect()
}

async fn put_into(docker: &Docker, nodes: &[Container], files: &[PutFile]) -> Result<(), ClusterError> {
    let put = join_all(nodes.iter().map(|node| put_files(docker, &node.id, files))).await;
    Ok(put.into_iter().collect::<Result<(), _>>()?)
}

/// Says in a cluster where its registry is; `None`: that there is none.
async fn announce(
    docker: &Docker,
    cluster: &str,
    registry: Option<&OwnRegistry>,
) -> Result<(), ClusterError> {
    let failed = |error: kube::Error| ClusterError::Client(error.to_string());
    let work = async {
        let client = wait::client(&access_of(docker, cluster).await?)?;
        let maps: Api<ConfigMap> = Api::namespaced(client, HOSTING.0);
        let Some(registry) = registry else {
            return match maps.delete(HOSTING.1, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                other => other.map(drop).map_err(failed),
            };
        };
        let map = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": HOSTING.1, "namespace": HOSTING.0},
            "data": trust::hosting(registry),
        });
        let how = PatchParams::apply("minik").force();
        maps.patch(HOSTING.1, &how, &Patch::Apply(map)).await.map(drop).map_err(failed)
    };
    let silent = || ClusterError::Client("its API server does not answer".to_owned());
    tokio::time::timeout(HEARS, work).await.unwrap_or_else(|_| Err(silent()))
}

/// The files by which a new node knows the registries there are.
pub(super) async fn trusted(docker: &Docker) -> Result<Vec<PutFile>, ClusterError> {
    let own: Vec<OwnRegistry> = list_registries(docker).await?.into_iter().map(|found| found.own).collect();
    Ok(trust::of_own(&own))
}

/// Brings all registries into a cluster's network; answers them.
pub(super) async fn attach(docker: &Docker, network: &str) -> Result<Vec<RegistryInfo>, ClusterError> {
    let registries = list_registries(docker).await?;
    for registry in &registries {
        docker.join_network(network, &registry.container.id).await?;
    }
    Ok(registries)
}

/// Tells a new cluster's tools of the first registry there is.
pub(super) async fn announce_first(
    docker: &Docker,
    cluster: &str,
    registries: &[RegistryInfo],
) -> Result<(), ClusterError> {
    match registries.first() {
        Some(registry) => announce(docker, cluster, Some(&registry.own)).await,
        None => Ok(()),
    }
}

/// Removes a registry with its images; returns whether it was there.
pub async fn delete_registry(
    docker: &Docker,
    name: &str,
    progress: &dyn Progress,
) -> Result<bool, ClusterError> {
    let phases = Phases::new(progress);
    let found = match find(docker, name).await {
        Err(ClusterError::NoSuchRegistry(_)) => return Ok(false),
        found => found?,
    };
    docker.remove_container(&found.container.id).await?;
    docker.remove_volume(&container_name(name)).await?;
    let nodes = all_nodes(docker).await?;
    put_into(docker, &nodes, &trust::of_gone(&found.own)).await?;
    let other = list_registries(docker).await?.into_iter().next();
    for cluster in running_clusters(&nodes) {
        if let Err(error) = announce(docker, &cluster, other.as_ref().map(|other| &other.own)).await {
            phases.warn(&format!("cluster {cluster} still tells its tools of the registry: {error}"));
        }
    }
    Ok(true)
}

/// Starts a registry that was stopped; returns whether it did not run.
pub async fn start_registry(docker: &Docker, name: &str) -> Result<bool, ClusterError> {
    let found = find(docker, name).await?;
    docker.start_container(&found.container.id).await.map_err(|error| taken(error, found.own.host_port))?;
    answers(docker, found.own.host_port).await?;
    Ok(!found.running)
}

/// Stops a registry, its images are kept; returns whether it ran.
pub async fn stop_registry(docker: &Docker, name: &str) -> Result<bool, ClusterError> {
    let found = find(docker, name).await?;
    docker.stop_container(&found.container.id).await?;
    Ok(found.running)
}
