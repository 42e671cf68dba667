//! Containers: made, started, stopped, read and removed.

use std::collections::{BTreeMap, HashMap};

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigCgroupnsModeEnum, Mount,
    MountType, MountVolumeOptions, NetworkingConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptions, DownloadFromContainerOptions, EventsOptions, InspectContainerOptions,
    ListContainersOptions, LogsOptions, RemoveContainerOptions, RenameContainerOptions,
    StartContainerOptions, StopContainerOptions, UploadToContainerOptions, WaitContainerOptions,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::networks::{gone_is_fine, label_filter};
use super::{Docker, DockerError};
use crate::labels;
use crate::plan::{ContainerPlan, LB, Publish, REGISTRY};
use config::image_store;

/// A node's container as Docker lists it.
#[derive(Clone, Debug)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub image: String,
    pub running: bool,
    /// Seconds since 1970.
    pub created: i64,
    pub labels: BTreeMap<String, String>,
    /// `created`, `running`, `paused`, `restarting`, `exited`, `dead`.
    pub state: String,
    /// Names of the networks it is in.
    pub networks: Vec<String>,
}

/// A volume in a container that works on it.
#[derive(Clone, Debug)]
pub struct WorkMount {
    pub volume: String,
    pub target: String,
    pub read_only: bool,
    /// For a volume that comes into being with the container.
    pub labels: labels::Labels,
}

/// A container's main process ended.
#[derive(Clone, Debug)]
pub struct Death {
    pub id: String,
    pub container: String,
    pub exit_code: String,
}

impl Docker {
    /// Makes a container, and its volumes; it is not started.
    pub async fn create_container(&self, plan: &ContainerPlan) -> Result<(), DockerError> {
        let options = CreateContainerOptions { name: Some(plan.name.clone()), ..Default::default() };
        self.api.create_container(Some(options), create_body(plan)).await?;
        Ok(())
    }

    /// Makes a container that holds the store of images to write. It is not started unless `command` says what to run.
    /// Answers its id; a command that was killed leaves it to [`Docker::unfinished_images`].
    pub async fn store_container(
        &self,
        image: &str,
        command: Option<&[&str]>,
    ) -> Result<String, DockerError> {
        let mount = WorkMount {
            volume: image_store::VOLUME.to_owned(),
            target: image_store::DIR.to_owned(),
            read_only: false,
            labels: labels::store(),
        };
        self.work_container(image, &[mount], command).await
    }

