//! Images from the shared store: put into this node's containerd without copying a byte, and looked after.
//!
//! ```text
//! shared volume (read-only): blobs/..., loads/*.json
//!      |  link in containerd's content store, then "adopt": containerd finds the blob there and takes it
//! containerd: content -> image under its names -> the CRI plugin hears of it -> Pods use it
//! ```
//!
//! A layer is unpacked when the first container needs it.

mod arrival;
mod store;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cri::credentials::node_auths;
use super::cri::{Containerd, Runtime, RuntimeError, messages};
use config::image_store::{self, Index, StoredImage, full_name};

pub use arrival::{Arrival, lock};
pub use store::{StoreError, compact, read_index, verify};

/// How long the CRI plugin may take to hear of an image.
const HEARD: Duration = Duration::from_secs(10);

/// What went wrong with a node's images.
#[derive(Debug, thiserror::Error)]
pub enum ImagesError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    Runtime(#[from] RuntimeError),
    #[error("{name}: {digest} is not in the store")]
    Incomplete { name: String, digest: String },
    #[error("cannot link {path}: {source}")]
    Link { path: PathBuf, source: std::io::Error },
    #[error("the runtime does not show {0}")]
    NotShown(String),
}

/// An image that is wanted under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    pub name: String,
    /// What Docker calls it; without it, the image that the store has under the name.
    pub source: Option<String>,
}

/// This node's images.
pub struct Images {
    containerd: Containerd,
    runtime: Runtime,
    /// The shared store.
    store: PathBuf,
    /// containerd's files of content.
    content: PathBuf,
}

impl Images {
    /// Those of the node this process runs on.
    pub fn of_this_node() -> Self {
        let options = super::cri::containerd::ContainerdOptions::default();
        Self {
            containerd: Containerd::new(&options.socket),
            runtime: Runtime::new(&options.socket),
            store: image_store::DIR.into(),
            content: options.root.join("io.containerd.content.v1.content/blobs/sha256"),
        }
    }

    /// Makes sure of images; returns those that the store does not have. What is there already costs one question.
    /// Fails when the runtime or the store does.
    pub async fn ensure(&self, wanted: &[Wanted]) -> Result<Vec<Wanted>, ImagesError> {
        let index = read_index(&self.store)?;
        let there: HashMap<String, String> = self.named().await?;
        let mut missing = Vec::new();
        let mut found: Vec<(String, &StoredImage)> = Vec::new();
        for want in wanted {
            let name = full_name(&want.name);
            let image = match &want.source {
                Some(source) => index.sources.get(source),
                None => index.names.get(&name),
            };
            match image.filter(|image| index.is_complete(image)) {
                Some(image) => found.push((name, image)),
                None => missing.push(want.clone()),
            }
        }
        found.retain(|(name, image)| there.get(name) != Some(&image.digest));
        self.take(&index, &found).await?;
        Ok(missing)
    }

    /// Takes everything the store has; for a node that starts. Returns how many were new.
    pub async fn take_all(&self) -> Result<usize, ImagesError> {
        let index = read_index(&self.store)?;
        if index.names.is_empty() {
            return Ok(0);
        }
        let there = self.named().await?;
        let new: Vec<(String, &StoredImage)> = index
            .names
            .iter()
            .filter(|(name, image)| !there.contains_key(*name) && index.is_complete(image))
            .map(|(name, image)| (name.clone(), image))
            .collect();
        self.take(&index, &new).await?;
        Ok(new.len())
    }

    /// What this node has, by the runtime's own list.
    pub async fn list(&self) -> Result<Vec<super::cri::api::Image>, ImagesError> {
        Ok(self.runtime.images().await?)
    }

    /// Fetches an image from its registry.
    pub async fn pull(&self, name: &str) -> Result<String, ImagesError> {
        let mut result = self.runtime.pull(name, None).await;
        // Without a name it is asked for first: most images are everybody's.
        for (_, auth) in node_auths(&full_name(name)) {
            if result.is_ok() {
                break;
            }
            result = self.runtime.pull(name, Some(auth)).await;
        }
        Ok(result?)
    }

    /// Removes a name from this node; returns whether it was there.
    pub async fn remove(&self, name: &str) -> Result<bool, ImagesError> {
        let name = full_name(name);
        let there = self.runtime.image(&name).await?.is_some();
        self.runtime.remove_image(&name).await?;
        Ok(there)
    }

