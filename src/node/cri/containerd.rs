//! containerd as a child of the agent: its configuration, its start, and its restart with back-off when it dies.
//!
//! ```text
//! configure -> start -> answering --dies--> back-off -> start
//!                           \--stop token--> SIGTERM, bounded wait
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use super::Runtime;
use rt::Tasks;
use sys::exec::{Daemon, ExecError, Invocation, log_tail};
use sys::inotify::{WatchError, Watcher};
use sys::supervise::{self, Program};

/// Where things are on a node.
#[derive(Clone, Debug)]
pub struct ContainerdOptions {
    pub program: PathBuf,
    /// Its persistent state: must be on a volume, never on an overlay.
    pub root: PathBuf,
    pub socket: PathBuf,
    pub config: PathBuf,
    pub log: PathBuf,
    /// The image every sandbox is made of; it must be in the store already.
    pub pause_image: String,
}

impl Default for ContainerdOptions {
    fn default() -> Self {
        Self {
            program: "/usr/bin/containerd".into(),
            root: "/var/lib/containerd".into(),
            socket: "/run/containerd/containerd.sock".into(),
            config: "/etc/containerd/config.toml".into(),
            log: "/var/log/containerd.log".into(),
            pause_image: PAUSE_IMAGE.into(),
        }
    }
}

impl ContainerdOptions {
    /// Where the number of its process is written down.
    fn note(&self) -> PathBuf {
        self.socket.with_extension("pid")
    }
}

/// The sandbox image's name, the one kubeadm's release for this API level uses.
pub const PAUSE_IMAGE: &str = "registry.k8s.io/pause:3.10";

/// Why there is no runtime.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    #[error("cannot write {path}: {source}")]
    Write { path: String, source: io::Error },
    #[error(transparent)]
    Start(#[from] ExecError),
    #[error(transparent)]
    Watch(#[from] WatchError),
    #[error("containerd did not answer on {socket} within {bound:?}; its log ends with:\n{log}")]
    Silent { socket: String, bound: Duration, log: String },
}

const TEMPLATE: &str = include_str!("../../../templates/containerd.toml");
/// Time to the first answer; it boots in well under a second, a cold and busy disk may need more.
const BOOT: Duration = Duration::from_secs(60);

/// The configuration file for this machine.
pub fn render(options: &ContainerdOptions, snapshotter: &str, restrict_oom: bool) -> String {
    TEMPLATE
        .replace("@ROOT@", &options.root.display().to_string())
        .replace("@SOCKET@", &options.socket.display().to_string())
        .replace("@PAUSE@", &options.pause_image)
        .replace("@SNAPSHOTTER@", snapshotter)
        .replace("@RESTRICT_OOM@", if restrict_oom { "true" } else { "false" })
}

/// Starts containerd and keeps it running until the tasks stop. Returns when its socket answers.
/// The receiver tells whether it is up at the moment.
pub async fn supervise(
    options: ContainerdOptions,
    tasks: &Tasks,
) -> Result<(Runtime, watch::Receiver<bool>), ContainerdError> {
    configure(&options)?;
    // This program may have been killed: its containers live on under their shims, and the next containerd finds them.
    let program = options.program.display().to_string();
    Daemon::end_leftover(&options.note(), &program, Containerd::STOP).await;
    let _ = fs::remove_file(&options.socket);
    let runtime = Runtime::new(&options.socket);
    let (up, watch_up) = watch::channel(true);
    let containerd = Containerd { options, runtime: runtime.clone(), up };
    let daemon = containerd.start().await?;
    let stop = tasks.stop();
    tasks.spawn(supervise::keep(containerd, daemon, stop));
    Ok((runtime, watch_up))
}

fn configure(options: &ContainerdOptions) -> Result<(), ContainerdError> {
    let write = |path: &Path, source| ContainerdError::Write { path: path.display().to_string(), source };
    for dir in [&options.config, &options.socket, &options.log].into_iter().filter_map(|file| file.parent()) {
        fs::create_dir_all(dir).map_err(|source| write(dir, source))?;
    }
    for dir in [options.root.as_path(), Path::new("/etc/containerd/certs.d"), Path::new("/etc/cni/net.d")] {
        fs::create_dir_all(dir).map_err(|source| write(dir, source))?;
    }
    let text = render(options, snapshotter(&options.root), !may_raise_priority());
    fs::write(&options.config, text).map_err(|source| write(&options.config, source))
}

fn spawn(options: &ContainerdOptions) -> Result<Daemon, ContainerdError> {
    let program = options.program.display().to_string();
    let config = options.config.display().to_string();
    let invocation = Invocation::new(&program, ["--config", &config, "--log-level", "warn"]);
    let daemon = Daemon::start(&invocation, &options.log)?;
    let note = options.note();
    daemon
        .note(&note)
        .map_err(|source| ContainerdError::Write { path: note.display().to_string(), source })?;
    Ok(daemon)
}

/// Waits for the socket to appear (by event, not by looking again) and for an answer on it.
async fn answer(options: &ContainerdOptions, runtime: &Runtime) -> Result<(), ContainerdError> {
    let watcher = Watcher::new()?;
    if let Some(dir) = options.socket.parent() {
        watcher.add(dir)?;
    }
    let answered = async {
        while runtime.version().await.is_err() {
            // The socket file appears before it is listened on; a short timer covers that gap.
            let _ = tokio::time::timeout(Duration::from_millis(20), watcher.changed()).await;
        }
    };
    tokio::time::timeout(BOOT, answered).await.map_err(|_| ContainerdError::Silent {
        socket: options.socket.display().to_string(),
        bound: BOOT,
        log: log_tail(&options.log, 10),
    })
}

struct Containerd {
    options: ContainerdOptions,
    runtime: Runtime,
    up: watch::Sender<bool>,
}

impl Program for Containerd {
    const NAME: &'static str = "containerd";
    const STOP: Duration = Duration::from_secs(10);
    type Error = ContainerdError;

    fn log(&self) -> &Path {
        &self.options.log
    }

    async fn start(&self) -> Result<Daemon, ContainerdError> {
        let daemon = spawn(&self.options)?;
        answer(&self.options, &self.runtime).await?;
        Ok(daemon)
    }

    fn serves(&self, serves: bool) {
        self.up.send_replace(serves);
    }
}

/// Overlay where the state's file system allows it, plain copies where it does not (overlay itself, some network
/// and fuse file systems).
fn snapshotter(root: &Path) -> &'static str {
    if overlay_works(root) {
        return "overlayfs";
    }
    tracing::warn!(root = %root.display(), "overlay mounts do not work here; images are copied instead");
    "native"
}

