//! Network namespaces by the files that hold them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

use nix::sched::{CloneFlags, setns};

/// A network namespace, held open.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// The namespace that a file holds. Fails when there is none.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { file: File::open(path)? })
    }

    /// Runs `work` in this namespace: sockets that it opens stay there. The calling thread is back where it was when this
    /// returns; do not wait for anything in `work`.
    ///
    /// Fails when this process may not enter it.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let home = Self::open(Path::new("/proc/thread-self/ns/net"))?;
        setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
        let result = work();
        setns(home.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
        Ok(result)
    }
}

impl AsRawFd for Namespace {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
