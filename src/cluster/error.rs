//! What can go wrong with a cluster, and what a person can do about it.

use std::path::PathBuf;
use std::time::Duration;

use super::backups::BackupError;
use super::docker::DockerError;
use super::file::FileError;
use super::images::ArchiveError;
use super::node_image::ImageError;
use super::spec::SpecError;
use config::kubeconfig::KubeconfigError;
use pki::PkiError;

/// What can go wrong with a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("cluster {0:?} already exists")]
    Exists(String),
    #[error("cluster {0:?} is being made or changed by another command")]
    BeingMade(String),
    #[error("the Docker network {0:?} already exists and belongs to no cluster")]
    NetworkTaken(String),
    #[error("cluster {0:?} does not exist")]
    NoSuchCluster(String),
    #[error("the server of cluster {0:?} is gone: what is left cannot be completed")]
    NoServer(String),
    #[error("cluster {0:?} was made by a version of minik that did not store its specification")]
    NoRecord(String),
    #[error("the specification stored with cluster {cluster:?} is unreadable: {why}")]
    BadRecord { cluster: String, why: String },
    #[error("cluster {cluster:?} has no node {node:?}")]
    NoSuchNode { cluster: String, node: String },
    #[error("node {0:?} is the last that runs the control plane: it goes with its cluster")]
    ServerNode(String),
    #[error("{name}: {why}")]
    Manifest { name: String, why: String },
    #[error("{0}")]
    Login(String),
    #[error("snapshot {0:?} does not exist")]
    NoSuchSnapshot(String),
    #[error("snapshot {0:?} already exists")]
    SnapshotExists(String),
    #[error("snapshot {name:?} cannot be read: {why}")]
    BadSnapshot { name: String, why: String },
    #[error("snapshot {name:?} is of cluster {of:?}")]
    OtherSnapshot { name: String, of: String },
    #[error(
        "snapshot {name:?} is of a cluster with several servers, whose etcd knows them by their addresses: no other cluster can have them"
    )]
    SeveralServers { name: String, of: String },
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("volumes could not be copied: {0}")]
    Copy(String),
    #[error("there is no Docker network {0:?}")]
    NoSuchNetwork(String),
    #[error("registry {0:?} does not exist")]
    NoSuchRegistry(String),
    #[error("registry {0:?} exists already, with another port")]
    RegistryExists(String),
    #[error("node {0:?} does not run")]
    NodeStopped(String),
    #[error("node {node}: {why}")]
    Fault { node: String, why: String },
    #[error("a container named {0:?} exists and does not belong to the cluster")]
    ContainerTaken(String),
    #[error("host port {0} is taken by another program")]
    PortTaken(u16),
    #[error("cluster {0:?} is in no kubeconfig")]
    NoContext(String),
    #[error("cluster {0:?} has no running node")]
    NotRunning(String),
    #[error("every private address range is taken by a network of Docker or a route of this machine")]
    NoFreeSubnet,
    /// The engine cannot hold a node.
    #[error("{why}")]
    Unfit { why: String, hint: String },
    #[error("cannot find a free port on this machine: {0}")]
    NoFreePort(std::io::Error),
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error(transparent)]
    Image(ImageError),
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    #[error("cannot speak to the API server: {0}")]
    Client(String),
    #[error("node {node} ended with exit code {exit_code}")]
    NodeDied { node: String, exit_code: String, log: Vec<String> },
    #[error("not ready after {}: {}", seconds(*after), waiting.join("; "))]
    NotReady { after: Duration, waiting: Vec<String>, log: Option<(String, Vec<String>)> },
    #[error(transparent)]
    Exec(#[from] sys::exec::ExecError),
    #[error("interrupted")]
    Interrupted,
    #[error("cannot read {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("{}: {why}", path.display())]
    BadFile { path: PathBuf, why: FileError },
    #[error("no image named {0:?} in Docker")]
    NoSuchImage(String),
    #[error("{archive}: {why}")]
    Archive { archive: String, why: ArchiveError },
    #[error("image {image} did not arrive on {}", failures.iter().map(|(n, why)| format!("{n} ({why})")).collect::<Vec<_>>().join(", "))]
    Load { image: String, failures: Vec<(String, String)> },
    /// What went wrong, and in which phase.
    #[error("phase {phase:?}: {cause}")]
    Phase { phase: String, cause: Box<ClusterError> },
    #[error("cluster {name:?} was not removed completely: {}", left.join("; "))]
    Left { name: String, left: Vec<String> },
}

fn seconds(time: Duration) -> String {
    format!("{:.0} s", time.as_secs_f64())
}

impl From<ImageError> for ClusterError {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Interrupted => Self::Interrupted,
            other => Self::Image(other),
        }
    }
}

