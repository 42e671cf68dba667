//! Reads what the runtime has of a Pod.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use super::ops::message_file;
use super::status::reset;
use super::view::{Container, Known, Sandbox, View};
use crate::cri::api::{self, ContainerState, PodSandboxState};
use crate::cri::{Runtime, RuntimeError};
use crate::kubelet::container::{MESSAGE_POLICY, log_directory};

/// Upstream's limits for termination messages: bytes from the file, bytes and lines from the log.
const MESSAGE: u64 = 4096;
const LOG_BYTES: usize = 2048;
const LOG_LINES: usize = 80;
/// What of a log is read for them: its lines begin with a time and a stream's name.
const LOG_TAIL: u64 = 64 << 10;

/// Asks the runtime what it has of the Pod. What cannot have changed is not asked again.
pub async fn observe(
    runtime: &Runtime,
    pod: &Pod,
    dir: &Path,
    known: &mut Known,
) -> Result<View, RuntimeError> {
    let uid = pod.metadata.uid.as_deref();
    let (sandboxes, containers) = tokio::try_join!(runtime.sandboxes(uid), runtime.containers(uid))?;
    let mut view = View::default();
    for item in sandboxes {
        if let Some(sandbox) = sandbox(runtime, item, known).await? {
            view.sandboxes.push(sandbox);
        }
    }
    view.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse(sandbox.created_at));
    for item in containers {
        if let Some(container) = container(runtime, pod, dir, item, known).await? {
            view.containers.push(container);
        }
    }
    view.containers.sort_by_key(|container| std::cmp::Reverse(container.status.created_at));
    view.reset = reset(pod, &view.containers);
    known.containers = view.containers.iter().map(|c| (c.id().to_owned(), c.clone())).collect();
    known.sandboxes = view.sandboxes.iter().map(|s| (s.id.clone(), s.clone())).collect();
    Ok(view)
}

async fn sandbox(
    runtime: &Runtime,
    item: api::PodSandbox,
    known: &Known,
) -> Result<Option<Sandbox>, RuntimeError> {
    let ready = item.state() == PodSandboxState::SandboxReady;
    if let Some(old) = known.sandboxes.get(&item.id).filter(|old| old.ready == ready || !ready) {
        return Ok(Some(Sandbox { ready, ..old.clone() }));
    }
    let status = match runtime.sandbox_status(&item.id).await {
        Ok(status) => status,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let network = status.network.unwrap_or_default();
    let more = network.additional_ips.into_iter().map(|ip| ip.ip);
    Ok(Some(Sandbox {
        id: item.id,
        attempt: item.metadata.map_or(0, |metadata| metadata.attempt),
        ready,
        ips: std::iter::once(network.ip).chain(more).filter(|ip| !ip.is_empty()).collect(),
        created_at: item.created_at,
    }))
}

async fn container(
    runtime: &Runtime,
    pod: &Pod,
    dir: &Path,
    item: api::Container,
    known: &Known,
) -> Result<Option<Container>, RuntimeError> {
    if let Some(old) = known.containers.get(&item.id)
        && old.status.state() == item.state()
        && item.state() != ContainerState::ContainerCreated
    {
        return Ok(Some(old.clone()));
    }
    let status = match runtime.container_status(&item.id).await {
        Ok(status) => status,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut container = Container { sandbox: item.pod_sandbox_id, status, message: None };
    if container.is_exited() {
        let file = message_file(dir, container.name(), container.attempt());
        let policy = container.status.annotations.get(MESSAGE_POLICY).map(String::as_str);
        let from_log = policy == Some("FallbackToLogsOnError") && container.exit_code() != 0;
        let log = log_directory(pod).join(container.name()).join(format!("{}.log", container.attempt()));
        // Both are as long as the container made them.
        let left = tokio::task::spawn_blocking(move || message(&file, from_log.then_some(&*log)));
        container.message = left.await.unwrap_or_default();
    }
    Ok(Some(container))
}

/// What an ended container left: its message file, or the end of its log where it asked for that and failed.
fn message(file: &Path, log: Option<&Path>) -> Option<String> {
    let mut text = Vec::new();
    if let Ok(file) = File::open(file) {
        file.take(MESSAGE).read_to_end(&mut text).ok()?;
    }
    if !text.is_empty() {
        return Some(String::from_utf8_lossy(&text).into_owned());
    }
    Some(log_end(&tail(log?).ok()?)).filter(|text| !text.is_empty())
}

/// The last lines of a log, as many as a message can hold.
fn tail(log: &Path) -> std::io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut end = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut end)?;
    let whole =
        if length > LOG_TAIL { end.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1) } else { 0 };
    Ok(String::from_utf8_lossy(&end[whole..]).into_owned())
}

fn log_end(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter_map(|line| line.splitn(4, ' ').nth(3)).collect();
    let text = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
    let mut from = text.len().saturating_sub(LOG_BYTES);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    text[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A container can make both as long as its disk; no more is read than is shown.
    #[test]
    fn messages_are_read_no_further_than_they_are_shown() {
        let dir = tempfile::tempdir().expect("a folder");
        let (file, log) = (dir.path().join("message"), dir.path().join("0.log"));
        let sparse = File::create(&file).expect("made");
        sparse.set_len(1 << 40).expect("sparse");
        let said = message(&file, None).expect("a message");
        assert_eq!(said.len(), 4096);
        std::fs::write(&file, "").expect("emptied");
        let line = "2026-01-01T00:00:00Z stdout F word\n";
        std::fs::write(&log, line.repeat(10_000) + "2026-01-01T00:00:00Z stderr F last\n").expect("written");
        let said = message(&file, Some(&log)).expect("the log's end");
        assert_eq!((said.lines().count(), said.lines().last()), (80, Some("last")));
        assert!(said.lines().take(79).all(|line| line == "word"), "{said}");
        assert_eq!(message(&file, Some(&dir.path().join("none"))), None);
    }

    #[test]
    fn the_log_s_end_is_plain_text() {
        let log = "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stderr F two words\n";
        assert_eq!(log_end(log), "one\ntwo words");
    }
}
