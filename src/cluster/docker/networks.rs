//! Networks and volumes.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use bollard::models::{
    Ipam, IpamConfig, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
};
use bollard::query_parameters::{InspectNetworkOptions, ListNetworksOptions, ListVolumesOptions};
use ipnet::Ipv4Net;

use super::{Docker, DockerError};
use crate::labels::{self, Labels};
use crate::plan::NetworkPlan;

const MTU: &str = "com.docker.network.driver.mtu";

impl Docker {
    /// All IPv4 subnets that Docker's networks use, and the MTU set for its default bridge: networks made later do not
    /// inherit that one.
    pub async fn networks_in_use(&self) -> Result<(Vec<Ipv4Net>, Option<String>), DockerError> {
        let networks = self.api.list_networks(None::<ListNetworksOptions>).await?;
        let mtu = networks
            .iter()
            .find(|network| network.name.as_deref() == Some("bridge"))
            .and_then(|network| network.options.as_ref()?.get(MTU).cloned());
        let subnets = networks
            .into_iter()
            .filter_map(|network| network.ipam?.config)
            .flatten()
            .filter_map(|config| config.subnet?.parse().ok())
            .collect();
        Ok((subnets, mtu))
    }

    pub async fn create_network(&self, plan: &NetworkPlan) -> Result<(), DockerError> {
        let config = IpamConfig {
            subnet: Some(plan.subnet.net().to_string()),
            ip_range: Some(plan.subnet.docker_range().to_string()),
            gateway: Some(plan.subnet.gateway().to_string()),
            auxiliary_addresses: None,
        };
        let options = plan.mtu.iter().map(|mtu| (MTU.to_owned(), mtu.clone())).collect();
        let request = NetworkCreateRequest {
            name: plan.name.clone(),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam { config: Some(vec![config]), ..Default::default() }),
            labels: Some(plan.labels.clone().into_iter().collect()),
            options: Some(options),
            ..Default::default()
        };
        self.api.create_network(request).await?;
        Ok(())
    }

    /// Whether the network exists, and whether it is a cluster's: `None`, or the cluster in its label.
    pub async fn network_owner(&self, name: &str) -> Result<Option<Option<String>>, DockerError> {
        match self.api.inspect_network(name, None::<InspectNetworkOptions>).await {
            Ok(network) => Ok(Some(network.labels.and_then(|mut labels| labels.remove(labels::CLUSTER)))),
            Err(error) => match DockerError::from(error) {
                DockerError::NotFound(_) => Ok(None),
                other => Err(other),
            },
        }
    }

    /// Ids of a cluster's networks and the cluster each belongs to; of all clusters without a name.
    pub async fn cluster_networks(
        &self,
        cluster: Option<&str>,
    ) -> Result<Vec<(String, String)>, DockerError> {
        let options = ListNetworksOptions { filters: Some(label_filter(cluster)) };
        let networks = self.api.list_networks(Some(options)).await?;
        Ok(networks.into_iter().filter_map(|n| Some((n.id?, n.labels?.remove(labels::CLUSTER)?))).collect())
    }

    /// Removes a network; one that is gone already is no error. Registries, which are in every cluster's network, leave it.
    pub async fn remove_network(&self, id: &str) -> Result<(), DockerError> {
        let first = gone_is_fine(self.api.remove_network(id).await);
        let Err(DockerError::Refused { status: 403, .. }) = first else { return first };
        let registries = self.labelled(labels::REGISTRY).await?;
        if registries.is_empty() {
            return first;
        }
        for registry in registries {
            self.leave_networks(&[id.to_owned()], &registry.id).await;
        }
        gone_is_fine(self.api.remove_network(id).await)
    }

    /// Takes a container out of networks, running or not. Where it is in none of them, or gone, there is nothing to leave; where
    /// it cannot leave, the removal of the network says so.
    pub async fn leave_networks(&self, networks: &[String], container: &str) {
        for network in networks {
            let request = NetworkDisconnectRequest { container: container.to_owned(), force: Some(true) };
            let _ = self.api.disconnect_network(network, request).await;
        }
    }

    /// Brings a container into a network; one that is in it already stays.
    pub async fn join_network(&self, network: &str, container: &str) -> Result<(), DockerError> {
        let request =
            NetworkConnectRequest { container: container.to_owned(), ..NetworkConnectRequest::default() };
        match self.api.connect_network(network, request).await.map_err(DockerError::from) {
            Err(DockerError::Refused { message, .. } | DockerError::Conflict(message))
                if message.contains("already exists in network") || message.contains("already attached") =>
            {
                Ok(())
            }
            other => other,
        }
    }

    /// A network that somebody made: its IPv4 subnet, its gateway, and the addresses in use. Fails when there is none of
    /// that name, or it has none of these.
    pub async fn network_addresses(
        &self,
        name: &str,
    ) -> Result<(Ipv4Net, Option<Ipv4Addr>, Vec<Ipv4Addr>), DockerError> {
        let network = self.api.inspect_network(name, None::<InspectNetworkOptions>).await?;
        let configs = network.ipam.and_then(|ipam| ipam.config).unwrap_or_default();
        let subnet = configs.iter().find_map(|config| {
            let subnet: Ipv4Net = config.subnet.as_ref()?.parse().ok()?;
            Some((subnet, config.gateway.as_ref().and_then(|gateway| gateway.parse().ok())))
        });
        let Some((subnet, gateway)) = subnet else {
            return Err(DockerError::Client(format!("network {name} has no IPv4 subnet")));
        };
        let address = |text: &String| text.split('/').next()?.parse::<Ipv4Addr>().ok();
        let containers = network.containers.unwrap_or_default();
        let used = containers.values().filter_map(|there| address(there.ipv4_address.as_ref()?)).collect();
        Ok((subnet, gateway, used))
    }

    /// Names of a cluster's volumes and the cluster each belongs to; of all clusters without a name.
    pub async fn cluster_volumes(&self, cluster: Option<&str>) -> Result<Vec<(String, String)>, DockerError> {
        let options = ListVolumesOptions { filters: Some(label_filter(cluster)) };
        let volumes = self.api.list_volumes(Some(options)).await?.volumes.unwrap_or_default();
        Ok(volumes
            .into_iter()
            .filter_map(|mut v| Some((v.name, v.labels.remove(labels::CLUSTER)?)))
            .collect())
    }

    /// The labels of the volumes that carry one, and when each was made.
    pub async fn labelled_volumes(&self, label: &str) -> Result<Vec<(Labels, String)>, DockerError> {
        let filters = HashMap::from([("label".to_owned(), vec![label.to_owned()])]);
        let options = ListVolumesOptions { filters: Some(filters) };
        let volumes = self.api.list_volumes(Some(options)).await?.volumes.unwrap_or_default();
        let of = |volume: bollard::models::Volume| {
            let created = volume.created_at.map(|at| at.to_string()).unwrap_or_default();
            (volume.labels.into_iter().collect(), created)
        };
        Ok(volumes.into_iter().map(of).collect())
    }

    /// Removes a volume; one that is gone already is no error.
    pub async fn remove_volume(&self, name: &str) -> Result<(), DockerError> {
        let options = bollard::query_parameters::RemoveVolumeOptions { force: true };
        gone_is_fine(self.patient().remove_volume(name, Some(options)).await)
    }
}

/// The filter that selects what carries a cluster's label.
pub(super) fn label_filter(cluster: Option<&str>) -> HashMap<String, Vec<String>> {
    let label = match cluster {
        Some(name) => format!("{}={name}", labels::CLUSTER),
        None => labels::CLUSTER.to_owned(),
    };
    HashMap::from([("label".to_owned(), vec![label])])
}

pub(super) fn gone_is_fine(answer: Result<(), bollard::errors::Error>) -> Result<(), DockerError> {
    match answer.map_err(DockerError::from) {
        Err(DockerError::NotFound(_)) => Ok(()),
        other => other,
    }
}
