//! Follows the sockets that plugins put into their folder.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use tokio::time::Instant;

use super::drivers::{Drivers, Registered};
use super::publish::publish;
use crate::csi::{Driver, Registration};
use crate::kubelet::context::Context;
use rt::Backoff;
use sys::inotify::{WatchError, Watcher};

const RETRY: Backoff = Backoff { first: Duration::from_millis(500), max: Duration::from_secs(60) };

/// A socket file; another one of that name is another plugin.
type Socket = (PathBuf, u64, i64);

/// What became of a socket.
enum State {
    /// By the driver's name.
    Registered(String),
    /// How often it failed, and when it is tried again.
    Failed(u32, Instant),
}

/// Registers drivers as their sockets come, until dropped. Fails when the folder cannot be watched.
pub async fn run(context: Arc<Context>) -> Result<(), WatchError> {
    let dir = context.dir.join("plugins_registry");
    let failed = |source| WatchError::Other { path: dir.display().to_string(), source };
    fs::create_dir_all(&dir).map_err(failed)?;
    fs::create_dir_all(context.dir.join("plugins")).map_err(failed)?;
    let watcher = Watcher::new()?;
    watcher.add(&dir)?;
    let mut node = context.node.subscribe();
    // The Node comes first: what is said of drivers belongs to it.
    let _ = node.wait_for(|node| node.metadata.uid.is_some()).await;
    let mut known: HashMap<Socket, State> = HashMap::new();
    let mut told = false;
    let mut failures = 0;
    loop {
        told &= !follow(&context.drivers, &dir, &mut known).await;
        if !told {
            let node: Arc<Node> = context.node.borrow().clone();
            match publish(&context.client, &node, &context.drivers).await {
                Ok(()) => (told, failures) = (true, 0),
                Err(error) => {
                    tracing::warn!(%error, "drivers are not told to the API server yet");
                    failures += 1;
                }
            }
        }
        let again = known.values().filter_map(|state| match state {
            State::Failed(_, at) => Some(*at),
            State::Registered(_) => None,
        });
        let again = again.chain((!told).then(|| Instant::now() + RETRY.delay(failures))).min();
        let timer = async {
            match again {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = watcher.changed() => drop(changed.map_err(failed)?),
            () = timer => {}
        }
    }
}

/// Brings the drivers in line with the sockets; true when they changed.
async fn follow(drivers: &Drivers, dir: &Path, known: &mut HashMap<Socket, State>) -> bool {
    let sockets = sockets(dir);
    let mut changed = false;
    known.retain(|socket, state| {
        let there = sockets.contains(socket);
        if let (false, State::Registered(name)) = (there, &*state) {
            tracing::info!(driver = name, "a storage driver is gone");
            drivers.remove(name);
            changed = true;
        }
        there
    });
    for socket in sockets {
        let failures = match known.get(&socket) {
            Some(State::Registered(_)) => continue,
            Some(State::Failed(_, at)) if *at > Instant::now() => continue,
            Some(State::Failed(failures, _)) => *failures,
            None => 0,
        };
        let state = match register(&socket.0).await {
            Ok((name, registered)) => {
                tracing::info!(driver = name, node = registered.info.node_id, "a storage driver registered");
                drivers.put(&name, registered);
                changed = true;
                State::Registered(name)
            }
            Err(why) => {
                tracing::warn!(socket = %socket.0.display(), why, "a plugin is not registered");
                State::Failed(failures + 1, Instant::now() + RETRY.delay(failures + 1))
            }
        };
        known.insert(socket, state);
    }
    changed
}

fn sockets(dir: &Path) -> Vec<Socket> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let sockets = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok().filter(|metadata| metadata.file_type().is_socket())?;
        Some((entry.path(), metadata.ino(), metadata.ctime_nsec()))
    });
    sockets.collect()
}

/// Asks a plugin what it is, and tells it whether it was taken.
async fn register(socket: &Path) -> Result<(String, Registered), String> {
    let plugin = Registration::new(socket);
    let info = plugin.info().await.map_err(|error| error.to_string())?;
    let taken = take(socket, &info).await;
    let told = plugin.notify(taken.as_ref().err().cloned()).await;
    let registered = taken?;
    told.map_err(|error| error.to_string())?;
    Ok((info.name, registered))
}

async fn take(socket: &Path, info: &crate::csi::registration::PluginInfo) -> Result<Registered, String> {
    if info.r#type != "CSIPlugin" {
        return Err(format!("plugins of type {:?} are not supported by this node", info.r#type));
    }
    let spoken = |version: &String| version.trim_start_matches('v').starts_with("1.");
    if !info.supported_versions.iter().any(spoken) {
        return Err(format!("none of the versions {:?} is 1.x", info.supported_versions));
    }
    let endpoint = if info.endpoint.is_empty() { socket } else { Path::new(&info.endpoint) };
    let driver = Driver::new(endpoint);
    let say = |error: crate::cri::RuntimeError| error.to_string();
    let features = driver.features().await.map_err(say)?;
    let info = driver.info().await.map_err(say)?;
    if info.node_id.is_empty() {
        return Err("the driver has no name for this node (NodeGetInfo)".to_owned());
    }
    Ok(Registered { driver, info, features })
}
