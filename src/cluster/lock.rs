//! One command at a time makes or changes a cluster.

use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::ClusterError;
use super::spec::ClusterName;

/// Held while a command works on a cluster. The file goes with it.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    /// Closed, and so unlocked, only after the file has gone.
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // One that stays is taken by the next command.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Keeps a second command that makes or changes the same cluster away while this one runs: each would take the other's
/// containers for its own when it fails. Where no lock file can be made Docker's own check of names has to do. Fails
/// when another command has it.
pub(super) fn lock(cluster: &ClusterName) -> Result<Option<Lock>, ClusterError> {
    let dir = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    match take(&dir.join(format!("minik-{cluster}.lock"))) {
        Ok(lock) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Err(ClusterError::BeingMade(cluster.to_string())),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

fn take(path: &Path) -> Result<Lock, TryLockError> {
    loop {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(TryLockError::Error)?;
        file.try_lock()?;
        // Whoever had it before may have removed it between the two: then this is no longer the file of that name.
        let is = |a: Metadata, b: Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        let own = file.metadata().map_err(TryLockError::Error)?;
        if std::fs::metadata(path).is_ok_and(|there| is(own, there)) {
            return Ok(Lock { path: path.to_owned(), _file: file });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn one_holds_it_and_nothing_stays() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("minik-a.lock");
        let first = take(&path).expect("free");
        assert!(matches!(take(&path), Err(TryLockError::WouldBlock)));
        drop(first);
        assert!(!path.exists());
        drop(take(&path).expect("free again"));
        assert!(matches!(take(&dir.path().join("no/such.lock")), Err(TryLockError::Error(_))));
    }

    #[test]
    fn never_two_hold_it_while_it_comes_and_goes() {
        let dir = tempfile::tempdir().expect("folder");
        let path = dir.path().join("lock");
        let (inside, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while taken.load(Ordering::SeqCst) < 2000 {
                        let Ok(lock) = take(&path) else { continue };
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        taken.fetch_add(1, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }
}
