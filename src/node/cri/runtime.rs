//! The container runtime, as the kubelet sees it through CRI.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::api::{
    self, image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};

/// What the runtime answered instead of doing it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct RuntimeError {
    pub code: Code,
    pub message: String,
}

impl From<Status> for RuntimeError {
    fn from(status: Status) -> Self {
        let message = format!("rpc error: code = {:?} desc = {}", status.code(), status.message());
        Self { code: status.code(), message }
    }
}

impl RuntimeError {
    /// The thing is already gone, which is what removal wanted.
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// Nobody answers on the socket (the runtime is starting or restarting).
    pub fn is_unavailable(&self) -> bool {
        self.code == Code::Unavailable
    }
}

type Result<T> = std::result::Result<T, RuntimeError>;

/// CRI over the runtime's unix socket. Cheap to clone; connects when first used and again after the runtime restarted.
#[derive(Clone, Debug)]
pub struct Runtime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    socket: PathBuf,
}

/// Labels by which the kubelet finds its own again, as upstream writes them.
pub mod labels {
    pub const POD_NAME: &str = "io.kubernetes.pod.name";
    pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub const POD_UID: &str = "io.kubernetes.pod.uid";
    pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
}

/// Nothing is waited for without a bound: upstream's for one call, twice that for a sandbox with its network, a short
/// one for questions that only ask whether it is well.
const CALL: Duration = Duration::from_secs(120);
const SANDBOX: Duration = Duration::from_secs(240);
const ASK: Duration = Duration::from_secs(15);
/// The runtime itself gives up a pull that makes no progress.
const PULL: Duration = Duration::from_secs(3600);

/// The answer of one call, or an error once `limit` has passed.
async fn within<T>(
    limit: Duration,
    call: impl Future<Output = std::result::Result<tonic::Response<T>, Status>>,
) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => Ok(answer?.into_inner()),
        Err(_) => {
            let text = format!("the runtime did not answer within {}s", limit.as_secs());
            Err(Status::deadline_exceeded(text).into())
        }
    }
}

/// Answers of the runtime carry whole image configurations; 16 MiB is containerd's own limit.
const MESSAGE_LIMIT: usize = 16 << 20;