    /// Makes a container that has volumes and no network; volumes that are not there come into being. It is not started
    /// unless `command` says what to run. Returns its id; a command that was killed leaves it to
    /// [`Docker::unfinished_images`].
    pub async fn work_container(
        &self,
        image: &str,
        mounts: &[WorkMount],
        command: Option<&[&str]>,
    ) -> Result<String, DockerError> {
        let mount = |mount: &WorkMount| Mount {
            typ: Some(MountType::VOLUME),
            source: Some(mount.volume.clone()),
            target: Some(mount.target.clone()),
            read_only: Some(mount.read_only),
            volume_options: Some(MountVolumeOptions {
                labels: Some(mount.labels.clone().into_iter().collect()),
                no_copy: Some(true),
                ..Default::default()
            }),
            ..Default::default()
        };
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: command.map(|words| words.iter().map(ToString::to_string).collect()),
            labels: Some(super::images::unfinished_labels()),
            host_config: Some(HostConfig {
                mounts: Some(mounts.iter().map(mount).collect()),
                network_mode: Some("none".to_owned()),
                ..Default::default()
            }),
            ..Default::default()
        };
        Ok(self.api.create_container(None::<CreateContainerOptions>, body).await?.id)
    }

    /// Starts a container and waits for its end; returns the exit code.
    pub async fn run_to_end(&self, id: &str) -> Result<i64, DockerError> {
        self.start_container(id).await?;
        let mut ends = self.api.wait_container(id, None::<WaitContainerOptions>);
        match ends.next().await {
            Some(Ok(end)) => Ok(end.status_code),
            Some(Err(bollard::errors::Error::DockerContainerWaitError { code, .. })) => Ok(code),
            Some(Err(error)) => Err(error.into()),
            None => Err(DockerError::Client("Docker did not say how the container ended".to_owned())),
        }
    }

    pub async fn rename_container(&self, id: &str, name: &str) -> Result<(), DockerError> {
        Ok(self.api.rename_container(id, RenameContainerOptions { name: name.to_owned() }).await?)
    }

    /// Tells a container to end, and waits until it has: at most its own stop timeout, then it is killed.
    pub async fn stop_container(&self, name: &str) -> Result<(), DockerError> {
        gone_is_fine(self.api.stop_container(name, None::<StopContainerOptions>).await)
    }

    pub async fn start_container(&self, name: &str) -> Result<(), DockerError> {
        Ok(self.api.start_container(name, None::<StartContainerOptions>).await?)
    }

    /// Ends a container at once, and waits until it has ended and left its networks.
    pub async fn kill_container(&self, name: &str) -> Result<(), DockerError> {
        let options = StopContainerOptions { signal: Some("SIGKILL".to_owned()), t: Some(0) };
        Ok(self.api.stop_container(name, Some(options)).await?)
    }

    /// Removes a container, running or not; one that is gone already is no error.
    pub async fn remove_container(&self, id: &str) -> Result<(), DockerError> {
        let options = RemoveContainerOptions { force: true, v: true, link: false };
        match gone_is_fine(self.patient().remove_container(id, Some(options)).await) {
            // Somebody else is removing it at this moment: its disappearance is waited for.
            Err(DockerError::Conflict(_)) => self.wait_removed(id).await,
            other => other,
        }
    }

    async fn wait_removed(&self, id: &str) -> Result<(), DockerError> {
        let options = WaitContainerOptions { condition: "removed".to_owned() };
        let api = self.patient();
        let mut ends = api.wait_container(id, Some(options));
        while let Some(end) = ends.next().await {
            if let Err(bollard::errors::Error::DockerResponseServerError { status_code, message }) = end
                && status_code != 404
            {
                return Err(DockerError::Refused { status: status_code, message });
            }
        }
        Ok(())
    }

    /// The containers of one cluster, or of all.
    pub async fn containers(&self, cluster: Option<&str>) -> Result<Vec<Container>, DockerError> {
        self.listed(label_filter(cluster)).await
    }

    /// The containers that carry a label.
    pub async fn labelled(&self, label: &str) -> Result<Vec<Container>, DockerError> {
        self.listed(HashMap::from([("label".to_owned(), vec![label.to_owned()])])).await
    }

    async fn listed(&self, filters: HashMap<String, Vec<String>>) -> Result<Vec<Container>, DockerError> {
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let list = self.api.list_containers(Some(options)).await?;
        Ok(list
            .into_iter()
            .map(|summary| Container {
                id: summary.id.unwrap_or_default(),
                name: summary
                    .names
                    .and_then(|names| names.into_iter().next())
                    .map(|name| name.trim_start_matches('/').to_owned())
                    .unwrap_or_default(),
                image: summary.image.unwrap_or_default(),
                running: summary.state.as_ref().is_some_and(|state| state.to_string() == "running"),
                state: summary.state.map(|state| state.to_string()).unwrap_or_default(),
                created: summary.created.unwrap_or_default(),
                networks: summary
                    .network_settings
                    .and_then(|settings| settings.networks)
                    .map(|networks| networks.into_keys().collect())
                    .unwrap_or_default(),
                labels: summary.labels.unwrap_or_default().into_iter().collect(),
            })
            .collect())
    }

    /// Whether a container of this name exists, and whether it is a cluster's: `None`, or the cluster in its label.
    pub async fn container_owner(&self, name: &str) -> Result<Option<Option<String>>, DockerError> {
        match self.api.inspect_container(name, None::<InspectContainerOptions>).await {
            Ok(found) => {
                let labels = found.config.and_then(|config| config.labels);
                Ok(Some(labels.and_then(|mut labels| labels.remove(labels::CLUSTER))))
            }
            Err(error) => match DockerError::from(error) {
                DockerError::NotFound(_) => Ok(None),
                other => Err(other),
            },
        }
    }

    /// Whether the container with this id has this name; one that is gone has none.
    pub async fn is_called(&self, id: &str, name: &str) -> Result<bool, DockerError> {
        match self
            .api
            .inspect_container(name, None::<InspectContainerOptions>)
            .await
            .map_err(DockerError::from)
        {
            Ok(found) => Ok(found.id.as_deref() == Some(id)),
            Err(DockerError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Unpacks a tar archive into a container, started or not; what lies on its volumes lands there.
    pub async fn put_archive(&self, container: &str, path: &str, tar: Bytes) -> Result<(), DockerError> {
        let options = UploadToContainerOptions { path: path.to_owned(), ..Default::default() };
        let body = bollard::body_full(tar);
        Ok(self.api.upload_to_container(container, Some(options), body).await?)
    }

    /// The same, of an archive that streams.
    pub async fn put_stream(
        &self,
        container: &str,
        path: &str,
        tar: impl Stream<Item = Result<Bytes, std::io::Error>> + Send + 'static,
    ) -> Result<(), DockerError> {
        let options = UploadToContainerOptions { path: path.to_owned(), ..Default::default() };
        let body = bollard::body_try_stream(tar);
        Ok(self.api.upload_to_container(container, Some(options), body).await?)
    }

    /// A file or folder of a container, started or not, as a tar archive.
    pub async fn get_archive(&self, container: &str, path: &str) -> Result<Bytes, DockerError> {
        let options = DownloadFromContainerOptions { path: path.to_owned() };
        let parts: Vec<Bytes> =
            self.api.download_from_container(container, Some(options)).try_collect().await?;
        Ok(parts.concat().into())
    }

    /// The last lines a container wrote.
    pub async fn last_lines(&self, container: &str, lines: usize) -> Result<Vec<String>, DockerError> {
        let options =
            LogsOptions { stdout: true, stderr: true, tail: lines.to_string(), ..Default::default() };
        let parts: Vec<_> = self.api.logs(container, Some(options)).try_collect().await?;
        let text: Vec<u8> = parts.into_iter().flat_map(bollard::container::LogOutput::into_bytes).collect();
        let lines_of = String::from_utf8_lossy(&text).lines().map(ToOwned::to_owned).collect();
        Ok(lines_of)
    }

    /// Deaths of a cluster's containers since a moment, and from now on.
    pub fn deaths(
        &self,
        cluster: &str,
        since: Timestamp,
    ) -> impl Stream<Item = Result<Death, DockerError>> + '_ {
        let mut filters: HashMap<String, Vec<String>> = label_filter(Some(cluster));
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        filters.insert("event".to_owned(), vec!["die".to_owned()]);
        let since = format!("{}.{:09}", since.as_second(), since.subsec_nanosecond());
        let options = EventsOptions { filters: Some(filters), since: Some(since), ..Default::default() };
        self.api.events(Some(options)).map_err(DockerError::from).map_ok(|event| {
            let actor = event.actor.unwrap_or_default();
            let mut attributes = actor.attributes.unwrap_or_default();
            Death {
                id: actor.id.unwrap_or_default(),
                container: attributes.remove("name").unwrap_or_default(),
                exit_code: attributes.remove("exitCode").unwrap_or_default(),
            }
        })
    }
}

fn create_body(plan: &ContainerPlan) -> ContainerCreateBody {
    let ipam =
        plan.ip.map(|ip| EndpointIpamConfig { ipv4_address: Some(ip.to_string()), ..Default::default() });
    let endpoint = EndpointSettings { ipam_config: ipam, ..Default::default() };
    ContainerCreateBody {
        hostname: Some(plan.hostname.clone()),
        image: Some(plan.image.clone()),
        env: Some(plan.env.clone()),
        labels: Some(plan.labels.clone().into_iter().collect()),
        exposed_ports: Some(plan.publish.iter().map(port_key).collect()),
        host_config: Some(host_config(plan)),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(plan.network.clone(), endpoint)])),
        }),
        // A node drains its Pods first.
        stop_timeout: Some(match plan.role {
            LB => 2,
            REGISTRY => 6,
            _ => 30,
        }),
        ..Default::default()
    }
}

