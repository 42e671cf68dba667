//! The storage drivers' edge: CSI over a driver's unix socket, as the kubelet calls it, and how drivers register.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::time::Duration;

use tonic::transport::Channel;

use super::cri::{RuntimeError, channel};
use api::node_client::NodeClient;
use api::node_service_capability::rpc::Type as Feature;
use registration::registration_client::RegistrationClient;

/// Messages and clients of the storage interface.
#[allow(clippy::all, missing_docs)]
pub mod api {
    tonic::include_proto!("csi.v1");
}

/// Messages and clients of plugin registration.
#[allow(clippy::all, missing_docs)]
pub mod registration {
    tonic::include_proto!("pluginregistration");
}

/// Upstream's bound for one call of a driver.
const CALL: Duration = Duration::from_secs(120);

type Result<T> = std::result::Result<T, RuntimeError>;

async fn within<T>(
    call: impl Future<Output = std::result::Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T> {
    match tokio::time::timeout(CALL, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => {
            let text = format!("the driver did not answer within {}s", CALL.as_secs());
            Err(tonic::Status::deadline_exceeded(text).into())
        }
    }
}

/// What a driver says of this node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeInfo {
    pub node_id: String,
    /// Volumes it can have on this node; 0 where it does not say.
    pub max_volumes: i64,
    /// Labels by which its volumes say where they can be reached.
    pub topology: BTreeMap<String, String>,
}

/// A driver that answers on a socket. Cheap to clone; connects when first used.
#[derive(Clone, Debug)]
pub struct Driver {
    node: NodeClient<Channel>,
}

impl Driver {
    /// A client of the socket at `socket`.
    pub fn new(socket: &Path) -> Self {
        Self { node: NodeClient::new(channel(socket)) }
    }

    pub async fn info(&self) -> Result<NodeInfo> {
        let info = within(self.node.clone().node_get_info(api::NodeGetInfoRequest {})).await?;
        let topology = info.accessible_topology.unwrap_or_default().segments.into_iter().collect();
        Ok(NodeInfo { node_id: info.node_id, max_volumes: info.max_volumes_per_node, topology })
    }

    /// What the driver can do on a node.
    pub async fn features(&self) -> Result<HashSet<Feature>> {
        let answer =
            within(self.node.clone().node_get_capabilities(api::NodeGetCapabilitiesRequest {})).await?;
        let one = |capability: api::NodeServiceCapability| match capability.r#type? {
            api::node_service_capability::Type::Rpc(rpc) => Some(rpc.r#type()),
        };
        Ok(answer.capabilities.into_iter().filter_map(one).collect())
    }

    pub async fn stage(&self, request: api::NodeStageVolumeRequest) -> Result<()> {
        within(self.node.clone().node_stage_volume(request)).await.map(drop)
    }

    pub async fn unstage(&self, volume_id: String, staging_target_path: String) -> Result<()> {
        let request = api::NodeUnstageVolumeRequest { volume_id, staging_target_path };
        gone_is_fine(within(self.node.clone().node_unstage_volume(request)).await)
    }

    pub async fn publish(&self, request: api::NodePublishVolumeRequest) -> Result<()> {
        within(self.node.clone().node_publish_volume(request)).await.map(drop)
    }

    pub async fn unpublish(&self, volume_id: String, target_path: String) -> Result<()> {
        let request = api::NodeUnpublishVolumeRequest { volume_id, target_path };
        gone_is_fine(within(self.node.clone().node_unpublish_volume(request)).await)
    }

    /// Makes the volume's file system as large as the volume; returns the bytes it has then, 0 if the driver does not say.
    pub async fn expand(&self, request: api::NodeExpandVolumeRequest) -> Result<i64> {
        Ok(within(self.node.clone().node_expand_volume(request)).await?.capacity_bytes)
    }
}

fn gone_is_fine<T>(answer: Result<T>) -> Result<()> {
    match answer {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// A plugin's registration socket.
#[derive(Clone, Debug)]
pub struct Registration(RegistrationClient<Channel>);

impl Registration {
    /// A client of the socket at `socket`.
    pub fn new(socket: &Path) -> Self {
        Self(RegistrationClient::new(channel(socket)))
    }

    /// What the plugin is, and where it serves.
    pub async fn info(&self) -> Result<registration::PluginInfo> {
        within(self.0.clone().get_info(registration::InfoRequest {})).await
    }

    /// Tells the plugin whether it was taken, or why not.
    pub async fn notify(&self, refusal: Option<String>) -> Result<()> {
        let status = registration::RegistrationStatus {
            plugin_registered: refusal.is_none(),
            error: refusal.unwrap_or_default(),
        };
        within(self.0.clone().notify_registration_status(status)).await.map(drop)
    }
}
