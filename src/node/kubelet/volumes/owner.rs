//! fsGroup ownership of volumes.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::Pod;

use super::prepare::{VolumeError, at, blocking};
use crate::kubelet::spec;

/// Gives everything in a volume to the Pod's fsGroup, by its fsGroupChangePolicy: always, or only when the volume's
/// own folder is not the group's yet. Where the volume's path is a link (local volumes may be), that is what it leads to.
///
/// Fails when a file cannot be given away.
pub async fn give(path: PathBuf, group: Option<u32>, pod: &Pod) -> Result<(), VolumeError> {
    let Some(group) = group else { return Ok(()) };
    let security = spec(pod).security_context.as_ref();
    let policy = security.and_then(|security| security.fs_group_change_policy.clone());
    // A volume may hold many files.
    blocking(move || {
        let path = path.canonicalize().map_err(at(&path))?;
        if policy.as_deref() == Some("OnRootMismatch") && is_given(&path, group).map_err(at(&path))? {
            return Ok(());
        }
        walk(&path, group).map_err(at(&path))
    })
    .await
}

fn is_given(path: &Path, group: u32) -> io::Result<bool> {
    let metadata = fs::metadata(path)?;
    Ok(metadata.gid() == group && metadata.mode() & 0o2070 == 0o2070)
}

/// Links are given away themselves, never what they point to.
fn walk(path: &Path, group: u32) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let more = if metadata.is_dir() { 0o2070 } else { 0o060 | (metadata.mode() & 0o100) >> 3 };
    fs::set_permissions(path, fs::Permissions::from_mode(metadata.mode() & 0o7777 | more))?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            walk(&entry?.path(), group)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_inside_becomes_the_group_s() {
        let dir = tempfile::tempdir().expect("folder");
        fs::create_dir(dir.path().join("sub")).expect("folder");
        fs::write(dir.path().join("sub/file"), "x").expect("file");
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("out")).expect("link");
        // The group the test runs as: giving to another one needs root.
        let group = fs::metadata(dir.path()).expect("metadata").gid();
        assert!(!is_given(dir.path(), group).expect("read"));
        walk(dir.path(), group).expect("given");
        assert!(is_given(dir.path(), group).expect("read"));
        assert_eq!(fs::metadata(dir.path().join("sub/file")).expect("metadata").mode() & 0o060, 0o060);
    }

    #[tokio::test]
    async fn a_volume_behind_a_link_is_given_itself() {
        let dir = tempfile::tempdir().expect("folder");
        let (behind, link) = (dir.path().join("behind"), dir.path().join("link"));
        fs::create_dir(&behind).expect("folder");
        std::os::unix::fs::symlink(&behind, &link).expect("link");
        let group = fs::metadata(&behind).expect("metadata").gid();
        give(link, Some(group), &Pod::default()).await.expect("given");
        assert!(is_given(&behind, group).expect("read"));
    }
}
