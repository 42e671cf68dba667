//! Reports the node's status.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use ipnet::Ipv4Net;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::object::{self, Facts};
use crate::cni;
use crate::cri::api;
use crate::kubelet::context::Context;
use client::typed::node_is_ready;
use sys::cgroups;
use sys::identity::Machine;
use sys::inotify::{WatchError, Watcher};

/// An unchanged status is told this often.
const HEARTBEAT: Duration = Duration::from_secs(300);
/// How often the machine is looked at.
const LOOK: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(500);
/// There since this machine was Ready, until it stops: a later agent finds it.
const PROVEN: &str = "/run/minik/ready";
/// A machine that was Ready when its agent ended stays so for its next agent's first look at everything.
const TAKE_OVER: Duration = Duration::from_secs(10);
/// Between two questions whether the runtime has read its network file.
const SETTLE: Duration = Duration::from_millis(10);

/// What readiness waits for beside this kubelet itself.
pub struct Signals {
    /// The runtime runs.
    pub runtime: watch::Receiver<bool>,
    /// A name and a Service were reached from this node.
    pub network: watch::Receiver<bool>,
    /// The kubelet's own server can be spoken to.
    pub server: watch::Receiver<bool>,
}

/// Tells the API server about this machine.
pub struct Reporter {
    context: Arc<Context>,
    machine: Machine,
    runtime_version: String,
    signals: Signals,
    /// Pods' network is written; woken by the watch of our own Node.
    cni: watch::Sender<bool>,
    told: Option<(NodeStatus, Instant)>,
    /// What the runtime listed when it last answered.
    images: Vec<api::Image>,
    /// Whether what was told last says Ready.
    ready: bool,
    /// Until then nothing is said of what is not proven yet: an agent was here before, and Pods run.
    taking_over: Option<Instant>,
}

impl Reporter {
    /// Registers the node: returns when the API server knows it and its addresses.
    pub async fn register(context: Arc<Context>, machine: Machine, signals: Signals) -> Self {
        let runtime_version = match context.runtime.version().await {
            Ok(version) => format!("{}://{}", version.runtime_name, version.runtime_version),
            Err(_) => "containerd://unknown".to_owned(),
        };
        let mut reporter = Self {
            context,
            machine,
            runtime_version,
            signals,
            cni: watch::Sender::new(false),
            told: None,
            images: Vec::new(),
            ready: false,
            taking_over: None,
        };
        while let Err(error) = reporter.register_once().await {
            tracing::warn!(error = brief(&error), "the node is not registered yet");
            tokio::time::sleep(RETRY).await;
        }
        reporter
    }

    fn api(&self) -> Api<Node> {
        Api::all(self.context.client.clone())
    }

