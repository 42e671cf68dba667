//! Reads what the runtime has of a Pod.

use std::fs;
use std::path::Path;

use k8s_openapi::api::core::v1::Pod;

use super::ops::message_file;
use super::view::{Container, Known, Sandbox, View};
use crate::node::cri::api::{self, ContainerState, PodSandboxState};
use crate::node::cri::{Runtime, RuntimeError};
use crate::node::kubelet::container::{MESSAGE_POLICY, log_directory};

/// Upstream's limits for termination messages: bytes from the file, bytes and lines from the log.
const MESSAGE: usize = 4096;
const LOG_BYTES: usize = 2048;
const LOG_LINES: usize = 80;

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
        container.message = message(pod, dir, &container);
    }
    Ok(Some(container))
}

/// What an ended container left: its message file, or the end of its log where it asked for that and failed.
fn message(pod: &Pod, dir: &Path, container: &Container) -> Option<String> {
    let file = message_file(dir, container.name(), container.attempt());
    let text = fs::read(file).unwrap_or_default();
    if !text.is_empty() {
        return Some(String::from_utf8_lossy(&text[..text.len().min(MESSAGE)]).into_owned());
    }
    let policy = container.status.annotations.get(MESSAGE_POLICY).map(String::as_str);
    if policy != Some("FallbackToLogsOnError") || container.exit_code() == 0 {
        return None;
    }
    let log = log_directory(pod).join(container.name()).join(format!("{}.log", container.attempt()));
    Some(log_end(&fs::read_to_string(log).ok()?)).filter(|text| !text.is_empty())
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

    #[test]
    fn the_log_s_end_is_plain_text() {
        let log = "2026-01-01T00:00:00Z stdout F one\n2026-01-01T00:00:00Z stderr F two words\n";
        assert_eq!(log_end(log), "one\ntwo words");
    }
}
