//! One command at a time makes or changes a cluster.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::PathBuf;

use super::ClusterError;
use super::spec::ClusterName;

/// Keeps a second command that makes or changes the same cluster away while this one runs: each would take the other's
/// containers for its own when it fails. Where no lock file can be made Docker's own check of names has to do. Fails
/// when another command has it.
pub(super) fn lock(cluster: &ClusterName) -> Result<Option<File>, ClusterError> {
    let dir = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let path = dir.join(format!("minik-{cluster}.lock"));
    let Ok(file) = OpenOptions::new().create(true).truncate(false).write(true).open(path) else {
        return Ok(None);
    };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(ClusterError::BeingMade(cluster.to_string())),
        _ => Ok(Some(file)),
    }
}
