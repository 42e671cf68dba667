//! File events as a stream of wake-ups, and an honest message when the kernel's limits are used up.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// Why files cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error(
        "the kernel's limit of inotify instances is used up; raise it on the host: sysctl -w fs.inotify.max_user_instances=8192"
    )]
    Instances,
    #[error(
        "the kernel's limit of inotify watches is used up; raise it on the host: sysctl -w fs.inotify.max_user_watches=1048576"
    )]
    Watches,
    #[error("cannot watch {path}: {source}")]
    Other { path: String, source: std::io::Error },
}

struct Handle(Inotify);

impl AsRawFd for Handle {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_fd().as_raw_fd()
    }
}

/// What happened since the last change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Whoever wrote one of the files has closed it.
    pub closed: bool,
}

/// Wakes whenever something changes in the files or folders it was given.
pub struct Watcher {
    handle: AsyncFd<Handle>,
}

impl Watcher {
    /// A watcher of nothing yet.
    pub fn new() -> Result<Self, WatchError> {
        let other = |source| WatchError::Other { path: "inotify".into(), source };
        let inotify =
            Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map_err(|errno| match errno {
                Errno::EMFILE | Errno::ENFILE => WatchError::Instances,
                errno => other(errno.into()),
            })?;
        // SAFETY: the handle owns its descriptor and gives the same one until it is dropped.
        let handle = unsafe { AsyncFd::register(Handle(inotify)) };
        Ok(Self { handle: handle.map_err(|error| other(error.into()))? })
    }

    /// Adds a file or folder: writes, creations, deletions and renames wake.
    pub fn add(&self, path: &Path) -> Result<(), WatchError> {
        let flags = AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_DELETE_SELF;
        self.handle.get_ref().0.add_watch(path, flags).map(drop).map_err(|errno| match errno {
            Errno::ENOSPC => WatchError::Watches,
            errno => WatchError::Other { path: path.display().to_string(), source: errno.into() },
        })
    }

    /// Waits for the next change and forgets all that were reported until now.
    pub async fn changed(&self) -> std::io::Result<Changes> {
        loop {
            let mut ready = self.handle.readable().await?;
            let mut seen = false;
            let mut changes = Changes::default();
            loop {
                match self.handle.get_ref().0.read_events() {
                    Ok(events) => {
                        seen |= !events.is_empty();
                        let closed = |mask: AddWatchFlags| mask.contains(AddWatchFlags::IN_CLOSE_WRITE);
                        changes.closed |= events.iter().any(|event| closed(event.mask));
                    }
                    Err(Errno::EAGAIN) => break,
                    Err(errno) => return Err(errno.into()),
                }
            }
            ready.clear_ready();
            if seen {
                return Ok(changes);
            }
        }
    }
}

/// Tells whether an inotify instance can still be made; said at start, where a person reads it.
pub fn check_limits() -> Result<(), WatchError> {
    Watcher::new().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_write_wakes() {
        let dir = tempfile::tempdir().expect("folder");
        let file = dir.path().join("log");
        std::fs::write(&file, "a").expect("written");
        let watcher = Watcher::new().expect("inotify");
        watcher.add(&file).expect("added");
        std::fs::write(&file, "b").expect("written");
        let wakes = async || {
            let changed = tokio::time::timeout(std::time::Duration::from_secs(5), watcher.changed()).await;
            changed.expect("wakes").expect("readable")
        };
        assert!(wakes().await.closed);
        let mut open = std::fs::File::options().append(true).open(&file).expect("open");
        std::io::Write::write_all(&mut open, b"c").expect("written");
        assert!(!wakes().await.closed, "it is still written");
        drop(open);
        assert!(wakes().await.closed);
    }
}
