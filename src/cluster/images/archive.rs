//! Reads an image archive (Docker's form or the OCI layout) as it streams by, and says it again as an archive for the
//! store: every file once, named by where it goes, its digest taken on the way, and last the load's own file.

use std::collections::BTreeMap;
use std::io::{Read, Write};

use serde::Deserialize;

use super::digest::Hasher;
use config::image_store::{BLOBS, Index, LOADS, Load, StoredBlob, StoredImage, full_name};

/// Files up to this size are looked into at the end: manifests and configurations. Layers are larger, or are not JSON.
const SMALL: u64 = 4 << 20;
const CHUNK: usize = 512 << 10;

/// Why an archive was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("the archive cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("it is not an archive with an image in it")]
    NoImage,
    #[error("the archive is incomplete: {0} is missing")]
    Missing(String),
    #[error("the archive is damaged: {file} should have the digest {expected}, and has {actual}")]
    Digest { file: String, expected: String, actual: String },
    #[error("{file} in the archive is malformed: {why}")]
    Malformed { file: String, why: String },
}

/// What a load is called, and what is known about it beforehand.
pub struct Intake<'a> {
    pub id: &'a str,
    pub time: i64,
    /// What is in the store already: such files are read over.
    pub index: &'a Index,
    /// The name that was asked for, and what Docker calls that image.
    pub asked: Option<(&'a str, &'a str)>,
    /// The machine's architecture, as OCI writes it.
    pub architecture: &'a str,
}

/// A file of the archive, by its path in there.
#[derive(Clone, Debug)]
struct File {
    digest: String,
    size: u64,
    /// Its content, if it is small.
    content: Option<Vec<u8>>,
    compression: &'static str,
}

/// Copies an archive into the store's form. Returns what was loaded. Fails when the archive cannot be read, is incomplete
/// or damaged, or has no image in it; the load's own file has not been written then.
pub fn intake(input: impl Read, output: impl Write, with: &Intake<'_>) -> Result<Load, ArchiveError> {
    let mut writer =
        Writer { tar: tar::Builder::new(output), load: Load { time: with.time, ..Load::default() }, with };
    let mut files: BTreeMap<String, File> = BTreeMap::new();
    let mut links: BTreeMap<String, String> = BTreeMap::new();
    let mut archive = tar::Archive::new(input);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = normal(&entry.path()?.to_string_lossy());
        match entry.header().entry_type() {
            kind if kind.is_file() => {
                let size = entry.size();
                let file = writer.take(&mut entry, &path, size)?;
                files.insert(path, file);
            }
            kind if kind.is_symlink() || kind.is_hard_link() => {
                if let Some(target) = entry.link_name()? {
                    links
                        .insert(path.clone(), target_of(&path, &target.to_string_lossy(), kind.is_symlink()));
                }
            }
            _ => {}
        }
    }
    for (path, target) in links {
        if let Some(file) = files.get(&target).cloned() {
            files.insert(path, file);
        }
    }
    let images = read_images(&files, with, &mut writer)?;
    if images.is_empty() {
        return Err(ArchiveError::NoImage);
    }
    writer.load.images = images;
    writer.finish()
}

/// A path without `./` in front.
fn normal(path: &str) -> String {
    path.trim_start_matches("./").trim_end_matches('/').to_owned()
}

/// Where a link leads: symbolic ones are relative to their folder, hard ones to the archive.
fn target_of(path: &str, target: &str, symbolic: bool) -> String {
    let mut parts: Vec<&str> = match symbolic {
        true => path.split('/').collect(),
        false => vec![""],
    };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

struct Writer<'a, W: Write> {
    tar: tar::Builder<W>,
    load: Load,
    with: &'a Intake<'a>,
}

