//! Backups: the objects of a cluster in one file of the person's own, put back into it or made into a new one.
//!
//! ```text
//! save:    a server --its present state, one revision--> NAME.tar.gz, while the cluster runs
//! restore: the servers are killed, the first gets the file and the others forget, all are started
//! new:     a cluster whose first server finds the file when it first starts; its nodes are called as in the backup
//! ```
//!
//! A backup holds objects. What is on volumes and which images nodes have is kept by snapshots.

mod file;

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;

use self::file::About;
pub use self::file::{BackupInfo, Backups};
use super::change::{ChangeOptions, Changed, change};
use super::create::{CreateOptions, Created, Restored, create};
use super::docker::Docker;
use super::execute::put_files;
use super::lifecycle::kill;
use super::lock::lock;
use super::observe::observe;
use super::plan::PutFile;
use super::progress::{Phases, Progress};
use super::record::ClusterRecord;
use super::spec::ClusterName;
use super::{ClusterError, access_of, identity, wait};
use config::backup::{self, Restore};
use rt::Stop;

/// How long a server that may not live is asked how far it has come.
const REACHED: Duration = Duration::from_secs(3);

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error("backup {0:?} does not exist")]
    NoSuch(String),
    #[error("backup {0:?} already exists")]
    Exists(String),
    #[error("backup {name:?} cannot be used: {why}")]
    Bad { name: String, why: String },
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("cluster {0:?} keeps its state in an etcd that is not its own")]
    Foreign(String),
}

/// Keeps the objects of a cluster as they are at this moment. It runs on meanwhile.
///
/// # Errors
///
/// The name is taken, no server answers, or the file cannot be written.
pub async fn save(
    docker: &Docker,
    cluster: &ClusterName,
    name: &ClusterName,
    backups: &Backups,
) -> Result<BackupInfo, ClusterError> {
    backups.vacant(name)?;
    let containers = docker.containers(Some(cluster.as_str())).await?;
    let record = ClusterRecord::read(docker, cluster.as_str(), &containers).await?;
    let client = wait::client(&access_of(docker, cluster.as_str()).await?)?;
    let (counted, store) =
        state(&client).await.map_err(|error| ClusterError::Client(format!("reading its state: {error}")))?;
    Ok(backups.write(name, &About::of(record, counted, &store), &store)?)
}

/// What a server gives: the revision, how many objects, and the store's file.
async fn state(client: &Client) -> Result<((u64, usize), Vec<u8>), Box<dyn std::error::Error + Send + Sync>> {
    let answer = client.send(Request::get(backup::PATH).body(Body::empty())?).await?;
    let number = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let counted = number(backup::REVISION).zip(number(backup::ENTRIES));
    let (code, store) = (answer.status(), answer.into_body().collect().await?.to_bytes());
    match counted {
        Some((revision, entries)) if code.is_success() => {
            Ok(((revision, usize::try_from(entries)?), store.into()))
        }
        _ => Err(format!("{code}: {}", String::from_utf8_lossy(&store)).into()),
    }
}

/// Puts the objects of a backup in the place of a cluster's own. What was made since is gone. When it fails midway the
/// cluster is stopped, and the same can be tried again.
///
/// # Errors
///
/// There is no such backup, it is damaged, or the cluster's state is in an etcd of somebody else's.
pub async fn restore(
    docker: &Docker,
    cluster: &ClusterName,
    (backups, name): (&Backups, &ClusterName),
    options: &ChangeOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<Changed, ClusterError> {
    let (_, store) = backups.read(name)?;
    let phases = Phases::new(progress);
    {
        let _lock = lock(cluster)?;
        let observed = observe(docker, cluster).await?;
        let record = ClusterRecord::read(docker, cluster.as_str(), &observed.containers).await?;
        if record.spec.datastore.is_some() {
            return Err(BackupError::Foreign(cluster.to_string()).into());
        }
        let servers = identity::servers(&observed.containers);
        let reached = tokio::time::timeout(REACHED, reached(docker, cluster)).await;
        // Where no server answers, nobody is left who has seen much more than the backup has.
        let after = reached.ok().and_then(Result::ok).unwrap_or_default();
        let how = Restore { after, other_cluster: false };
        let running = servers.iter().filter(|server| server.running);
        phases.run("stopping servers", kill(docker, running.copied())).await?;
        let written = async {
            for (number, server) in servers.iter().enumerate() {
                // One has the state, the others join it.
                let store = if number == 0 { store.clone() } else { Vec::new() };
                put_files(docker, &server.id, &files(store, how)).await?;
            }
            Ok::<_, ClusterError>(())
        };
        phases.run("writing the state", written).await?;
    }
    change(docker, cluster, options, progress, stop, |_| Ok(())).await
}

/// The revision that clients of a cluster may have seen.
async fn reached(docker: &Docker, cluster: &ClusterName) -> Result<u64, ClusterError> {
    let client = wait::client(&access_of(docker, cluster.as_str()).await?)?;
    let failed = |error: &dyn std::fmt::Display| ClusterError::Client(error.to_string());
    let request = Request::get("/api/v1/namespaces?limit=1").body(Vec::new()).map_err(|e| failed(&e))?;
    let list: serde_json::Value = client.request(request).await.map_err(|e| failed(&e))?;
    Ok(list["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default())
}

/// What a server finds when it starts.
pub(super) fn files(store: Vec<u8>, how: Restore) -> Vec<PutFile> {
    let of = |path: &str, content| (Path::new(path.trim_start_matches('/')).to_owned(), content, 0o600);
    let how = serde_json::to_vec(&how).expect("plain data");
    vec![of(backup::RESTORE, how), of(backup::STORE, store)]
}

/// Makes a new cluster with the objects of a backup: as many nodes, called as they were. Addresses, ports and who may speak to
/// it are its own.
///
/// # Errors
///
/// There is no such backup, it is damaged, or as [`create`].
pub async fn restore_new(
    docker: &Docker,
    (backups, name): (&Backups, &ClusterName),
    mut options: CreateOptions,
    progress: &dyn Progress,
    stop: &Stop,
) -> Result<Created, ClusterError> {
    let (about, store) = backups.read(name)?;
    let before = about.record;
    options.spec = options.spec.made_like(&before.spec);
    // Where that etcd is, the other cluster's objects are.
    options.spec.datastore = None;
    options.restored = Some(Restored { named_after: before.nodes_named_after().clone(), store });
    options.carried = before.carried;
    create(docker, &options, progress, stop).await
}