fn overlay_works(root: &Path) -> bool {
    let base = root.join(".overlay-check");
    let result = (|| {
        for dir in ["lower", "upper", "work", "merged"] {
            fs::create_dir_all(base.join(dir))?;
        }
        let path = |dir: &str| base.join(dir).display().to_string();
        let options =
            format!("lowerdir={},upperdir={},workdir={}", path("lower"), path("upper"), path("work"));
        nix::mount::mount(
            Some("overlay"),
            &base.join("merged"),
            Some("overlay"),
            nix::mount::MsFlags::empty(),
            Some(options.as_str()),
        )?;
        nix::mount::umount(&base.join("merged"))?;
        io::Result::Ok(())
    })();
    let _ = fs::remove_dir_all(&base);
    result.is_ok()
}

/// CAP_SYS_RESOURCE: without it nobody may lower an oom_score_adj; in a user namespace (a rootless engine) it is shown, and
/// means nothing to the kernel there.
fn may_raise_priority() -> bool {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    may_raise(&read("/proc/self/status"), &read("/proc/self/uid_map"))
}

fn may_raise(status: &str, uid_map: &str) -> bool {
    const CAP_SYS_RESOURCE: u32 = 24;
    let capable = effective(status).is_some_and(|mask| mask & (1 << CAP_SYS_RESOURCE) != 0);
    capable && !is_user_namespace(uid_map)
}

/// Whether users are mapped: outside of any user namespace all of them are themselves.
fn is_user_namespace(uid_map: &str) -> bool {
    let all = u32::MAX.to_string();
    !uid_map.is_empty() && uid_map.split_whitespace().ne(["0", "0", all.as_str()])
}

fn effective(status: &str) -> Option<u64> {
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_complete() {
        let text = render(&ContainerdOptions::default(), "overlayfs", true);
        assert!(!text.contains('@'), "every placeholder is filled: {text}");
        assert!(text.contains("restrict_oom_score_adj = true"));
        assert!(text.contains("sandbox_image = \"registry.k8s.io/pause:3.10\""));
    }

    #[test]
    fn reads_effective_capabilities() {
        assert_eq!(effective("Name:\tx\nCapEff:\t000001fffeffffff\n"), Some(0x1ff_feff_ffff));
    }

    #[test]
    fn in_a_user_namespace_capabilities_do_not_count() {
        let (all, less) = ("CapEff:\t000001ffffffffff\n", "CapEff:\t000001fffeffffff\n");
        let check =
            |status: &str, map: &str, expect: bool| assert_eq!(may_raise(status, map), expect, "{map}");
        check(all, "         0          0 4294967295\n", true);
        check(less, "         0          0 4294967295\n", false);
        check(all, "         0     100000      65536\n", false);
        check(all, "         0       1000          1\n         1     100000      65536\n", false);
        check(all, "", true);
    }
}
