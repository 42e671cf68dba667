//! Images as volumes: what is in an image, for reading only.
//!
//! ```text
//! image on the node -> its layers unpacked, as for a container -> a view of the topmost -> mounted
//! Pod gone: unmounted -> the view is removed
//! ```

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::prepare::{Mounted, VolumeError, at, blocking};
use crate::cri::api::Image;
use crate::cri::{Containerd, Runtime, RuntimeError, messages};
use sys::mounts;

/// The folder of a Pod's image volumes, within the Pod's own.
const FOLDER: &str = "volumes/kubernetes.io~image";
/// What the runtime's folder of snapshots is called, before the snapshotter's name.
const SNAPSHOTS: &str = "io.containerd.snapshotter.v1.";

#[derive(Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: i64,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    os: String,
    architecture: String,
}

/// A manifest, or a list of those for several platforms.
#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

fn wrong(why: impl std::fmt::Display) -> VolumeError {
    VolumeError::Claim(format!("cannot mount the image: {why}"))
}

/// The runtime's stores, as far as images are mounted from them.
struct Store {
    containerd: Containerd,
    snapshotter: String,
}

impl Store {
    async fn of(runtime: &Runtime) -> Result<Self, RuntimeError> {
        let places = runtime.image_filesystems().await?;
        let names = places.into_iter().filter_map(|place| place.fs_id).map(|id| id.mountpoint);
        let mut found = names.filter_map(|path| Some(path.rsplit_once(SNAPSHOTS)?.1.to_owned()));
        let snapshotter = found.next().unwrap_or_else(|| "overlayfs".to_owned());
        Ok(Self { containerd: Containerd::new(runtime.socket()), snapshotter })
    }

    /// The manifest of an image for this machine.
    async fn manifest(&self, image: &Image) -> Result<Manifest, VolumeError> {
        let mut digest = None;
        for name in image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]) {
            if let Some(found) = self.containerd.image(name).await.map_err(wrong)? {
                digest = found.target.map(|target| target.digest);
                break;
            }
        }
        let digest = digest.ok_or_else(|| wrong("the runtime does not know it by name"))?;
        let manifest: Manifest = self.json(&digest).await?;
        match here(&manifest.manifests) {
            Some(own) => self.json(&own.digest).await,
            None => Ok(manifest),
        }
    }

    async fn json<T: for<'a> Deserialize<'a>>(&self, digest: &str) -> Result<T, VolumeError> {
        let bytes = self.containerd.read(digest).await.map_err(wrong)?;
        serde_json::from_slice(&bytes).map_err(|error| wrong(format!("{digest}: {error}")))
    }

    /// Makes sure that every layer is unpacked; the name of the topmost one's snapshot.
    async fn unpack(&self, image: &Image, lease: &str) -> Result<String, VolumeError> {
        let manifest = self.manifest(image).await?;
        let config = manifest.config.ok_or_else(|| wrong("its manifest names no configuration"))?;
        let config: Config = self.json(&config.digest).await?;
        let chain = chain(&config.rootfs.diff_ids);
        let top = chain.last().cloned().ok_or_else(|| wrong("it has no layers"))?;
        if chain.len() != manifest.layers.len() {
            return Err(wrong("its manifest and its configuration have different numbers of layers"));
        }
        let mut there = chain.len();
        while there > 0
            && !self.containerd.has_snapshot(&self.snapshotter, &chain[there - 1]).await.map_err(wrong)?
        {
            there -= 1;
        }
        for (index, layer) in manifest.layers.into_iter().enumerate().skip(there) {
            let parent = index.checked_sub(1).map_or("", |below| chain[below].as_str());
            let Descriptor { media_type, digest, size, .. } = layer;
            let layer = messages::Descriptor { media_type, digest, size };
            let unpacked =
                self.containerd.unpack(&self.snapshotter, layer, parent, &chain[index], lease).await;
            unpacked.map_err(wrong)?;
        }
        Ok(top)
    }
}

/// Of the manifests of several platforms the one for this machine.
fn here(all: &[Descriptor]) -> Option<&Descriptor> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let own = |platform: &Platform| platform.os == "linux" && platform.architecture == architecture;
    all.iter().find(|one| one.platform.as_ref().is_some_and(own)).or_else(|| all.first())
}

