//! The image that nodes are made from: found, pulled, or made from Debian and this very program.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;

use super::ClusterError;
use super::binary;
use super::docker::{BuildRequest, Docker, DockerError};
use super::labels::{self, Labels, THIS_VERSION};
use super::progress::{Phases, Progress};
use super::proxy_env::ProxyEnv;
use rt::{Clock, Stop, SystemClock};
use sys::{Pipe, find_program};

/// What the layer under minik is built from.
const FILES: &[(&str, &[u8])] = &[
    ("Dockerfile", include_bytes!("../../node-image/Dockerfile")),
    ("install", include_bytes!("../../node-image/install")),
    ("packages", include_bytes!("../../node-image/packages")),
    ("pause", include_bytes!("../../node-image/pause")),
    ("slim", include_bytes!("../../node-image/slim")),
];
/// The Debian that a registry has.
const REGISTRY_BASE: &str = "debian:trixie-slim";
/// The same, made from Debian's packages.
const OWN_BASE: &str = "minik/debian:trixie";
const ENTRYPOINT: &[&str] = &["/usr/bin/minik", "node", "init"];
/// An image this young may belong to a cluster that is being made by another binary: it is left alone. Seconds.
const YOUNG: i64 = 600;

/// Why there is no node image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("interrupted")]
    Interrupted,
    #[error("image {0} does not exist")]
    Missing(String),
    #[error("cannot read this program, {path}: {source}")]
    Binary { path: PathBuf, source: std::io::Error },
    #[error("no registry can be reached ({0}) and mmdebstrap is not installed")]
    NoBase(String),
    #[error("cannot make a Debian root file system: {0}")]
    Bootstrap(DockerError),
    #[error("cannot build the node image: {0}")]
    Build(DockerError),
    #[error(transparent)]
    Docker(#[from] DockerError),
}

/// Makes sure that the image the nodes are made from exists, and returns its name. An image that was asked for by name
/// is only looked up, and pulled if it is not there.
///
/// When `stop` is cancelled the work is dropped, and what it left in Docker is removed. Fails when there is no such image
/// and none can be made.
pub async fn ensure(
    docker: &Docker,
    asked: Option<&str>,
    phases: &Phases<'_>,
    stop: &Stop,
) -> Result<String, ImageError> {
    let found = match stop.run_until_cancelled(find_or_prepare(docker, asked, phases)).await {
        Some(found) => found?,
        None => {
            remove_unfinished(docker, true, 0).await;
            return Err(ImageError::Interrupted);
        }
    };
    let image = match found {
        Found::Image(name) => name,
        // A second or two: cut off in the middle, Docker may still make what nobody would know of.
        Found::Base { base, node } => finish(docker, &base, node, phases).await?,
    };
    if stop.is_cancelled() { Err(ImageError::Interrupted) } else { Ok(image) }
}

/// What there is of the node image.
enum Found {
    Image(String),
    /// The layer under minik, and what the image on it shall be called.
    Base {
        base: String,
        node: String,
    },
}

/// Makes the node image of this program, if it is not there; returns its name.
pub async fn build(docker: &Docker, progress: &dyn Progress, stop: &Stop) -> Result<String, ClusterError> {
    let phases = Phases::new(progress);
    Ok(phases.run("node image", ensure(docker, None, &phases, stop)).await?)
}