impl Runtime {
    /// A client of the socket at `socket`.
    pub fn new(socket: &Path) -> Self {
        let channel = channel(socket);
        Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MESSAGE_LIMIT),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MESSAGE_LIMIT),
            socket: socket.to_owned(),
        }
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    pub async fn version(&self) -> Result<api::VersionResponse> {
        let request = api::VersionRequest { version: "v1".into() };
        within(ASK, self.runtime.clone().version(request)).await
    }

    /// Conditions `RuntimeReady` and `NetworkReady`.
    pub async fn status(&self) -> Result<Vec<api::RuntimeCondition>> {
        let answer = within(ASK, self.runtime.clone().status(api::StatusRequest { verbose: false })).await?;
        Ok(answer.status.unwrap_or_default().conditions)
    }

    /// Makes a sandbox; `handler` is a runtime's name, empty for the default one.
    pub async fn run_sandbox(&self, config: api::PodSandboxConfig, handler: &str) -> Result<String> {
        let request = api::RunPodSandboxRequest { config: Some(config), runtime_handler: handler.to_owned() };
        Ok(within(SANDBOX, self.runtime.clone().run_pod_sandbox(request)).await?.pod_sandbox_id)
    }

    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = api::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(within(CALL, self.runtime.clone().stop_pod_sandbox(request)).await)
    }

    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = api::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(within(CALL, self.runtime.clone().remove_pod_sandbox(request)).await)
    }

    pub async fn sandbox_status(&self, id: &str) -> Result<api::PodSandboxStatus> {
        let request = api::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer = within(CALL, self.runtime.clone().pod_sandbox_status(request)).await?;
        Ok(answer.status.unwrap_or_default())
    }

    /// Sandboxes of one Pod, or of all.
    pub async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<api::PodSandbox>> {
        let filter = api::PodSandboxFilter { id: String::new(), label_selector: by_uid(pod_uid) };
        let request = api::ListPodSandboxRequest { filter: Some(filter) };
        Ok(within(CALL, self.runtime.clone().list_pod_sandbox(request)).await?.items)
    }

    /// Containers of one Pod, or of all.
    pub async fn containers(&self, pod_uid: Option<&str>) -> Result<Vec<api::Container>> {
        let filter = api::ContainerFilter { label_selector: by_uid(pod_uid), ..Default::default() };
        let request = api::ListContainersRequest { filter: Some(filter) };
        Ok(within(CALL, self.runtime.clone().list_containers(request)).await?.containers)
    }

    pub async fn container_status(&self, id: &str) -> Result<api::ContainerStatus> {
        let request = api::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = within(CALL, self.runtime.clone().container_status(request)).await?;
        Ok(answer.status.unwrap_or_default())
    }

    pub async fn create_container(
        &self,
        sandbox: &str,
        config: api::ContainerConfig,
        sandbox_config: api::PodSandboxConfig,
    ) -> Result<String> {
        let request = api::CreateContainerRequest {
            pod_sandbox_id: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        Ok(within(CALL, self.runtime.clone().create_container(request)).await?.container_id)
    }

    /// Gives a running container other limits.
    pub async fn update_container(&self, id: &str, linux: api::LinuxContainerResources) -> Result<()> {
        let request =
            api::UpdateContainerResourcesRequest { container_id: id.to_owned(), linux: Some(linux) };
        within(CALL, self.runtime.clone().update_container_resources(request)).await?;
        Ok(())
    }

    /// What every sandbox and its containers use.
    pub async fn sandbox_stats(&self) -> Result<Vec<api::PodSandboxStats>> {
        let request = api::ListPodSandboxStatsRequest {};
        Ok(within(ASK, self.runtime.clone().list_pod_sandbox_stats(request)).await?.stats)
    }

    pub async fn start_container(&self, id: &str) -> Result<()> {
        let request = api::StartContainerRequest { container_id: id.to_owned() };
        within(CALL, self.runtime.clone().start_container(request)).await?;
        Ok(())
    }

    /// Sends the stop signal and, after `grace`, kills. Whole seconds.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = api::StopContainerRequest { container_id: id.to_owned(), timeout };
        gone_is_fine(within(grace.saturating_add(CALL), self.runtime.clone().stop_container(request)).await)
    }

    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let request = api::RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_fine(within(CALL, self.runtime.clone().remove_container(request)).await)
    }

    /// Tells the runtime that the log file was moved away and a new one is to be opened.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let request = api::ReopenContainerLogRequest { container_id: id.to_owned() };
        within(CALL, self.runtime.clone().reopen_container_log(request)).await?;
        Ok(())
    }

    /// Runs a command in the container; `timeout` zero means no limit.
    pub async fn exec_sync(
        &self,
        id: &str,
        cmd: &[String],
        timeout: Duration,
    ) -> Result<api::ExecSyncResponse> {
        let request = api::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: cmd.to_vec(),
            timeout: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        };
        let limit = if timeout.is_zero() { Duration::MAX } else { timeout.saturating_add(CALL) };
        within(limit, self.runtime.clone().exec_sync(request)).await
    }

    /// The streaming URL of a prepared command.
    pub async fn exec(&self, request: api::ExecRequest) -> Result<String> {
        Ok(within(CALL, self.runtime.clone().exec(request)).await?.url)
    }

    /// The streaming URL of an attachment to the container's main process.
    pub async fn attach(&self, request: api::AttachRequest) -> Result<String> {
        Ok(within(CALL, self.runtime.clone().attach(request)).await?.url)
    }

    /// The streaming URL for forwarded ports of a sandbox.
    pub async fn port_forward(&self, sandbox: &str, ports: Vec<i32>) -> Result<String> {
        let request = api::PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port: ports };
        Ok(within(CALL, self.runtime.clone().port_forward(request)).await?.url)
    }

    /// What happens to containers from now on. The runtime serves one such stream.
    pub async fn events(&self) -> Result<Streaming<api::ContainerEventResponse>> {
        // The answer comes with the first event, whenever that is.
        Ok(self.runtime.clone().get_container_events(api::GetEventsRequest {}).await?.into_inner())
    }

    pub async fn images(&self) -> Result<Vec<api::Image>> {
        let answer = within(CALL, self.images.clone().list_images(api::ListImagesRequest {})).await?;
        Ok(answer.images)
    }

    /// The image, if the node has it.
    pub async fn image(&self, name: &str) -> Result<Option<api::Image>> {
        let image = Some(api::ImageSpec { image: name.to_owned(), ..Default::default() });
        let request = api::ImageStatusRequest { image, verbose: false };
        Ok(within(CALL, self.images.clone().image_status(request)).await?.image)
    }

    /// Fetches the image and returns its reference (its id).
    pub async fn pull(&self, name: &str, auth: Option<api::AuthConfig>) -> Result<String> {
        let image = Some(api::ImageSpec { image: name.to_owned(), ..Default::default() });
        let request = api::PullImageRequest { image, auth, sandbox_config: None };
        Ok(within(PULL, self.images.clone().pull_image(request)).await?.image_ref)
    }

    /// The file systems that hold images.
    pub async fn image_filesystems(&self) -> Result<Vec<api::FilesystemUsage>> {
        let request = api::ImageFsInfoRequest {};
        Ok(within(ASK, self.images.clone().image_fs_info(request)).await?.image_filesystems)
    }

    pub async fn remove_image(&self, name: &str) -> Result<()> {
        let image = Some(api::ImageSpec { image: name.to_owned(), ..Default::default() });
        gone_is_fine(within(CALL, self.images.clone().remove_image(api::RemoveImageRequest { image })).await)
    }
}

/// A connection to a unix socket; made when first used, and again after the other side restarted.
pub(crate) fn channel(socket: &Path) -> Channel {
    let path = socket.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://runtime").connect_with_connector_lazy(connector)
}

fn by_uid(uid: Option<&str>) -> HashMap<String, String> {
    uid.map(|uid| (labels::POD_UID.to_owned(), uid.to_owned())).into_iter().collect()
}

fn gone_is_fine<T>(answer: Result<T>) -> Result<()> {
    match answer {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