/// A port of a container as Docker writes it.
fn port_key(publish: &Publish) -> String {
    format!("{}/{}", publish.port, publish.protocol)
}

fn mounts(plan: &ContainerPlan) -> Vec<Mount> {
    let volumes = plan.volumes.iter().map(|volume| Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.name.clone()),
        target: Some(volume.target.to_owned()),
        read_only: Some(volume.shared),
        volume_options: Some(MountVolumeOptions {
            labels: Some(volume.labels.clone().into_iter().collect()),
            no_copy: Some(!volume.populate),
            ..Default::default()
        }),
        ..Default::default()
    });
    let folders = plan.mounts.iter().map(|mount| Mount {
        typ: Some(MountType::BIND),
        source: Some(mount.source.clone()),
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        ..Default::default()
    });
    volumes.chain(folders).collect()
}

fn host_config(plan: &ContainerPlan) -> HostConfig {
    let strings = |list: &[&str]| Some(list.iter().map(ToString::to_string).collect());
    let bindings = plan.publish.iter().map(|publish| {
        let (ip, port) = (publish.host_ip.to_string(), publish.host_port.to_string());
        (port_key(publish), Some(vec![PortBinding { host_ip: Some(ip), host_port: Some(port) }]))
    });
    let common = HostConfig {
        network_mode: Some(plan.network.clone()),
        port_bindings: Some(bindings.collect()),
        mounts: Some(mounts(plan)),
        cap_drop: strings(&["ALL"]),
        cap_add: Some(plan.capabilities.clone()),
        extra_hosts: Some(plan.extra_hosts.clone()),
        userns_mode: plan.host_users.then(|| "host".to_owned()),
        memory: plan.memory.and_then(|memory| i64::try_from(memory.0).ok()),
        // No swap beyond it: a node of this size has this much memory.
        memory_swap: plan.memory.and_then(|memory| i64::try_from(memory.0).ok()),
        nano_cpus: plan.cpus.map(|cpus| i64::from(cpus.0) * 1_000_000),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
            maximum_retry_count: None,
        }),
        ..Default::default()
    };
    if matches!(plan.role, LB | REGISTRY) {
        return HostConfig { security_opt: plan.selinux.then(|| vec!["label=disable".to_owned()]), ..common };
    }
    let mut security = vec!["seccomp=unconfined".to_owned(), "apparmor=unconfined".to_owned()];
    if plan.selinux {
        security.push("label=disable".to_owned());
    }
    HostConfig {
        // Programs are started from both: runtimes re-execute themselves from /run.
        tmpfs: Some(["/run", "/tmp"].map(|dir| (dir.to_owned(), "exec,mode=1777".to_owned())).into()),
        security_opt: Some(security),
        // What `--security-opt systempaths=unconfined` means on the wire: /proc and /sys as the kernel shows them.
        masked_paths: Some(Vec::new()),
        readonly_paths: Some(Vec::new()),
        device_cgroup_rules: strings(&["a *:* rwm"]),
        cgroupns_mode: Some(HostConfigCgroupnsModeEnum::PRIVATE),
        sysctls: Some(HashMap::from([("net.ipv4.ip_forward".to_owned(), "1".to_owned())])),
        ..common
    }
}

impl Container {
    /// The cluster a container belongs to.
    pub fn cluster(&self) -> &str {
        self.labels.get(labels::CLUSTER).map(String::as_str).unwrap_or_default()
    }

    /// The name that a node has in its cluster.
    pub fn node(&self) -> &str {
        self.labels.get(labels::NODE).unwrap_or(&self.name)
    }
}
