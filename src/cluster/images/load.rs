//! Brings images to all nodes of a cluster: into the shared store once, if they are not there, and from there to each.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::ReaderStream;

use super::archive::{ArchiveError, Intake, intake};
use super::on_node::{Nodes, ask, ask_all, running};
use crate::docker::{Docker, DockerError};
use crate::node_image::remove_unfinished;
use crate::progress::{Phases, Progress};
use crate::{ClusterError, identity};
use config::image_store::{DIR, Index, LOADS, Load, full_name};
use rt::{Clock, Stop, SystemClock};

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// An image in Docker.
    Docker(String),
    /// An archive as `docker save` writes them, or in the OCI layout.
    Archive(PathBuf),
    /// The same, from standard input.
    Input,
}

/// Images that are now on nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// Full names, as the runtime knows them.
    pub images: Vec<String>,
    pub nodes: Vec<String>,
    /// Bytes that had to be copied.
    pub bytes: u64,
}

/// An image that a node is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Wanted {
    name: String,
    source: Option<String>,
}

/// Copies images to every running node of a cluster, to all at once. Fails when an image does not exist, an archive is
/// damaged, or an image did not arrive on every node.
pub async fn load(
    docker: &Docker,
    cluster: &str,
    sources: &[ImageSource],
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<Loaded, ClusterError> {
    match stop.run_until_cancelled(load_all(docker, cluster, sources, progress)).await {
        Some(result) => result,
        None => {
            remove_unfinished(docker, true, 0).await;
            Err(ClusterError::Interrupted)
        }
    }
}

async fn load_all(
    docker: &Docker,
    cluster: &str,
    sources: &[ImageSource],
    progress: &dyn Progress,
) -> Result<Loaded, ClusterError> {
    let (nodes, in_docker) = futures::try_join!(running(docker, cluster), look_up(docker, sources))?;
    let phases = Phases::new(progress);
    let mut loaded = Loaded { nodes: nodes.names.clone(), ..Loaded::default() };
    // One question to every node for all that Docker has: what the store has they take.
    let missing = match in_docker.is_empty() {
        true => Vec::new(),
        false => phases.run("images in the store", ensure(docker, &nodes, &in_docker)).await?,
    };
    loaded.images.extend(in_docker.iter().map(|image| full_name(&image.name)));
    for image in &missing {
        let names = [image.name.as_str()];
        let stream = docker.export_images(&names).map_err(std::io::Error::other).boxed();
        let work = bring(docker, &nodes, stream, Some(image));
        loaded.bytes += phases.run(&image.name, work).await?.bytes;
    }
    if !missing.is_empty() {
        let left = phases.run("images to the nodes", ensure(docker, &nodes, &missing)).await?;
        if let Some(image) = left.first() {
            let failures =
                nodes.names.iter().map(|node| (node.clone(), "is not in the store".to_owned())).collect();
            return Err(ClusterError::Load { image: image.name.clone(), failures });
        }
    }
    for source in sources {
        let (label, stream) = match source {
            ImageSource::Docker(_) => continue,
            ImageSource::Archive(path) => {
                (path.display().to_string(), ReaderStream::new(open(path).await?).boxed())
            }
            ImageSource::Input => {
                ("standard input".to_owned(), ReaderStream::new(tokio::io::stdin()).boxed())
            }
        };
        let work = async {
            let brought = bring(docker, &nodes, stream, None).await?;
            let wanted: Vec<Wanted> =
                brought.names.iter().map(|name| Wanted { name: name.clone(), source: None }).collect();
            ensure(docker, &nodes, &wanted).await?;
            Ok::<_, ClusterError>(brought)
        };
        let brought = phases.run(&label, work).await.map_err(|error| in_archive(error, &label))?;
        loaded.images.extend(brought.names);
        loaded.bytes += brought.bytes;
    }
    loaded.images.sort();
    loaded.images.dedup();
    Ok(loaded)
}

/// Says which archive it was.
fn in_archive(error: ClusterError, label: &str) -> ClusterError {
    match error {
        ClusterError::Archive { why, .. } => ClusterError::Archive { archive: label.to_owned(), why },
        other => other,
    }
}

/// All sources are looked for before the first is copied; returns those in Docker with what it calls them.
async fn look_up(docker: &Docker, sources: &[ImageSource]) -> Result<Vec<Wanted>, ClusterError> {
    let mut found = Vec::new();
    for source in sources {
        match source {
            ImageSource::Docker(name) => match docker.image_id(name).await? {
                Some((id, _)) => found.push(Wanted { name: name.clone(), source: Some(id) }),
                None => return Err(ClusterError::NoSuchImage(name.clone())),
            },
            ImageSource::Archive(path) => drop(open(path).await?),
            ImageSource::Input => {}
        }
    }
    Ok(found)
}

async fn open(path: &PathBuf) -> Result<tokio::fs::File, ClusterError> {
    tokio::fs::File::open(path).await.map_err(|source| ClusterError::File { path: path.clone(), source })
}

/// Lets every node take images from the store; returns those that the store does not have.
async fn ensure(docker: &Docker, nodes: &Nodes, wanted: &[Wanted]) -> Result<Vec<Wanted>, ClusterError> {
    let json = serde_json::to_string(wanted).expect("names are plain data");
    let label = wanted.iter().map(|image| image.name.as_str()).collect::<Vec<_>>().join(", ");
    let answers: Vec<(String, Vec<Wanted>)> =
        ask_all(docker, &nodes.names, &label, &["ensure", &json]).await?;
    Ok(answers.into_iter().map(|(_, missing)| missing).next().unwrap_or_default())
}

/// What came into the store.
pub(super) struct Brought {
    names: Vec<String>,
    bytes: u64,
}

/// Puts one archive into the store, and has one node read back what was written: all nodes see the same files.
pub(super) async fn bring(
    docker: &Docker,
    nodes: &Nodes,
    archive: impl Stream<Item = std::io::Result<Bytes>> + Unpin,
    asked: Option<&Wanted>,
) -> Result<Brought, ClusterError> {
    remove_unfinished(docker, false, 600).await;
    let node = nodes.names.first().map(String::as_str).unwrap_or_default();
    let (index, container) = futures::try_join!(store_index(docker, node), async {
        Ok(docker.store_container(&nodes.image, None).await?)
    },)?;
    let id = uuid::Uuid::new_v4().to_string();
    let taken = pour(docker, &container, archive, (&id, index), asked).await;
    let verified = async {
        match taken {
            Ok(load) => match ask::<bool>(docker, node, &["verify", &id]).await {
                Ok(_) => Ok(load),
                Err(why) => Err(ClusterError::Load {
                    image: load
                        .images
                        .iter()
                        .flat_map(|image| &image.names)
                        .cloned()
                        .collect::<Vec<_>>()
                        .join(", "),
                    failures: vec![(node.to_owned(), why)],
                }),
            },
            Err(error) => Err(error),
        }
    };
    // What it held is on the volume: the container goes meanwhile.
    let (load, removed) = futures::join!(verified, docker.remove_container(&container));
    let load = load?;
    removed?;
    let names = load.images.iter().flat_map(|image| image.names.iter().cloned()).collect();
    Ok(Brought { names, bytes: load.blobs.iter().map(|blob| blob.size).sum() })
}

/// What the store has, as a node sees it.
pub(super) async fn store_index(docker: &Docker, node: &str) -> Result<Index, ClusterError> {
    let tar = match docker.get_archive(node, &format!("{DIR}/{LOADS}")).await {
        Ok(tar) => tar,
        Err(DockerError::NotFound(_)) => return Ok(Index::default()),
        Err(other) => return Err(other.into()),
    };
    let loads = identity::members(&tar, ".json");
    Ok(Index::new(loads.iter().filter_map(|text| serde_json::from_str::<Load>(text).ok()).collect()))
}

/// Streams an archive through [`intake`], which runs on a thread of its own, into the store.
async fn pour(
    docker: &Docker,
    container: &str,
    archive: impl Stream<Item = std::io::Result<Bytes>> + Unpin,
    (id, index): (&str, Index),
    asked: Option<&Wanted>,
) -> Result<Load, ClusterError> {
    let (sender, receiver) = mpsc::channel::<Part>(8);
    let (feeder, fed) = mpsc::channel::<Part>(8);
    let input = FromChannel { parts: fed, part: Bytes::new() };
    let id = id.to_owned();
    let asked = asked.map(|image| (image.name.clone(), image.source.clone().unwrap_or_default()));
    let time = i64::try_from(SystemClock.now().as_nanosecond()).unwrap_or(i64::MAX);
    let work = tokio::task::spawn_blocking(move || {
        let asked = asked.as_ref().map(|(name, source)| (name.as_str(), source.as_str()));
        let with = Intake { id: &id, time, index: &index, asked, architecture: architecture() };
        let output = std::io::BufWriter::with_capacity(1 << 20, ToChannel(sender.clone()));
        let result = intake(input, output, &with);
        if result.is_err() {
            // Docker must not take what it got so far for all there is. Where it has gone, nobody needs to be told.
            let _ = sender.blocking_send(Err(std::io::Error::other("the archive is not taken")));
        }
        result
    });
    let put = docker.put_stream(container, DIR, ReceiverStream::new(receiver));
    let feed = async {
        let mut archive = archive;
        while let Some(part) = archive.next().await {
            if feeder.send(part).await.is_err() {
                break;
            }
        }
        drop(feeder);
    };
    let (taken, put, ()) = futures::join!(work, put, feed);
    let taken = taken.map_err(|error| ClusterError::Client(error.to_string()))?;
    // Where the engine broke off, that is the cause, and the other only says that nobody read any more.
    match (taken, put) {
        (Ok(load), Ok(())) => Ok(load),
        (Err(ArchiveError::Read(error)), Err(put)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Err(put.into())
        }
        (Err(why), _) => Err(ClusterError::Archive { archive: String::new(), why }),
        (Ok(_), Err(put)) => Err(put.into()),
    }
}

/// As OCI writes the architecture of this machine.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// What streams.
type Part = std::io::Result<Bytes>;

/// Reads from a channel, on a thread.
struct FromChannel {
    parts: mpsc::Receiver<Part>,
    /// What is left of the last one.
    part: Bytes,
}

impl std::io::Read for FromChannel {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.part.is_empty() {
            match self.parts.blocking_recv() {
                Some(part) => self.part = part?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.part.len());
        buffer[..length].copy_from_slice(&self.part.split_to(length));
        Ok(length)
    }
}

/// Writes into a channel, on a thread.
struct ToChannel(mpsc::Sender<Part>);

impl std::io::Write for ToChannel {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        match self.0.blocking_send(Ok(Bytes::copy_from_slice(data))) {
            Ok(()) => Ok(data.len()),
            Err(_) => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What an argument means: standard input, an archive by its ending or because it is a file, else an image by name.
pub fn source(text: &str) -> ImageSource {
    let path = Path::new(text);
    match text {
        "-" => ImageSource::Input,
        _ if text.ends_with(".tar") || (text.contains('/') && path.is_file()) => {
            ImageSource::Archive(path.to_owned())
        }
        _ => ImageSource::Docker(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_from_names() {
        assert_eq!(source("redis:6.0"), ImageSource::Docker("redis:6.0".to_owned()));
        assert_eq!(source("me/app"), ImageSource::Docker("me/app".to_owned()));
        assert_eq!(source("app.tar"), ImageSource::Archive("app.tar".into()));
        assert_eq!(source("-"), ImageSource::Input);
        let here = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
        assert_eq!(source(here), ImageSource::Archive(here.into()));
    }
}