    /// Removes the images that no container uses; returns their names.
    pub async fn prune(&self) -> Result<Vec<String>, ImagesError> {
        let containers = self.runtime.containers(None).await?;
        let used: Vec<String> = containers.into_iter().map(|container| container.image_ref).collect();
        let mut removed = Vec::new();
        for image in self.runtime.images().await? {
            let in_use = image.pinned
                || used.contains(&image.id)
                || image.repo_digests.iter().chain(&image.repo_tags).any(|name| used.contains(name))
                || image.repo_tags.iter().any(|tag| tag == super::cri::containerd::PAUSE_IMAGE);
            if !in_use {
                self.runtime.remove_image(&image.id).await?;
                removed.extend(image.repo_tags.into_iter().chain(image.repo_digests).take(1));
            }
        }
        Ok(removed)
    }

    /// Names and the digests they mean.
    async fn named(&self) -> Result<HashMap<String, String>, ImagesError> {
        let images = self.containerd.images().await?;
        Ok(images.into_iter().filter_map(|image| Some((image.name, image.target?.digest))).collect())
    }

    async fn take(&self, index: &Index, images: &[(String, &StoredImage)]) -> Result<(), ImagesError> {
        if images.is_empty() {
            return Ok(());
        }
        let lease = format!("minik-{}", uuid::Uuid::new_v4());
        self.containerd.begin_lease(&lease).await?;
        let taken = self.take_under(&lease, index, images).await;
        self.containerd.end_lease(&lease).await?;
        taken?;
        for (name, _) in images {
            self.shown(name).await?;
        }
        Ok(())
    }

    async fn take_under(
        &self,
        lease: &str,
        index: &Index,
        images: &[(String, &StoredImage)],
    ) -> Result<(), ImagesError> {
        std::fs::create_dir_all(&self.content)
            .map_err(|source| ImagesError::Link { path: self.content.clone(), source })?;
        for (name, image) in images {
            // What the manifest ties together comes before it.
            for digest in image.blobs.iter().rev() {
                let labels = match *digest == image.digest {
                    true => image.children.clone().into_iter().collect(),
                    false => HashMap::new(),
                };
                self.adopt(lease, index, name, digest, labels).await?;
            }
            let target = messages::Descriptor {
                media_type: image.media_type.clone(),
                digest: image.digest.clone(),
                size: i64::try_from(image.size).unwrap_or(i64::MAX),
            };
            let labels = HashMap::from([("io.cri-containerd.image".to_owned(), "managed".to_owned())]);
            let named = messages::Image { name: name.clone(), labels, target: Some(target) };
            self.containerd.name(named, lease).await?;
        }
        Ok(())
    }

    /// Links one blob into containerd's content and tells it. containerd may clear away what it does not know of just in
    /// between; then once more.
    async fn adopt(
        &self,
        lease: &str,
        index: &Index,
        name: &str,
        digest: &str,
        labels: HashMap<String, String>,
    ) -> Result<(), ImagesError> {
        let Some(blob) = index.blobs.get(digest) else {
            return Err(ImagesError::Incomplete { name: name.to_owned(), digest: digest.to_owned() });
        };
        let file = self.store.join(image_store::BLOBS).join(&blob.file);
        let mut attempt = 0;
        loop {
            self.link(&file, digest)?;
            match self.containerd.adopt(digest, blob.size, labels.clone(), lease).await {
                Ok(()) => return Ok(()),
                Err(_) if attempt < 3 => attempt += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn link(&self, file: &Path, digest: &str) -> Result<(), ImagesError> {
        let path = self.content.join(digest.trim_start_matches("sha256:"));
        match std::os::unix::fs::symlink(file, &path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && path.exists() => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                // It leads nowhere: the store was cleared and filled again.
                std::fs::remove_file(&path)
                    .and_then(|()| std::os::unix::fs::symlink(file, &path))
                    .map_err(|source| ImagesError::Link { path, source })
            }
            other => other.map_err(|source| ImagesError::Link { path, source }),
        }
    }

    /// Waits until the CRI plugin, which hears of images by events, shows one.
    async fn shown(&self, name: &str) -> Result<(), ImagesError> {
        let shows = async {
            while self.runtime.image(name).await?.is_none() {
                // Nothing tells when it has heard.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok::<_, RuntimeError>(())
        };
        match tokio::time::timeout(HEARD, shows).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(ImagesError::NotShown(name.to_owned())),
        }
    }
}
