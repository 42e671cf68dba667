//! Container logs are turned over before they fill the disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use crate::cri::Runtime;
use crate::cri::api::ContainerState;

/// Upstream's rules: looked at every 10 s, turned over at 10 MiB, five files kept, the current one among them.
const INTERVAL: Duration = Duration::from_secs(10);
const SIZE: u64 = 10 << 20;
const FILES: usize = 5;

/// Looks after the logs of running containers until dropped.
pub async fn run(runtime: Runtime) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Sizes first: the runtime is asked only when some log is too long.
        let long: Vec<PathBuf> = long_logs(Path::new("/var/log/pods"), SIZE);
        if long.is_empty() {
            continue;
        }
        for container in runtime.containers(None).await.unwrap_or_default() {
            if container.state() != ContainerState::ContainerRunning {
                continue;
            }
            let Ok(status) = runtime.container_status(&container.id).await else { continue };
            if long.iter().any(|path| path.as_os_str() == status.log_path.as_str()) {
                turn_over(&runtime, &container.id, Path::new(&status.log_path)).await;
            }
        }
    }
}

/// Current logs longer than `size`: `<Pod>/<container>/<n>.log`.
fn long_logs(root: &Path, size: u64) -> Vec<PathBuf> {
    let entries = |dir: &Path| -> Vec<PathBuf> {
        fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let files =
        entries(root).into_iter().flat_map(|pod| entries(&pod)).flat_map(|container| entries(&container));
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .filter(|path| fs::metadata(path).is_ok_and(|metadata| metadata.len() > size))
        .collect()
}

async fn turn_over(runtime: &Runtime, id: &str, path: &Path) {
    let stamp = Timestamp::now().strftime("%Y%m%d-%H%M%S");
    let aside = PathBuf::from(format!("{}.{stamp}", path.display()));
    if let Err(error) = fs::rename(path, &aside) {
        return tracing::warn!(%error, path = %path.display(), "a log is not turned over");
    }
    if let Err(error) = runtime.reopen_log(id).await {
        // Nobody writes to the new name yet: put the old one back.
        let _ = fs::rename(&aside, path);
        return tracing::warn!(%error, path = %path.display(), "a log is not turned over");
    }
    for old in surplus(path) {
        let _ = fs::remove_file(old);
    }
}

/// Files turned over earlier, beyond those kept; oldest first.
fn surplus(path: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut old: Vec<PathBuf> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .map(|entry| entry.path())
        .collect();
    old.sort();
    let extra = old.len().saturating_sub(FILES - 1);
    old.truncate(extra);
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_long_logs_and_the_oldest_of_many() {
        let dir = tempfile::tempdir().expect("folder");
        let logs = dir.path().join("ns_pod_uid/web");
        fs::create_dir_all(&logs).expect("folders");
        fs::write(logs.join("0.log"), "x".repeat(20)).expect("written");
        fs::write(logs.join("1.log"), "x").expect("written");
        assert_eq!(long_logs(dir.path(), 10), [logs.join("0.log")]);
        for n in 0..6 {
            fs::write(logs.join(format!("0.log.2026010{n}-000000")), "").expect("written");
        }
        let names: Vec<_> = surplus(&logs.join("0.log")).iter().map(|p| p.display().to_string()).collect();
        assert_eq!(names.len(), 2);
        assert!(names[0].ends_with("20260100-000000"));
    }
}