/// Writes the node image, and the layer it stands on by its own name, to a file; returns the image's name. The file is
/// there when it is whole.
pub async fn save(
    docker: &Docker,
    file: &Path,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<String, ClusterError> {
    use tokio::io::AsyncWriteExt;

    let image = build(docker, progress, stop).await?;
    let failed = |source| ClusterError::File { path: file.to_owned(), source };
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = tempfile::Builder::new().prefix(".minik-").tempfile_in(dir).map_err(failed)?;
    let mut out = tokio::fs::File::from_std(beside.reopen().map_err(failed)?);
    let base = base_tag();
    let names: Vec<&str> = match docker.image_exists(&base).await? {
        true => vec![&image, &base],
        false => vec![&image],
    };
    let mut archive = std::pin::pin!(docker.export_images(&names));
    while let Some(part) = stop.run_until_cancelled(archive.next()).await.ok_or(ClusterError::Interrupted)? {
        out.write_all(&part?).await.map_err(failed)?;
    }
    out.flush().await.map_err(failed)?;
    beside.persist(file).map_err(|error| failed(error.error))?;
    Ok(image.clone())
}

/// Takes a node image from a file that [`save`] wrote; returns what the engine said of it. Fails when the file cannot be
/// read or is no archive of images.
pub async fn load(docker: &Docker, file: &Path) -> Result<String, ClusterError> {
    let failed = |source| ClusterError::File { path: file.to_owned(), source };
    let input = tokio::fs::File::open(file).await.map_err(failed)?;
    let said = docker.import_images(tokio_util::io::ReaderStream::new(input)).await?;
    Ok(said.join("\n"))
}

/// Removes containers in which a node image was being made, if they are at least so many seconds old: this process's own,
/// or those of commands that were killed.
pub(super) async fn remove_unfinished(docker: &Docker, own: bool, age: i64) {
    let now = SystemClock.now().as_second();
    for (id, created) in docker.unfinished_images(own).await.unwrap_or_default() {
        if now - created >= age {
            // What cannot be removed now is removed by the next command that makes an image.
            let _ = docker.remove_container(&id).await;
        }
    }
}

async fn find_or_prepare(
    docker: &Docker,
    asked: Option<&str>,
    phases: &Phases<'_>,
) -> Result<Found, ImageError> {
    if let Some(name) = asked {
        if !docker.image_exists(name).await? {
            let pulled = docker.pull(name, |line| phases.detail(line)).await;
            pulled.map_err(|_| ImageError::Missing(name.to_owned()))?;
        }
        return Ok(Found::Image(name.to_owned()));
    }
    let node = format!("minik/node:{THIS_VERSION}-{}", binary::identity().await?);
    if docker.image_exists(&node).await? {
        return Ok(Found::Image(node));
    }
    remove_unfinished(docker, false, YOUNG).await;
    Ok(Found::Base { base: ensure_base(docker, phases).await?, node })
}

/// Puts this program on the layer below it.
async fn finish(
    docker: &Docker,
    base: &str,
    node: String,
    phases: &Phases<'_>,
) -> Result<String, ImageError> {
    phases.detail("adding minik to the node image");
    let layer = binary_layer(&binary::loaded_part(binary::read().await?))
        .map_err(|source| ImageError::Binary { path: "minik".into(), source })?;
    docker
        .add_layer(base, layer, &node, ENTRYPOINT, image_labels("node"))
        .await
        .map_err(ImageError::Build)?;
    prune(docker, &[&node, base], SystemClock.now().as_second()).await;
    Ok(node)
}

/// The layer under minik.
async fn ensure_base(docker: &Docker, phases: &Phases<'_>) -> Result<String, ImageError> {
    let tag = base_tag();
    if docker.image_exists(&tag).await? {
        return Ok(tag);
    }
    let proxy = ProxyEnv::read(|name| std::env::var(name).ok());
    let debian = ensure_debian(docker, &proxy, phases).await?;
    let request = BuildRequest {
        tag: tag.clone(),
        context: context(),
        args: build_args(debian, &proxy),
        labels: image_labels("base"),
    };
    docker.build(request, |line| phases.detail(line)).await.map_err(ImageError::Build)?;
    // What the builder keeps of the first stage is three times the image.
    for image in docker.own_images("stage").await? {
        let _ = docker.remove_image(&image.id).await;
    }
    Ok(tag)
}

/// An image with Debian in it: one that is there, else the registry's, else one made from packages.
async fn ensure_debian(docker: &Docker, proxy: &ProxyEnv, phases: &Phases<'_>) -> Result<String, ImageError> {
    for name in [OWN_BASE, REGISTRY_BASE] {
        if docker.image_exists(name).await? {
            return Ok(name.to_owned());
        }
    }
    phases.detail(&format!("pulling {REGISTRY_BASE}"));
    let why = match docker.pull(REGISTRY_BASE, |line| phases.detail(line)).await {
        Ok(()) => return Ok(REGISTRY_BASE.to_owned()),
        Err(error) => error.to_string(),
    };
    if find_program("mmdebstrap").is_none() {
        return Err(ImageError::NoBase(why));
    }
    phases.detail("no registry can be reached: making Debian from its packages");
    let bootstrap = |error: DockerError| ImageError::Bootstrap(error);
    // Debian's tools know the names of the proxy's variables in lower case only: they get both.
    let args = ["--variant=minbase", "--format=tar", "trixie", "-"];
    let pipe = Pipe::start("mmdebstrap", &args, &proxy.for_build())
        .map_err(|error| bootstrap(DockerError::Client(error.to_string())))?;
    docker.import_root(OWN_BASE, pipe).await.map_err(bootstrap)?;
    Ok(OWN_BASE.to_owned())
}

/// Behind a proxy the build needs it as well; these arguments are predefined, and leave no trace in the image.
fn build_args(debian: String, proxy: &ProxyEnv) -> Vec<(String, String)> {
    let proxy = proxy.for_build().into_iter();
    [("BASE".to_owned(), debian)].into_iter().chain(proxy).collect()
}

fn base_tag() -> String {
    let parts: Vec<&[u8]> = FILES.iter().flat_map(|(name, content)| [name.as_bytes(), *content]).collect();
    format!("minik/node-base:{}", short_hash(&parts))
}

fn image_labels(kind: &str) -> Labels {
    [(labels::IMAGE, kind), (labels::VERSION, THIS_VERSION)]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into_iter()
        .collect()
}

/// The first 12 hexadecimal digits of a SHA-256.
pub(super) fn short_hash(parts: &[&[u8]]) -> String {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    hex::encode(context.finish()).chars().take(12).collect()
}

fn context() -> Bytes {
    let files = FILES.iter().map(|(name, content)| (Path::new(name), *content, 0o644));
    archive(files).expect("writing to memory does not fail")
}

fn binary_layer(binary: &[u8]) -> std::io::Result<Bytes> {
    archive([(Path::new("usr/bin/minik"), binary, 0o755)].into_iter())
}

/// A tar archive of these files, all root's, without a time.
pub(super) fn archive<'a>(files: impl Iterator<Item = (&'a Path, &'a [u8], u32)>) -> std::io::Result<Bytes> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content, mode) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(0);
        tar.append_data(&mut header, path, content)?;
    }
    tar.into_inner().map(Bytes::from)
}