    async fn register_once(&mut self) -> Result<(), kube::Error> {
        let config = &self.context.config;
        let node = object::registration(config, &self.machine);
        let api = self.api();
        let node = match api.create(&PostParams::default(), &node).await {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let labels = object::labels(config, &self.machine);
                let patch = json!({ "metadata": { "labels": labels } });
                api.patch(&config.node, &PatchParams::default(), &Patch::Merge(&patch)).await?
            }
            other => other?,
        };
        self.seen(&node);
        self.told = node.status.clone().map(|status| (status, Instant::now()));
        if node_is_ready(&node) && Path::new(PROVEN).exists() {
            self.taking_over = Some(Instant::now() + TAKE_OVER);
        }
        let facts = self.facts().await;
        self.tell(&facts.facts).await
    }

    /// Takes from our own Node what others decided: its identity and Pods' addresses. What they wrote over our own
    /// report (that the node is silent, resources it shall have) is answered by the next one.
    fn seen(&mut self, node: &Node) {
        self.context.node.send_replace(Arc::new(node.clone()));
        if let (Some((told, _)), Some(status)) = (&mut self.told, &node.status)
            && !object::same(told, status)
        {
            *told = status.clone();
        }
        if self.context.config.settings.brought.cni {
            self.cni.send_replace(cni::any(Path::new(cni::CONF_DIR)));
            return;
        }
        let cidr = node.spec.as_ref().and_then(|spec| spec.pod_cidr.as_deref()?.parse::<Ipv4Net>().ok());
        let Some(cidr) = cidr else { return };
        match cni::write(Path::new(cni::CONF_DIR), cidr) {
            Ok(_) => drop(self.cni.send_replace(true)),
            Err(error) => tracing::error!(%error, "Pods' network cannot be written"),
        }
    }

    /// Keeps the status fresh, and follows our own Node, until the tasks stop.
    pub async fn run(mut self) {
        self.context.events.normal(self.context.node_reference(), "Starting", "Starting kubelet.");
        let mut nodes = Box::pin(watch_object(self.api(), &self.context.config.node).default_backoff());
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut network_pending = true;
        let brought = self.context.config.settings.brought.cni.then(networks).flatten();
        let mut used = self.context.drivers.changes();
        let mut pressure = self.context.pressure.subscribe();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = changed(brought.as_ref()) => {
                    let _ = self.cni.send_replace(cni::any(Path::new(cni::CONF_DIR)));
                }
                Some(Ok(node)) = nodes.next() => match node {
                    Some(node) => self.seen(&node),
                    None => {
                        tracing::warn!("this node was deleted; registering it again");
                        self.told = None;
                        if let Err(error) = self.register_once().await {
                            tracing::warn!(error = brief(&error), "the node is not registered yet");
                        }
                    }
                },
                Ok(()) = self.signals.runtime.changed() => {}
                Ok(()) = self.signals.network.changed() => {}
                Ok(()) = self.signals.server.changed() => {}
                Ok(()) = used.changed() => {}
                Ok(()) = pressure.changed() => {}
                // The runtime reads a new network file by itself and tells nobody: asked briefly until it has.
                () = tokio::time::sleep(SETTLE), if network_pending && *self.cni.borrow() => {}
            }
            let facts = self.facts().await;
            network_pending = !facts.network_ready;
            if let Err(error) = self.tell(&facts.facts).await {
                tracing::warn!(error = brief(&error), "node status is not told yet");
            }
        }
    }

    async fn tell(&mut self, facts: &Facts) -> Result<(), kube::Error> {
        let ready = facts.not_ready.is_empty();
        if !ready && self.taking_over.is_some_and(|until| until > Instant::now()) {
            return Ok(());
        }
        if ready && self.taking_over.take().is_some() {
            tracing::info!("the node has stayed Ready");
        }
        let before = self.told.as_ref().map(|(status, _)| status);
        let status = object::status(&self.context.config, facts, before, Timestamp::now());
        let fresh = self
            .told
            .as_ref()
            .is_some_and(|(told, when)| object::same(told, &status) && when.elapsed() < HEARTBEAT);
        if fresh {
            return Ok(());
        }
        let patch = json!({ "status": &status });
        let name = self.context.config.node.clone();
        let node = self.api().patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch)).await?;
        if self.told.is_none() {
            tracing::info!(node = node.name_any(), "registered");
        }
        for reason in object::turned(before, &status) {
            let text = format!("Node {} status is now: {reason}", self.context.config.node);
            self.context.events.normal(self.context.node_reference(), reason, text);
        }
        if ready && !self.ready {
            // Without it a later agent says what it sees at once.
            let _ = std::fs::write(PROVEN, "");
            tracing::info!(node = node.name_any(), "the node is Ready");
        }
        self.ready = ready;
        self.told = Some((status, Instant::now()));
        Ok(())
    }

    async fn facts(&mut self) -> Observed {
        let mut not_ready = Vec::new();
        let mut network_ready = false;
        let status = self.context.runtime.status().await;
        let answers = status.is_ok();
        match status {
            Ok(conditions) => {
                for condition in conditions {
                    network_ready |= condition.r#type == "NetworkReady" && condition.status;
                    if !condition.status {
                        let kind = if condition.r#type == "NetworkReady" { "network " } else { "" };
                        not_ready.push(format!(
                            "container runtime {kind}not ready: {}=false reason:{} message:{}",
                            condition.r#type, condition.reason, condition.message
                        ));
                    }
                }
            }
            Err(error) => not_ready.push(format!("container runtime is down: {error}")),
        }
        if !*self.cni.borrow() {
            let brought = self.context.config.settings.brought.cni;
            not_ready.push(match brought {
                true => format!("no network plugin has put its configuration into {} yet", cni::CONF_DIR),
                false => "the node has no range of Pod addresses yet".to_owned(),
            });
        }
        if !*self.signals.network.borrow() {
            not_ready.push(
                "the node's network is not proven yet: DNS or the API server's Service does not answer"
                    .to_owned(),
            );
        }
        if !*self.signals.server.borrow() {
            not_ready.push("the kubelet has no serving certificate yet".to_owned());
        }
        // A runtime that does not say how it is would keep this waiting for its images, too, and nobody be told.
        if answers && let Ok(images) = self.context.runtime.images().await {
            self.images = images;
        }
        let facts = Facts {
            machine: self.machine.clone(),
            capacity: cgroups::capacity(),
            disk: disk(&self.context.dir),
            pressure: *self.context.pressure.borrow(),
            limits: self.context.limits.clone(),
            runtime_version: self.runtime_version.clone(),
            images: self.images.clone(),
            not_ready,
            volumes_in_use: self.context.drivers.in_use(),
        };
        Observed { facts, network_ready }
    }
}

struct Observed {
    facts: Facts,
    network_ready: bool,
}

/// The API server's message without the Status around it.
fn brief(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Bytes of the file system at `path`.
fn disk(path: &Path) -> u64 {
    nix::sys::statvfs::statvfs(path).map_or(0, |stat| stat.blocks() * stat.fragment_size())
}

/// Tells of networks that somebody else brings.
fn networks() -> Option<Watcher> {
    let watch = || {
        std::fs::create_dir_all(cni::CONF_DIR)
            .map_err(|source| WatchError::Other { path: cni::CONF_DIR.to_owned(), source })?;
        let watcher = Watcher::new()?;
        watcher.add(Path::new(cni::CONF_DIR))?;
        Ok::<_, WatchError>(watcher)
    };
    watch()
        .inspect_err(|error| tracing::error!(%error, "a network plugin's configuration is noticed late"))
        .ok()
}

/// The next change; never where there is nothing to watch.
async fn changed(networks: Option<&Watcher>) {
    match networks {
        Some(watcher) if watcher.changed().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}
