//! NFS volumes.

use std::net::IpAddr;
use std::path::Path;

use super::prepare::{VolumeError, at};
use sys::mounts;

/// Mounts what an NFS server exports at `target`, unless it is mounted there already.
///
/// Fails when the server's name is unknown, when it refuses, or when this machine's kernel has no NFS client.
pub async fn mount(target: &Path, server: &str, path: &str, read_only: bool) -> Result<(), VolumeError> {
    std::fs::create_dir_all(target).map_err(at(target))?;
    if mounts::is_mounted(target) {
        return Ok(());
    }
    let unknown = |why: String| VolumeError::Claim(format!("the NFS server {server:?} is not found: {why}"));
    let address = match server.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => {
            let mut found =
                tokio::net::lookup_host((server, 2049)).await.map_err(|error| unknown(error.to_string()))?;
            found.next().ok_or_else(|| unknown("it has no address".to_owned()))?.ip()
        }
    };
    let (target, source) = (target.to_owned(), format!("{server}:{path}"));
    // A server that does not answer holds the calling thread up.
    let mounted = tokio::task::spawn_blocking(move || mounts::nfs(&source, &target, address, read_only));
    mounted.await.map_err(|error| VolumeError::Claim(error.to_string()))?.map_err(VolumeError::Mount)
}