/// Removes node images of earlier binaries. One in use stays, as Docker refuses; nobody waits for the outcome.
async fn prune(docker: &Docker, keep: &[&str], now: i64) {
    for kind in ["node", "base"] {
        for image in docker.own_images(kind).await.unwrap_or_default() {
            let old = now - image.created > YOUNG;
            for tag in image.tags.iter().filter(|tag| old && !keep.contains(&tag.as_str())) {
                let _ = docker.remove_image(tag).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_embedded() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../node-image");
        let mut there: Vec<String> = std::fs::read_dir(dir)
            .expect("the folder")
            .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
            .collect();
        there.sort();
        assert_eq!(there, FILES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }

    #[test]
    fn the_tag_follows_the_content() {
        assert_eq!(short_hash(&[b"a", b"b"]), short_hash(&[b"ab"]));
        assert_ne!(short_hash(&[b"a"]), short_hash(&[b"b"]));
        assert_eq!(base_tag().len(), "minik/node-base:".len() + 12);
    }

    #[test]
    fn the_build_goes_through_the_proxy() {
        let proxy = ProxyEnv::read(|name| (name == "https_proxy").then(|| "http://p:1".to_owned()));
        let args = build_args("debian".to_owned(), &proxy);
        assert!(args.contains(&("HTTPS_PROXY".to_owned(), "http://p:1".to_owned())), "{args:?}");
        assert_eq!(build_args("debian".to_owned(), &ProxyEnv::default()).len(), 1);
    }

    #[test]
    fn archives_hold_what_they_were_given() {
        let bytes = binary_layer(b"program").expect("in memory");
        let mut archive = tar::Archive::new(bytes.as_ref());
        let entry = archive.entries().expect("entries").next().expect("one").expect("readable");
        assert_eq!(entry.path().expect("path"), Path::new("usr/bin/minik"));
        assert_eq!(entry.header().mode().expect("mode"), 0o755);
    }
}
