//! Looks at what there is: a cluster's parts on Docker, and the machine a new one is made on.

use std::net::{Ipv4Addr, TcpListener};

use ipnet::Ipv4Net;

use super::ClusterError;
use super::diff::Observed;
use super::docker::{Docker, DockerError, EngineInfo};
use super::labels;
use super::plan::{bounding_set, capabilities};
use super::proxy_env::ProxyEnv;
use super::record::{Around, Drawn};
use super::settings::overlap;
use super::spec::{ClusterName, ClusterSpec, SpecError};
use super::subnet::{Subnet, host_routes};

/// What Docker has of a cluster.
pub(super) async fn observe(docker: &Docker, cluster: &ClusterName) -> Result<Observed, ClusterError> {
    let network = labels::network(cluster);
    let name = Some(cluster.as_str());
    let (containers, owner, volumes) = futures::try_join!(
        docker.containers(name),
        docker.network_owner(&network),
        docker.cluster_volumes(name)
    )?;
    match owner {
        Some(None) => Err(ClusterError::NetworkTaken(network)),
        owner => Ok(Observed {
            network: owner.is_some(),
            containers,
            volumes: volumes.into_iter().map(|(name, _)| name).collect(),
        }),
    }
}

/// What a new cluster depends on and nobody asked for.
pub(super) struct Draw<'a> {
    pub(super) image: &'a str,
    pub(super) engine: &'a EngineInfo,
    pub(super) token: &'a str,
    pub(super) ca_hash: &'a str,
    /// How many free subnets to pass over: others took them in between.
    pub(super) attempt: usize,
    /// Docker refused the capabilities asked for.
    pub(super) capability_refused: bool,
}

/// Chooses subnet and port, and finds out what the machine allows.
pub(super) async fn draw(
    docker: &Docker,
    spec: &ClusterSpec,
    with: &Draw<'_>,
) -> Result<Drawn, ClusterError> {
    let engine = with.engine;
    let (networks, mtu) = docker.networks_in_use().await?;
    let (bind, host) = docker.publish_at();
    let proc = |path: &str| std::fs::read_to_string(path).ok().filter(|_| docker.is_local());
    let (subnet, around) = match &spec.addresses.network {
        Some(network) => inside_of(docker, network).await?,
        None => (block(spec, &taken(docker, networks), with.attempt)?, None),
    };
    if spec.addresses_taken() > subnet.nodes() {
        let why = format!("{} has addresses for {} nodes", subnet.net(), subnet.nodes());
        return Err(SpecError::Address(why).into());
    }
    // A rootless engine's containers have the capabilities of their user namespace, whatever ours are.
    let bounding =
        proc("/proc/self/status").filter(|_| !engine.rootless).and_then(|text| bounding_set(&text));
    let mut capabilities = capabilities(bounding);
    if with.capability_refused {
        // Our own bounding set does not speak for an engine elsewhere: the one often missing is left out.
        capabilities.retain(|name| name != "SYS_RESOURCE");
    }
    Ok(Drawn {
        image: with.image.to_owned(),
        subnet,
        around,
        named_after: None,
        mtu,
        api_bind: spec.api_address.unwrap_or(bind),
        api_host: match spec.api_address {
            Some(address) if !address.is_unspecified() => address.to_string(),
            _ => host,
        },
        api_port: match spec.api_port {
            Some(port) => port,
            None => free_port()?,
        },
        token: with.token.to_owned(),
        ca_hash: with.ca_hash.to_owned(),
        proxy: ProxyEnv::read(|name| std::env::var(name).ok()),
        capabilities,
        selinux: engine.selinux,
        host_users: engine.userns_remap,
    })
}

/// The addresses of a cluster with a network of its own: those that were asked for, or free ones. Pods' and Services'
/// addresses are inside the cluster: there they must not be its nodes' as well.
fn block(spec: &ClusterSpec, taken: &[Ipv4Net], attempt: usize) -> Result<Subnet, ClusterError> {
    let Some(asked) = spec.addresses.subnet else {
        let inside = [spec.addresses.pods(), spec.addresses.services()];
        let taken: Vec<Ipv4Net> = taken.iter().copied().chain(inside).collect();
        return Subnet::choose(&taken, attempt).ok_or(ClusterError::NoFreeSubnet);
    };
    match taken.iter().find(|net| net.prefix_len() > 0 && overlap(net, &asked)) {
        Some(other) => {
            let why = format!("the subnet {asked} is taken: a network of Docker or a route has {other}");
            Err(SpecError::Address(why).into())
        }
        None => Ok(Subnet::of(asked)),
    }
}

