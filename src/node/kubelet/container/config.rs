//! A container's CRI configuration.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Pod};
use ring::digest::{SHA256, digest};

use super::{expand, resources, sandbox, security};
use crate::cri::api::{ContainerConfig, ContainerMetadata, ImageSpec, KeyValue, LinuxContainerConfig, Mount};
use crate::cri::labels;
use crate::kubelet::spec;

const LOGS: &str = "/var/log/pods";

/// Where the Pod's containers log: a folder per container below this one.
pub fn log_directory(pod: &Pod) -> PathBuf {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let metadata = &pod.metadata;
    let name = format!("{}_{}_{}", text(&metadata.namespace), text(&metadata.name), text(&metadata.uid));
    Path::new(LOGS).join(name)
}

/// A container's log file, relative to the Pod's folder.
pub fn log_path(container: &str, attempt: u32) -> String {
    format!("{container}/{attempt}.log")
}

/// Changes exactly when what a running container was made from has changed: only its image may.
pub fn definition_hash(container: &Container) -> String {
    let text = format!("{}\n{}", container.name, container.image.as_deref().unwrap_or_default());
    hex::encode(&digest(&SHA256, text.as_bytes()).as_ref()[..8])
}

/// Annotations by which a container tells later what it was made from.
pub const HASH: &str = "io.kubernetes.container.hash";
pub const RESOURCES: &str = "io.minik.container.resources";
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";

fn annotations(container: &Container) -> HashMap<String, String> {
    let path = container.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    HashMap::from([
        (HASH.to_owned(), definition_hash(container)),
        (RESOURCES.to_owned(), resources::resources_hash(container)),
        (MESSAGE_PATH.to_owned(), path.to_owned()),
        (MESSAGE_POLICY.to_owned(), policy.to_owned()),
    ])
}

/// What the worker has gathered for one container.
pub struct Parts<'a> {
    pub pod: &'a Pod,
    pub container: &'a Container,
    pub attempt: u32,
    /// The image's reference on this node.
    pub image: &'a str,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<Mount>,
    /// Bytes of memory the node has.
    pub node_memory: u64,
    /// The container whose processes this one sees, by id.
    pub target: Option<String>,
}

/// The container's configuration.
pub fn container_config(parts: Parts<'_>) -> ContainerConfig {
    let (pod, container, attempt) = (parts.pod, parts.container, parts.attempt);
    let lookup: HashMap<&str, &str> = parts.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expanded = |words: &Option<Vec<String>>| -> Vec<String> {
        words.iter().flatten().map(|word| expand(word, |name| lookup.get(name).copied())).collect()
    };
    let mut labels = HashMap::from([(labels::CONTAINER_NAME.to_owned(), container.name.clone())]);
    labels.extend(
        sandbox::pod_labels(pod).into_iter().filter(|(key, _)| key.starts_with("io.kubernetes.pod.")),
    );
    let spec = spec(pod);
    ContainerConfig {
        metadata: Some(ContainerMetadata { name: container.name.clone(), attempt }),
        image: Some(ImageSpec {
            image: parts.image.to_owned(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..Default::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: parts
            .env
            .iter()
            .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone().into() })
            .collect(),
        mounts: parts.mounts,
        devices: Vec::new(),
        labels,
        annotations: annotations(container),
        log_path: log_path(&container.name, attempt),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(LinuxContainerConfig {
            resources: Some(resources::linux_resources(spec, container, parts.node_memory)),
            security_context: Some(security::container_security(spec, container, parts.target)),
        }),
    }
}
