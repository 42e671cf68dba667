//! Copies images to the nodes of a cluster.

use std::path::PathBuf;

use bytes::Bytes;
use futures::future::join_all;
use futures::{Stream, StreamExt, TryStreamExt};
use serde::Serialize;
use tokio_util::io::ReaderStream;

use super::docker::{Docker, DockerError, ExecOutput};
use super::progress::{Phases, Progress};
use super::{ClusterError, find};

/// Where an image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// An image in Docker.
    Docker(String),
    /// An archive as `docker save` writes them, or in the OCI layout.
    Archive(PathBuf),
}

/// Images that are now on nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Loaded {
    /// Full names, as the runtime knows them.
    pub images: Vec<String>,
    pub nodes: Vec<String>,
}

const IMPORT: &[&str] = &["ctr", "--namespace", "k8s.io", "images", "import", "-"];
const CHECK: &[&str] = &["ctr", "--namespace", "k8s.io", "images", "check"];

/// Copies images to every running node of a cluster, to all at once, and looks afterwards whether they are there.
pub async fn load(
    docker: &Docker,
    cluster: &str,
    sources: &[ImageSource],
    progress: &dyn Progress,
) -> Result<Loaded, ClusterError> {
    let summary = find(docker, cluster).await?;
    let nodes: Vec<String> = summary.nodes.into_iter().filter(|n| n.running).map(|n| n.name).collect();
    if nodes.is_empty() {
        return Err(ClusterError::NotRunning(cluster.to_owned()));
    }
    // All are looked for before the first is copied.
    for source in sources {
        match source {
            ImageSource::Docker(name) if !docker.image_exists(name).await? => {
                return Err(ClusterError::NoSuchImage(name.clone()));
            }
            ImageSource::Archive(path) => drop(open(path).await?),
            ImageSource::Docker(_) => {}
        }
    }
    let phases = Phases::new(progress);
    let mut images = Vec::new();
    for source in sources {
        let label = match source {
            ImageSource::Docker(name) => name.clone(),
            ImageSource::Archive(path) => path.display().to_string(),
        };
        images.extend(phases.run(&label, load_one(docker, &nodes, source, &label)).await?);
    }
    Ok(Loaded { images, nodes })
}

async fn open(path: &PathBuf) -> Result<tokio::fs::File, ClusterError> {
    tokio::fs::File::open(path).await.map_err(|source| ClusterError::File { path: path.clone(), source })
}

async fn load_one(
    docker: &Docker,
    nodes: &[String],
    source: &ImageSource,
    label: &str,
) -> Result<Vec<String>, ClusterError> {
    let answers = match source {
        ImageSource::Docker(name) => {
            import(docker, nodes, docker.export_images(&[name]).map_err(ClusterError::from).boxed()).await?
        }
        ImageSource::Archive(path) => {
            let read = |source| ClusterError::File { path: path.clone(), source };
            import(docker, nodes, ReaderStream::new(open(path).await?).map_err(read).boxed()).await?
        }
    };
    let mut names: Vec<String> =
        answers.iter().flatten().flat_map(|answer| imported(&answer.stdout)).collect();
    if let ImageSource::Docker(name) = source {
        names.push(full_name(name));
    }
    names.sort();
    names.dedup();
    let checks = nodes.iter().zip(answers).map(|(node, answer)| check(docker, node, answer, &names));
    let failures: Vec<(String, String)> = join_all(checks).await.into_iter().flatten().collect();
    if !failures.is_empty() {
        return Err(ClusterError::Load { image: label.to_owned(), failures });
    }
    match (source, names.is_empty()) {
        (ImageSource::Archive(path), true) => Err(ClusterError::NoImageInArchive(path.clone())),
        _ => Ok(names),
    }
}

async fn import(
    docker: &Docker,
    nodes: &[String],
    archive: impl Stream<Item = Result<Bytes, ClusterError>> + Unpin,
) -> Result<Vec<Result<ExecOutput, DockerError>>, ClusterError> {
    docker.exec_fed(nodes, IMPORT, archive).await
}

/// Looks whether a node has the images, complete; answers the node and what is wrong otherwise. The importing program
/// reporting success is not taken for it.
async fn check(
    docker: &Docker,
    node: &str,
    answer: Result<ExecOutput, DockerError>,
    names: &[String],
) -> Option<(String, String)> {
    let wrong = |why: String| Some((node.to_owned(), why));
    match answer {
        Err(error) => return wrong(error.to_string()),
        Ok(answer) if answer.exit_code != 0 => return wrong(last_line(&answer)),
        Ok(_) => {}
    }
    match docker.exec(node, CHECK).await {
        Err(error) => wrong(error.to_string()),
        Ok(answer) => names
            .iter()
            .find(|name| !is_complete(&answer.stdout, name))
            .and_then(|name| wrong(format!("{name} is missing or incomplete"))),
    }
}

fn last_line(answer: &ExecOutput) -> String {
    let said = if answer.stderr.trim().is_empty() { &answer.stdout } else { &answer.stderr };
    said.trim().lines().last().unwrap_or("the import failed").to_owned()
}

/// The names in the lines of `ctr images import`: `unpacking NAME (sha256:...)...done`, or `NAME<tab>saved`.
fn imported(stdout: &str) -> Vec<String> {
    stdout
        .lines()
        .filter_map(|line| {
            let line = line.trim();
            let name = match line.strip_prefix("unpacking ") {
                Some(rest) => rest.split_whitespace().next()?,
                None => line.split_whitespace().next().filter(|_| line.ends_with("saved"))?,
            };
            Some(name.to_owned())
        })
        .collect()
}

/// Whether the table of `ctr images check` has this image, complete.
fn is_complete(table: &str, name: &str) -> bool {
    table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .any(|fields| fields.first() == Some(&name) && fields.contains(&"complete"))
}

/// A name as people write it, as the runtime keeps it: `redis` is `docker.io/library/redis:latest`.
fn full_name(name: &str) -> String {
    let (host, path) = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path.to_owned()),
        Some(_) => ("docker.io", name.to_owned()),
        None => ("docker.io", format!("library/{name}")),
    };
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
        check("localhost/app:1", "localhost/app:1");
        check("registry:5000/app", "registry:5000/app:latest");
        check("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10");
        check("app@sha256:00", "docker.io/library/app@sha256:00");
    }

    #[test]
    fn the_importers_lines_are_read() {
        let text = "unpacking docker.io/library/a:1 (sha256:00)...done\nregistry/b:2          \tsaved\t\nelapsed: 0.1 s\n";
        assert_eq!(imported(text), ["docker.io/library/a:1", "registry/b:2"]);
        let table = "REF TYPE DIGEST STATUS SIZE UNPACKED\na:1 t sha256:0 complete (2/2) 1.0 KiB/1.0 KiB true\nb:1 t sha256:0 incomplete (1/2) 1/2 false\n";
        assert!(is_complete(table, "a:1") && !is_complete(table, "b:1") && !is_complete(table, "c:1"));
    }
}
