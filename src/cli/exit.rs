//! Exit codes, and which error ends with which.

use std::process::ExitCode;

use cluster::backups::BackupError;
use cluster::{ClusterError, DockerError, ImageError};

/// What `minik --help` says about exit codes.
pub(super) const HELP: &str = "\
Exit codes:
  0    done
  1    failed
  2    wrong call: unknown option, bad name or number
  3    Docker cannot be reached, or may not be used
  4    no such cluster, node, image or file
  5    the name, or the port, is in use
  6    made, but not ready in time or a node died
  130  interrupted";

/// The exit codes of `minik`; scripts may rely on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Ok,
    /// Failed, for a reason that has no code of its own.
    Failure,
    /// Wrong call: unknown option, bad name or number.
    Usage,
    /// Docker cannot be reached, or may not be used.
    Docker,
    /// No such cluster, node, image or file.
    NotFound,
    /// The name, or the port, is in use.
    Exists,
    /// Made, but not ready in time, or a node died.
    NotReady,
    /// Interrupted by Ctrl-C or SIGTERM.
    Interrupted,
}

impl Exit {
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Docker => 3,
            Self::NotFound => 4,
            Self::Exists => 5,
            Self::NotReady => 6,
            Self::Interrupted => 130,
        }
    }

    /// The code for an error that a command ended with.
    pub(super) fn of(error: &anyhow::Error) -> Self {
        match error.downcast_ref::<ClusterError>() {
            Some(error) => Self::of_cluster(error.root()),
            None => Self::Failure,
        }
    }

    fn of_cluster(error: &ClusterError) -> Self {
        match error {
            ClusterError::Spec(_)
            | ClusterError::OtherSnapshot { .. }
            | ClusterError::SeveralServers { .. }
            | ClusterError::ServerNode(_)
            | ClusterError::Backup(BackupError::Foreign(_))
            | ClusterError::BadFile { .. } => Self::Usage,
            ClusterError::Exists(_)
            | ClusterError::BeingMade(_)
            | ClusterError::NetworkTaken(_)
            | ClusterError::ContainerTaken(_)
            | ClusterError::RegistryExists(_)
            | ClusterError::SnapshotExists(_)
            | ClusterError::Backup(BackupError::Exists(_))
            | ClusterError::PortTaken(_) => Self::Exists,
            ClusterError::NoSuchCluster(_)
            | ClusterError::NoSuchNode { .. }
            | ClusterError::NoServer(_)
            | ClusterError::NoSuchNetwork(_)
            | ClusterError::NoSuchRegistry(_)
            | ClusterError::NoSuchSnapshot(_)
            | ClusterError::Backup(BackupError::NoSuch(_))
            | ClusterError::NoContext(_)
            | ClusterError::NoSuchImage(_)
            | ClusterError::Image(ImageError::Missing(_)) => Self::NotFound,
            ClusterError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                Self::NotFound
            }
            ClusterError::Docker(error) | ClusterError::Image(ImageError::Docker(error)) => {
                Self::of_docker(error)
            }
            ClusterError::NotReady { .. } | ClusterError::NodeDied { .. } => Self::NotReady,
            ClusterError::Interrupted => Self::Interrupted,
            _ => Self::Failure,
        }
    }

    fn of_docker(error: &DockerError) -> Self {
        match error {
            DockerError::Unreachable { .. }
            | DockerError::Lost(_)
            | DockerError::Permission { .. }
            | DockerError::Context(_) => Self::Docker,
            _ => Self::Failure,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_do_not_hide_the_code() {
        let cause = Box::new(ClusterError::NoSuchImage("x".to_owned()));
        let error = anyhow::Error::new(ClusterError::Phase { phase: "p".to_owned(), cause });
        assert_eq!(Exit::of(&error), Exit::NotFound);
        assert_eq!(Exit::of(&anyhow::anyhow!("anything")), Exit::Failure);
    }

    #[test]
    fn the_help_names_every_code() {
        for exit in [
            Exit::Ok,
            Exit::Failure,
            Exit::Usage,
            Exit::Docker,
            Exit::NotFound,
            Exit::Exists,
            Exit::NotReady,
            Exit::Interrupted,
        ] {
            assert!(HELP.contains(&format!("\n  {:<3}  ", exit.code())), "{exit:?}");
        }
    }
}