impl<W: Write> Writer<'_, W> {
    /// Reads one file of the archive to its end; it goes on to the store unless it is there already.
    fn take(&mut self, input: &mut impl Read, path: &str, size: u64) -> Result<File, ArchiveError> {
        let named = path.strip_prefix("blobs/sha256/").map(|hex| format!("sha256:{hex}"));
        let known = match &named {
            Some(digest) => self.with.index.blobs.get(digest),
            None => self.with.index.by_alias(path).filter(|_| path.ends_with("/layer.tar")),
        };
        if let Some(known) = known.filter(|known| known.size == size && size > SMALL) {
            std::io::copy(input, &mut std::io::sink())?;
            // Only layers are so large.
            let compression = known.file.rsplit_once('.').map_or("", |(_, kind)| static_kind(kind));
            return Ok(File { digest: known.digest.clone(), size, content: None, compression });
        }
        let file = format!("{}-{}", self.with.id, self.load.blobs.len());
        let mut source = Tee {
            input,
            hasher: Hasher::new(),
            kept: (size <= SMALL).then(Vec::new),
            head: Vec::new(),
            left: size,
        };
        append(&mut self.tar, &format!("{BLOBS}/{file}"), size, &mut source)?;
        let Tee { hasher, kept, head, left, .. } = source;
        if left > 0 {
            return Err(ArchiveError::Read(std::io::ErrorKind::UnexpectedEof.into()));
        }
        let digest = hasher.digest();
        if let Some(expected) = named.filter(|expected| *expected != digest) {
            return Err(ArchiveError::Digest { file: path.to_owned(), expected, actual: digest });
        }
        let alias = path.ends_with("/layer.tar").then(|| path.to_owned());
        self.load.blobs.push(StoredBlob { digest: digest.clone(), size, file, alias });
        Ok(File { digest, size, content: kept, compression: compression(&head) })
    }

    /// Adds a file of our own making.
    fn add(&mut self, content: &[u8]) -> Result<String, ArchiveError> {
        let digest = Hasher::of(content);
        let file = format!("{}-{}", self.with.id, self.load.blobs.len());
        let size = content.len() as u64;
        append(&mut self.tar, &format!("{BLOBS}/{file}"), size, &mut &content[..])?;
        self.load.blobs.push(StoredBlob { digest: digest.clone(), size, file, alias: None });
        Ok(digest)
    }

    /// Writes the load's own file, last.
    fn finish(mut self) -> Result<Load, ArchiveError> {
        let text = serde_json::to_vec(&self.load).map_err(std::io::Error::other)?;
        append(
            &mut self.tar,
            &format!("{LOADS}/{}.json", self.with.id),
            text.len() as u64,
            &mut text.as_slice(),
        )?;
        self.tar.finish()?;
        self.tar.get_mut().flush()?;
        Ok(self.load)
    }
}

fn append(
    tar: &mut tar::Builder<impl Write>,
    path: &str,
    size: u64,
    data: &mut impl Read,
) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o444);
    header.set_mtime(0);
    tar.append_data(&mut header, path, data)
}

/// Reads on, and takes the digest of what it read.
struct Tee<'a, R: Read> {
    input: &'a mut R,
    hasher: Hasher,
    kept: Option<Vec<u8>>,
    head: Vec<u8>,
    left: u64,
}

impl<R: Read> Read for Tee<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = buffer.len().min(CHUNK);
        let length = self.input.read(&mut buffer[..wanted])?;
        if length == 0 && self.left > 0 {
            // The output has promised the size: a short file must not look like a whole one.
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let read = &buffer[..length];
        self.hasher.update(read);
        self.left = self.left.saturating_sub(length as u64);
        if self.head.len() < 4 {
            self.head.extend(read.iter().take(4));
        }
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(read);
        }
        Ok(length)
    }
}

fn compression(head: &[u8]) -> &'static str {
    match head {
        [0x1f, 0x8b, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        _ => "",
    }
}

fn static_kind(kind: &str) -> &'static str {
    match kind {
        "gzip" => "gzip",
        "zstd" => "zstd",
        _ => "",
    }
}

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An entry of Docker's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Clone, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
}