impl ClusterError {
    /// The error itself, without the phase around it.
    pub fn root(&self) -> &Self {
        match self {
            Self::Phase { cause, .. } => cause.root(),
            other => other,
        }
    }

    /// The last lines of the container that is to blame, with its name.
    pub fn log(&self) -> Option<(&str, &[String])> {
        match self.root() {
            Self::NodeDied { node, log, .. } => Some((node, log)),
            Self::NotReady { log: Some((node, log)), .. } => Some((node, log)),
            _ => None,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self.root() {
            Self::Exists(name) => format!("choose another name, or remove it: minik cluster delete {name}"),
            Self::NetworkTaken(name) => format!("remove it: docker network rm {name}"),
            Self::NoSuchCluster(_) => "see what there is: minik cluster list".to_owned(),
            Self::NoContext(name) => format!("put it in: minik kubeconfig merge {name}"),
            Self::NotRunning(name) => format!("start it: minik cluster start {name}"),
            Self::NoSuchNetwork(_) => "see what there is: docker network ls".to_owned(),
            Self::NoSuchRegistry(_) => "see what there is: minik registry list".to_owned(),
            Self::RegistryExists(name) => {
                format!(
                    "see it: minik registry list; or remove it with its images: minik registry delete {name}"
                )
            }
            Self::NoSuchSnapshot(_) => "see what there is: minik snapshot list".to_owned(),
            Self::SnapshotExists(name) => {
                format!("choose another name, or remove it: minik snapshot delete {name}")
            }
            Self::OtherSnapshot { name, .. } => {
                format!("make a new cluster from it: minik snapshot restore {name} --cluster NEW")
            }
            Self::SeveralServers { name, of } => {
                format!("put the cluster itself back to it: minik cluster reset {of} --to {name}")
            }
            Self::Backup(BackupError::NoSuch(_)) => "see what there is: minik backup list".to_owned(),
            Self::Backup(BackupError::Exists(name)) => {
                format!("choose another name, or remove it: minik backup delete {name}")
            }
            Self::Backup(BackupError::Foreign(_)) => {
                "put it back with that etcd's own tools, or into a new cluster: --cluster NEW".to_owned()
            }
            Self::NodeStopped(name) => format!("start it: minik node start {name}"),
            Self::NoServer(name) | Self::NoRecord(name) | Self::BadRecord { cluster: name, .. } => {
                format!("remove it and make it anew: minik cluster delete {name}")
            }
            Self::NoSuchNode { cluster, .. } => {
                format!("see what there is: minik node list --cluster {cluster}")
            }
            Self::ContainerTaken(name) => {
                format!("look at it: docker inspect {name}; remove it: docker rm -f {name}")
            }
            Self::PortTaken(port) => {
                format!("see who has it: ss -ltnp 'sport = :{port}'; or choose another port")
            }
            Self::Unfit { hint, .. } => hint.clone(),
            Self::BadFile { .. } => {
                "see what is possible: minik config schema; or begin with: minik config init".to_owned()
            }
            Self::NoFreeSubnet => "remove networks nobody uses: docker network prune".to_owned(),
            Self::NoSuchImage(name) => {
                format!("see what there is: docker images; build or pull {name} first")
            }
            // The classic builder of an engine with userns-remap cannot copy from one stage to the next.
            Self::Image(ImageError::Build(error)) if error.to_string().contains("cannot be mapped to a host ID") => {
                "this engine maps users (userns-remap) and cannot build it; make it on another: minik image node save \
                 FILE, then here: minik image node load FILE"
                    .to_owned()
            }
            Self::Docker(error) | Self::Image(ImageError::Docker(error) | ImageError::Build(error)) => {
                return docker_hint(error);
            }
            Self::Image(ImageError::NoBase(_)) => "apt-get install mmdebstrap".to_owned(),
            Self::Image(ImageError::Missing(_)) => {
                "leave --image out: minik makes the node image itself".to_owned()
            }
            Self::NotReady { .. } | Self::NodeDied { .. } => {
                "keep the containers to look into them: --no-rollback, then docker logs <node>".to_owned()
            }
            Self::Left { name, .. } => format!("try again: minik cluster delete {name}"),
            _ => return None,
        };
        Some(hint)
    }
}

fn docker_hint(error: &DockerError) -> Option<String> {
    let hint = match error {
        DockerError::Unreachable { .. } => {
            "is Docker installed and running? On Debian: scripts/quickstart installs and starts it; or set DOCKER_HOST"
        }
        DockerError::Lost(_) => {
            "was the engine restarted? See what there is now: minik cluster list; on Debian: systemctl status docker"
        }
        DockerError::Permission { .. } => {
            "run with sudo, or join the group: sudo usermod -aG docker $USER, then log in anew"
        }
        DockerError::Context(_) => "see what there is: docker context ls",
        _ => return None,
    };
    Some(hint.to_owned())
}
