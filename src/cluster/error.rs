use std::path::PathBuf;
use std::time::Duration;

use super::docker::DockerError;
use super::node_image::ImageError;
use super::spec::SpecError;
use crate::config::kubeconfig::KubeconfigError;
use crate::pki::PkiError;

/// What can go wrong with a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error("cluster {0:?} already exists")]
    Exists(String),
    #[error("cluster {0:?} is being made by another command")]
    BeingMade(String),
    #[error("the Docker network {0:?} already exists and belongs to no cluster")]
    NetworkTaken(String),
    #[error("cluster {0:?} does not exist")]
    NoSuchCluster(String),
    #[error("cluster {0:?} has no running node")]
    NotRunning(String),
    #[error("every private address range is taken by a network of Docker or a route of this machine")]
    NoFreeSubnet,
    #[error("cannot find a free port on this machine: {0}")]
    NoFreePort(std::io::Error),
    #[error(transparent)]
    Docker(#[from] DockerError),
    #[error(transparent)]
    Image(#[from] ImageError),
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
    #[error("interrupted")]
    Interrupted,
    #[error("cannot read {path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    #[error("no image named {0:?} in Docker")]
    NoSuchImage(String),
    #[error("{0} is not an archive with an image in it")]
    NoImageInArchive(PathBuf),
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
            Self::NotRunning(name) => {
                format!("start its containers: docker start $(docker ps -aqf label=dev.minik.cluster={name})")
            }
            Self::NoFreeSubnet => "remove networks nobody uses: docker network prune".to_owned(),
            Self::NoSuchImage(name) => {
                format!("see what there is: docker images; build or pull {name} first")
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
        DockerError::Permission { .. } => {
            "run with sudo, or join the group: sudo usermod -aG docker $USER, then log in anew"
        }
        DockerError::Context(_) => "see what there is: docker context ls",
        _ => return None,
    };
    Some(hint.to_owned())
}
