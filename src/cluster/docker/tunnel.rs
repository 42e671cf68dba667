//! The way to an engine on another machine: the user's own `ssh`, with the user's own settings and keys.

use std::path::{Path, PathBuf};

use super::{DockerError, endpoint};
use sys::exec::{Daemon, Invocation};
use sys::inotify::Watcher;

/// A forwarded socket, and the `ssh` that forwards it; gone when dropped.
pub(super) struct Tunnel {
    dir: tempfile::TempDir,
    _ssh: Daemon,
}

const SOCKET: &str = "docker.sock";

impl Tunnel {
    /// Starts `ssh` and waits until the socket is there. Fails with what `ssh` said when it ended instead.
    pub(super) async fn open(host: &str) -> Result<Self, DockerError> {
        let failed = |reason: String| DockerError::Unreachable { endpoint: host.to_owned(), reason };
        let io = |error: std::io::Error| failed(error.to_string());
        let dir = tempfile::Builder::new().prefix("minik-ssh-").tempdir().map_err(io)?;
        let socket = dir.path().join(SOCKET);
        let words = endpoint::tunnel(host, &socket)
            .ok_or_else(|| failed("ssh://[USER@]HOST[:PORT] is expected".to_owned()))?;
        let watcher = Watcher::new().map_err(|error| failed(error.to_string()))?;
        watcher.add(dir.path()).map_err(|error| failed(error.to_string()))?;
        let log = dir.path().join("log");
        let invocation = Invocation::new("ssh", words.iter().map(String::as_str));
        let mut ssh = Daemon::start(&invocation, &log).map_err(|error| failed(error.to_string()))?;
        while !socket.exists() {
            tokio::select! {
                changed = watcher.changed() => drop(changed.map_err(io)?),
                _ = ssh.wait() => return Err(failed(said(&log))),
            }
        }
        Ok(Self { dir, _ssh: ssh })
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.dir.path().join(SOCKET)
    }
}

fn said(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.trim().lines().last().unwrap_or("ssh ended and said nothing").to_owned()
}