#[derive(Deserialize)]
struct OciIndex {
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

fn parse<T: serde::de::DeserializeOwned>(name: &str, content: &[u8]) -> Result<T, ArchiveError> {
    serde_json::from_slice(content)
        .map_err(|error| ArchiveError::Malformed { file: name.to_owned(), why: error.to_string() })
}

/// The images of an archive: by the OCI layout where it is whole, as that keeps the digests of the registry; else by
/// Docker's list.
fn read_images<W: Write>(
    files: &BTreeMap<String, File>,
    with: &Intake<'_>,
    writer: &mut Writer<'_, W>,
) -> Result<Vec<StoredImage>, ArchiveError> {
    let content = |name: &str| files.get(name).and_then(|file| file.content.as_deref());
    if let Some(text) = content("index.json") {
        let images = oci_images(&parse("index.json", text)?, files, with)?;
        if !images.is_empty() {
            return Ok(images);
        }
    }
    let Some(text) = content("manifest.json") else { return Ok(Vec::new()) };
    let saved: Vec<Saved> = parse("manifest.json", text)?;
    saved.iter().map(|saved| docker_image(saved, files, with, writer)).collect()
}

fn oci_images(
    index: &OciIndex,
    files: &BTreeMap<String, File>,
    with: &Intake<'_>,
) -> Result<Vec<StoredImage>, ArchiveError> {
    let mut images: Vec<StoredImage> = Vec::new();
    for descriptor in &index.manifests {
        let name = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
            .iter()
            .find_map(|key| descriptor.annotations.get(*key))
            .filter(|name| name.contains([':', '/']));
        let mut names: Vec<String> = name.iter().map(|name| full_name(name)).collect();
        names.extend(with.asked.map(|(name, _)| full_name(name)));
        names.sort();
        names.dedup();
        let Some((manifest, content)) = choose(descriptor, files, with)? else { continue };
        let parsed: Manifest = parse(&manifest.digest, &content)?;
        let parts: Vec<&Descriptor> = [&parsed.config].into_iter().chain(&parsed.layers).collect();
        if let Some(missing) = parts.iter().find(|part| !has(&part.digest, files, with)) {
            return Err(ArchiveError::Missing(missing.digest.clone()));
        }
        let source = with.asked.map(|(_, source)| source.to_owned());
        if names.is_empty() {
            names.push(format!("import@{}", manifest.digest));
        }
        let digests = parts.iter().map(|part| part.digest.clone()).collect();
        let media_type =
            if manifest.media_type.is_empty() { OCI_MANIFEST.to_owned() } else { manifest.media_type };
        images.push(image(names, media_type, (manifest.digest, manifest.size), source, digests));
    }
    Ok(images)
}

fn has(digest: &str, files: &BTreeMap<String, File>, with: &Intake<'_>) -> bool {
    let path = digest.replacen("sha256:", "blobs/sha256/", 1);
    files.contains_key(&path) || with.index.blobs.contains_key(digest)
}

/// The manifest that a descriptor means on this machine: of an index, the one for its architecture.
fn choose(
    descriptor: &Descriptor,
    files: &BTreeMap<String, File>,
    with: &Intake<'_>,
) -> Result<Option<(Descriptor, Vec<u8>)>, ArchiveError> {
    let path = descriptor.digest.replacen("sha256:", "blobs/sha256/", 1);
    let Some(content) = files.get(&path).and_then(|file| file.content.clone()) else { return Ok(None) };
    let value: serde_json::Value = parse(&descriptor.digest, &content)?;
    if value.get("manifests").is_none() {
        return Ok(value.get("layers").is_some().then(|| (descriptor.clone(), content)));
    }
    let index: OciIndex = parse(&descriptor.digest, &content)?;
    for inner in &index.manifests {
        let fits = inner
            .platform
            .as_ref()
            .is_none_or(|platform| platform.os == "linux" && platform.architecture == with.architecture);
        if fits && let Some(found) = choose(inner, files, with)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// An image of Docker's list gets a manifest of our own making, as the list has none.
fn docker_image<W: Write>(
    saved: &Saved,
    files: &BTreeMap<String, File>,
    with: &Intake<'_>,
    writer: &mut Writer<'_, W>,
) -> Result<StoredImage, ArchiveError> {
    let file = |name: &str| files.get(&normal(name)).ok_or_else(|| ArchiveError::Missing(name.to_owned()));
    let config = file(&saved.config)?;
    let layers: Vec<&File> = saved.layers.iter().map(|layer| file(layer)).collect::<Result<_, _>>()?;
    let media_type = |layer: &File| match layer.compression {
        "gzip" => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "zstd" => "application/vnd.oci.image.layer.v1.tar+zstd",
        _ => "application/vnd.docker.image.rootfs.diff.tar",
    };
    let layer = |file: &&File| serde_json::json!({"mediaType": media_type(file), "size": file.size, "digest": file.digest});
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": config.size,
            "digest": config.digest,
        },
        "layers": layers.iter().map(layer).collect::<Vec<_>>(),
    });
    let text = serde_json::to_vec(&manifest).map_err(std::io::Error::other)?;
    let digest = writer.add(&text)?;
    let tags = saved.repo_tags.iter().flatten().map(|tag| full_name(tag));
    let mut names: Vec<String> = tags.chain(with.asked.map(|(name, _)| full_name(name))).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        names.push(format!("import@{digest}"));
    }
    // What Docker calls an image is the digest of its configuration; an archive from elsewhere says the same.
    let source = with.asked.map_or_else(|| config.digest.clone(), |(_, source)| source.to_owned());
    let digests = [config].into_iter().chain(layers).map(|file| file.digest.clone()).collect();
    Ok(image(names, DOCKER_MANIFEST.to_owned(), (digest, text.len() as u64), Some(source), digests))
}

/// `digests`: configuration first, then the layers.
fn image(
    names: Vec<String>,
    media_type: String,
    (digest, size): (String, u64),
    source: Option<String>,
    digests: Vec<String>,
) -> StoredImage {
    let label = |n: usize| match n {
        0 => "containerd.io/gc.ref.content.config".to_owned(),
        n => format!("containerd.io/gc.ref.content.l.{}", n - 1),
    };
    let children = digests.iter().enumerate().map(|(n, digest)| (label(n), digest.clone())).collect();
    let blobs = [digest.clone()].into_iter().chain(digests).collect();
    StoredImage { names, media_type, digest, size, source, blobs, children }
}

#[cfg(test)]
mod tests;