/// The names of the snapshots of layers, each standing for all below it.
fn chain(diff_ids: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for id in diff_ids {
        names.push(match names.last() {
            None => id.clone(),
            Some(below) => {
                let text = format!("{below} {id}");
                let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
                format!("sha256:{}", hex::encode(digest))
            }
        });
    }
    names
}

fn key(pod: &Path, volume: &str) -> String {
    let uid = pod.file_name().unwrap_or_default().to_string_lossy();
    format!("minik-volume-{uid}-{volume}")
}

/// Mounts an image that is on this node as a volume of the Pod whose folder is `pod`.
///
/// # Errors
///
/// When the runtime does not have all of the image, or cannot unpack it, or the mount fails.
pub async fn mount(
    runtime: &Runtime,
    image: &Image,
    pod: &Path,
    volume: &str,
) -> Result<Mounted, VolumeError> {
    let target = pod.join(FOLDER).join(volume);
    let mounted = Mounted { path: target.clone(), read_only: true, republish: false };
    std::fs::create_dir_all(&target).map_err(at(&target))?;
    if mounts::is_mounted(&target) {
        return Ok(mounted);
    }
    let store = Store::of(runtime).await.map_err(wrong)?;
    let lease = format!("minik-{}", uuid::Uuid::new_v4());
    store.containerd.begin_lease(&lease).await.map_err(wrong)?;
    let viewed = async {
        let top = store.unpack(image, &lease).await?;
        store.containerd.view(&store.snapshotter, &key(pod, volume), &top).await.map_err(wrong)
    };
    let viewed = viewed.await;
    let _ = store.containerd.end_lease(&lease).await;
    let layers = viewed?.into_iter().next().ok_or_else(|| wrong("the runtime says of no mount"))?;
    blocking(move || {
        mounts::layers(&layers.r#type, &layers.source, &target, &layers.options).map_err(VolumeError::Mount)
    })
    .await?;
    Ok(mounted)
}

/// Takes back the image volumes of the Pod whose folder is `pod`.
///
/// # Errors
///
/// When one cannot be unmounted, or the runtime does not let go of it.
pub async fn take_back(runtime: &Runtime, pod: &Path) -> Result<(), VolumeError> {
    let entries = std::fs::read_dir(pod.join(FOLDER)).into_iter().flatten().flatten();
    let volumes: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    if volumes.is_empty() {
        return Ok(());
    }
    let store = Store::of(runtime).await.map_err(wrong)?;
    for target in volumes {
        let name = target.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let dir = target.clone();
        blocking(move || mounts::unmount_below(&dir).map_err(VolumeError::Mount)).await?;
        store.containerd.remove_snapshot(&store.snapshotter, &key(pod, &name)).await.map_err(wrong)?;
        std::fs::remove_dir(&target).map_err(at(&target))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_s_name_stands_for_all_below_it() {
        let id = |text: &str| format!("sha256:{}", text.repeat(64));
        assert!(chain(&[]).is_empty());
        let names = chain(&[id("a"), id("b"), id("c")]);
        assert_eq!(names[0], id("a"));
        let second =
            ring::digest::digest(&ring::digest::SHA256, format!("{} {}", id("a"), id("b")).as_bytes());
        assert_eq!(names[1], format!("sha256:{}", hex::encode(second)));
        assert_eq!(names.len(), 3);
        assert_ne!(names[2], names[1]);
    }

    #[test]
    fn of_several_platforms_this_machine_s_is_taken() {
        let manifest: Manifest = serde_json::from_value(serde_json::json!({"manifests": [
            {"digest": "windows", "size": 1, "platform": {"os": "windows", "architecture": "amd64"}},
            {"digest": "arm", "size": 1, "platform": {"os": "linux", "architecture": "arm64"}},
            {"digest": "intel", "size": 1, "platform": {"os": "linux", "architecture": "amd64"}}]}))
        .expect("an index");
        let expect = if cfg!(target_arch = "aarch64") { "arm" } else { "intel" };
        assert_eq!(here(&manifest.manifests).map(|own| own.digest.as_str()), Some(expect));
        assert!(here(&[]).is_none());
    }
}
