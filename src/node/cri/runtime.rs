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

/// Answers of the runtime carry whole image configurations; 16 MiB is containerd's own limit.
const MESSAGE_LIMIT: usize = 16 << 20;

impl Runtime {
    /// A client of the socket at `socket`.
    pub fn new(socket: &Path) -> Self {
        let path = socket.to_owned();
        let connector = tower::service_fn(move |_: http::Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let channel = Endpoint::from_static("http://runtime").connect_with_connector_lazy(connector);
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
        Ok(self.runtime.clone().version(request).await?.into_inner())
    }

    /// Conditions `RuntimeReady` and `NetworkReady`.
    pub async fn status(&self) -> Result<Vec<api::RuntimeCondition>> {
        let answer = self.runtime.clone().status(api::StatusRequest { verbose: false }).await?.into_inner();
        Ok(answer.status.unwrap_or_default().conditions)
    }

    pub async fn run_sandbox(&self, config: api::PodSandboxConfig) -> Result<String> {
        let request = api::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        Ok(self.runtime.clone().run_pod_sandbox(request).await?.into_inner().pod_sandbox_id)
    }

    pub async fn stop_sandbox(&self, id: &str) -> Result<()> {
        let request = api::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(self.runtime.clone().stop_pod_sandbox(request).await)
    }

    pub async fn remove_sandbox(&self, id: &str) -> Result<()> {
        let request = api::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone_is_fine(self.runtime.clone().remove_pod_sandbox(request).await)
    }

    pub async fn sandbox_status(&self, id: &str) -> Result<api::PodSandboxStatus> {
        let request = api::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let answer = self.runtime.clone().pod_sandbox_status(request).await?.into_inner();
        Ok(answer.status.unwrap_or_default())
    }

    /// Sandboxes of one Pod, or of all.
    pub async fn sandboxes(&self, pod_uid: Option<&str>) -> Result<Vec<api::PodSandbox>> {
        let filter = api::PodSandboxFilter { id: String::new(), label_selector: by_uid(pod_uid) };
        let request = api::ListPodSandboxRequest { filter: Some(filter) };
        Ok(self.runtime.clone().list_pod_sandbox(request).await?.into_inner().items)
    }

    /// Containers of one Pod, or of all.
    pub async fn containers(&self, pod_uid: Option<&str>) -> Result<Vec<api::Container>> {
        let filter = api::ContainerFilter { label_selector: by_uid(pod_uid), ..Default::default() };
        let request = api::ListContainersRequest { filter: Some(filter) };
        Ok(self.runtime.clone().list_containers(request).await?.into_inner().containers)
    }

    pub async fn container_status(&self, id: &str) -> Result<api::ContainerStatus> {
        let request = api::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let answer = self.runtime.clone().container_status(request).await?.into_inner();
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
        Ok(self.runtime.clone().create_container(request).await?.into_inner().container_id)
    }

    pub async fn start_container(&self, id: &str) -> Result<()> {
        let request = api::StartContainerRequest { container_id: id.to_owned() };
        self.runtime.clone().start_container(request).await?;
        Ok(())
    }

    /// Sends the stop signal and, after `grace`, kills. Whole seconds.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = api::StopContainerRequest { container_id: id.to_owned(), timeout };
        gone_is_fine(self.runtime.clone().stop_container(request).await)
    }

    pub async fn remove_container(&self, id: &str) -> Result<()> {
        let request = api::RemoveContainerRequest { container_id: id.to_owned() };
        gone_is_fine(self.runtime.clone().remove_container(request).await)
    }

    /// Tells the runtime that the log file was moved away and a new one is to be opened.
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        let request = api::ReopenContainerLogRequest { container_id: id.to_owned() };
        self.runtime.clone().reopen_container_log(request).await?;
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
        Ok(self.runtime.clone().exec_sync(request).await?.into_inner())
    }

    /// The streaming URL of a prepared command.
    pub async fn exec(&self, request: api::ExecRequest) -> Result<String> {
        Ok(self.runtime.clone().exec(request).await?.into_inner().url)
    }

    /// The streaming URL of an attachment to the container's main process.
    pub async fn attach(&self, request: api::AttachRequest) -> Result<String> {
        Ok(self.runtime.clone().attach(request).await?.into_inner().url)
    }

    /// The streaming URL for forwarded ports of a sandbox.
    pub async fn port_forward(&self, sandbox: &str, ports: Vec<i32>) -> Result<String> {
        let request = api::PortForwardRequest { pod_sandbox_id: sandbox.to_owned(), port: ports };
        Ok(self.runtime.clone().port_forward(request).await?.into_inner().url)
    }

    /// What happens to containers from now on. The runtime serves one such stream.
    pub async fn events(&self) -> Result<Streaming<api::ContainerEventResponse>> {
        Ok(self.runtime.clone().get_container_events(api::GetEventsRequest {}).await?.into_inner())
    }

    pub async fn images(&self) -> Result<Vec<api::Image>> {
        let answer = self.images.clone().list_images(api::ListImagesRequest {}).await?;
        Ok(answer.into_inner().images)
    }

    /// The image, if the node has it.
    pub async fn image(&self, name: &str) -> Result<Option<api::Image>> {
        let image = Some(api::ImageSpec { image: name.to_owned(), ..Default::default() });
        let request = api::ImageStatusRequest { image, verbose: false };
        Ok(self.images.clone().image_status(request).await?.into_inner().image)
    }

    /// Fetches the image and answers its reference (its id).
    pub async fn pull(&self, name: &str, auth: Option<api::AuthConfig>) -> Result<String> {
        let image = Some(api::ImageSpec { image: name.to_owned(), ..Default::default() });
        let request = api::PullImageRequest { image, auth, sandbox_config: None };
        Ok(self.images.clone().pull_image(request).await?.into_inner().image_ref)
    }

    pub async fn remove_image(&self, name: &str) -> Result<()> {
        let image = Some(api::ImageSpec { image: name.to_owned(), ..Default::default() });
        gone_is_fine(self.images.clone().remove_image(api::RemoveImageRequest { image }).await)
    }
}

fn by_uid(uid: Option<&str>) -> HashMap<String, String> {
    uid.map(|uid| (labels::POD_UID.to_owned(), uid.to_owned())).into_iter().collect()
}

fn gone_is_fine<T>(answer: std::result::Result<tonic::Response<T>, Status>) -> Result<()> {
    match answer {
        Ok(_) => Ok(()),
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(status.into()),
    }
}