/// Room for a cluster in a network that somebody else made.
async fn inside_of(docker: &Docker, network: &str) -> Result<(Subnet, Option<Around>), ClusterError> {
    let found = docker.network_addresses(network).await;
    let (net, gateway, used) = match found {
        Err(DockerError::NotFound(_)) => return Err(ClusterError::NoSuchNetwork(network.to_owned())),
        found => found?,
    };
    let subnet = Subnet::within(net, &used).ok_or_else(|| {
        SpecError::Address(format!("network {network} ({net}) has no room for a cluster in its upper half"))
    })?;
    Ok((subnet, Some(Around { net, gateway })))
}

/// Whether there is a free range of addresses for another cluster.
pub async fn subnet_free(docker: &Docker) -> Result<bool, DockerError> {
    let taken = taken(docker, docker.networks_in_use().await?.0);
    Ok(Subnet::choose(&taken, 0).is_some())
}

/// The ranges that Docker's networks use, and those this machine has routes to.
fn taken(docker: &Docker, mut networks: Vec<Ipv4Net>) -> Vec<Ipv4Net> {
    let routes = std::fs::read_to_string("/proc/net/route").ok().filter(|_| docker.is_local());
    networks.extend(routes.iter().flat_map(|text| host_routes(text)));
    networks
}

/// Returns what the engine says of itself. Fails where no node can run on it: before anything is made, the image of a node
/// included, which takes minutes.
pub(super) async fn engine(docker: &Docker) -> Result<EngineInfo, ClusterError> {
    let engine = docker.info().await?;
    refuse_unfit(&engine)?;
    Ok(engine)
}

fn refuse_unfit(engine: &EngineInfo) -> Result<(), ClusterError> {
    if engine.podman {
        return Err(ClusterError::Unfit {
            why: format!("Podman {} answers here, and no node has been seen to run on it", engine.version),
            hint: "let DOCKER_HOST, or the current context, lead to a Docker Engine".to_owned(),
        });
    }
    if engine.rootless && engine.cgroup_version != "2" {
        return Err(ClusterError::Unfit {
            why: "rootless Docker needs cgroup version 2 to give nodes control groups of their own"
                .to_owned(),
            hint: "boot with systemd.unified_cgroup_hierarchy=1, or use Docker as root".to_owned(),
        });
    }
    if engine.rootless && engine.cgroup_driver == "none" {
        return Err(ClusterError::Unfit {
            why: "rootless Docker has no control groups delegated to it".to_owned(),
            hint: "delegate them: https://rootlesscontaine.rs/getting-started/common/cgroup2/".to_owned(),
        });
    }
    Ok(())
}

/// A port nobody listens on at this moment. It is chosen here and not by Docker, which would choose another one each
/// time the container starts.
fn free_port() -> Result<u16, ClusterError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(ClusterError::NoFreePort)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_that_cannot_hold_a_node_are_refused() {
        let check = |rootless: bool, version: &str, driver: &str, expect: Option<&str>| {
            let engine = EngineInfo {
                rootless,
                cgroup_version: version.to_owned(),
                cgroup_driver: driver.to_owned(),
                ..EngineInfo::default()
            };
            let said = refuse_unfit(&engine).err().map(|error| error.to_string());
            assert_eq!(said.is_some(), expect.is_some(), "{said:?}");
            assert!(expect.is_none_or(|part| said.is_some_and(|text| text.contains(part))));
        };
        let podman = EngineInfo { podman: true, ..EngineInfo::default() };
        assert!(refuse_unfit(&podman).is_err_and(|error| error.to_string().contains("Podman")));
        check(false, "1", "cgroupfs", None);
        check(true, "2", "systemd", None);
        check(true, "1", "none", Some("cgroup version 2"));
        check(true, "2", "none", Some("delegated"));
    }
}
