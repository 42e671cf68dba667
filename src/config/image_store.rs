//! The store of images that all nodes of all clusters share: one volume, written by the command line, read by nodes.
//!
//! ```text
//! blobs/<name>        what images consist of, as it came
//! loads/<id>.json     one file per load: its images, and where its blobs are; a later one speaks for a name
//! ```
//!
//! A load's file is written after its blobs, so what it names is there. Nothing is changed in place.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The volume on Docker.
pub const VOLUME: &str = "minik-images";
/// Where nodes have it, read-only.
pub const DIR: &str = "/var/lib/minik-images";
pub const BLOBS: &str = "blobs";
pub const LOADS: &str = "loads";

/// What one load brought, or took away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Load {
    /// Nanoseconds since 1970: the order of loads.
    pub time: i64,
    pub images: Vec<StoredImage>,
    pub blobs: Vec<StoredBlob>,
    /// Names that no longer mean an image.
    pub removed: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredImage {
    /// Full names, as the runtime knows them.
    pub names: Vec<String>,
    pub media_type: String,
    /// Of its manifest.
    pub digest: String,
    pub size: u64,
    /// What Docker calls it, if it came from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// All blobs it consists of: manifest, configuration, layers.
    pub blobs: Vec<String>,
    /// Digests in the manifest by the label that ties them to it.
    pub children: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StoredBlob {
    pub digest: String,
    pub size: u64,
    /// File name below [`BLOBS`].
    pub file: String,
    /// What an archive of the old form calls it: such names follow the content, which so need not be read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
}

/// The loads, read together.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// By digest.
    pub blobs: BTreeMap<String, StoredBlob>,
    /// By full name.
    pub names: BTreeMap<String, StoredImage>,
    /// By what Docker calls it.
    pub sources: BTreeMap<String, StoredImage>,
}

impl Index {
    /// Reads loads in their order; later ones speak for a name.
    pub fn new(mut loads: Vec<Load>) -> Self {
        loads.sort_by_key(|load| load.time);
        let mut index = Self::default();
        for load in loads {
            for blob in load.blobs {
                index.blobs.insert(blob.digest.clone(), blob);
            }
            for image in load.images {
                for name in &image.names {
                    index.names.insert(name.clone(), image.clone());
                }
                if let Some(source) = &image.source {
                    index.sources.insert(source.clone(), image.clone());
                }
            }
            for name in load.removed {
                index.names.remove(&name);
            }
        }
        index
    }

    /// The blob an archive of the old form calls so.
    pub fn by_alias(&self, alias: &str) -> Option<&StoredBlob> {
        self.blobs.values().find(|blob| blob.alias.as_deref() == Some(alias))
    }

    /// Whether everything an image consists of is there.
    pub fn is_complete(&self, image: &StoredImage) -> bool {
        image.blobs.iter().all(|digest| self.blobs.contains_key(digest))
    }

    /// The blobs that an image under some name consists of.
    pub fn used(&self) -> std::collections::BTreeSet<&str> {
        self.names.values().flat_map(|image| image.blobs.iter().map(String::as_str)).collect()
    }
}

/// A name as people write it, as the runtime keeps it: `redis` is `docker.io/library/redis:latest`.
pub fn full_name(name: &str) -> String {
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path.to_owned()),
        Some(_) => ("docker.io", name.to_owned()),
        None => ("docker.io", format!("library/{name}")),
    };
    let path = match (host, path.contains('/')) {
        ("docker.io" | "index.docker.io", false) => format!("library/{path}"),
        _ => path,
    };
    let host = if host == "index.docker.io" { "docker.io" } else { host };
    let tagged = path.contains('@') || path.rsplit('/').next().is_some_and(|last| last.contains(':'));
    format!("{host}/{path}{}", if tagged { "" } else { ":latest" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_as_the_runtime_does() {
        let check = |name: &str, expect: &str| assert_eq!(full_name(name), expect, "{name}");
        check("redis", "docker.io/library/redis:latest");
        check("redis:6.0", "docker.io/library/redis:6.0");
        check("me/app", "docker.io/me/app:latest");
        check("docker.io/nginx", "docker.io/library/nginx:latest");
        check("index.docker.io/me/app", "docker.io/me/app:latest");
        check("localhost/app:1", "localhost/app:1");
        check("registry:5000/app", "registry:5000/app:latest");
        check("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10");
        check("app@sha256:00", "docker.io/library/app@sha256:00");
    }

    fn load(time: i64, name: &str, digest: &str) -> Load {
        let image = StoredImage {
            names: vec![name.to_owned()],
            media_type: String::new(),
            digest: digest.to_owned(),
            size: 1,
            source: Some(format!("id of {digest}")),
            blobs: vec![digest.to_owned()],
            children: BTreeMap::new(),
        };
        let blob = StoredBlob { digest: digest.to_owned(), size: 1, file: "f".to_owned(), alias: None };
        Load { time, images: vec![image], blobs: vec![blob], removed: vec![] }
    }

    #[test]
    fn the_last_load_speaks_for_a_name() {
        let index = Index::new(vec![load(2, "a", "new"), load(1, "a", "old")]);
        assert_eq!(index.names["a"].digest, "new");
        assert!(index.sources.contains_key("id of old") && index.blobs.len() == 2);
        let gone = Load { time: 3, removed: vec!["a".to_owned()], ..Load::default() };
        let index = Index::new(vec![load(2, "a", "new"), gone, load(1, "a", "old")]);
        assert!(index.names.is_empty() && index.used().is_empty());
    }

    #[test]
    fn an_image_without_its_blobs_is_not_complete() {
        let mut index = Index::new(vec![load(1, "a", "x")]);
        assert!(index.is_complete(&index.names["a"].clone()));
        index.blobs.clear();
        assert!(!index.is_complete(&index.names["a"].clone()));
    }
}
