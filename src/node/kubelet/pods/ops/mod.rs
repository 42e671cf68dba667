//! What a worker has done in the runtime, on the disk and at the API server: each action once, without trying again.
//! When to try again is decided by the plan.

mod container;
mod image;
mod report;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container as Spec, Pod, PodStatus};
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::Api;
use tokio::sync::Mutex;

use super::action::Key;
use crate::cri::RuntimeError;
use crate::kubelet::container::{Facts, Source, cgroup_parent, log_directory, pod_limits, sandbox_config};
use crate::kubelet::context::{Context, reference};
use crate::kubelet::volumes::{self, Contents, Images, Tokens, Volumes};
use crate::kubelet::{ephemeral, spec};
use sys::cgroups;

pub use container::message_file;
pub use report::differs;

/// How long a new Pod waits for its network policies.
const POLICIES: Duration = Duration::from_secs(10);

/// What an action came to.
#[derive(Debug)]
pub enum Outcome {
    Volumes(Result<Volumes, String>),
    Sandbox(Result<(), String>),
    Pulled {
        container: String,
        result: Result<String, Failure>,
    },
    /// The container's id.
    Started {
        container: String,
        result: Result<String, Failure>,
    },
    PostStarted {
        container: String,
        id: String,
        result: Result<(), String>,
    },
    PreStopped {
        container: String,
        id: String,
        result: Result<(), String>,
    },
    Stopped {
        id: String,
        result: Result<(), String>,
    },
    /// The resources the container has now.
    Resized {
        id: String,
        result: Result<String, String>,
    },
    SandboxStopped {
        id: String,
        result: Result<(), String>,
    },
    Removed {
        id: String,
        result: Result<(), String>,
    },
    Released(Result<(), String>),
    Finished(Result<(), String>),
    Cleaned(Result<(), String>),
    /// A status was sent. The Pod as the API server has it now; `None` when it has it no more.
    Reported(Box<PodStatus>, Result<Option<Box<Pod>>, String>),
    Refreshed(Result<(), String>),
}

/// A reason and a message, as container status shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: &'static str,
    pub message: String,
}

pub fn failure(reason: &'static str, message: impl ToString) -> Failure {
    Failure { reason, message: message.to_string() }
}

/// What every action works with, as it was when the action began.
#[derive(Clone)]
pub struct Job {
    pub context: Arc<Context>,
    pub pod: Arc<Pod>,
    pub tokens: Arc<Mutex<Tokens>>,
    pub source: Arc<Source>,
}

impl Job {
    fn uid(&self) -> &str {
        self.pod.metadata.uid.as_deref().unwrap_or_default()
    }

    fn dir(&self) -> PathBuf {
        self.context.pod_dir(self.uid())
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(
            self.context.client.clone(),
            self.pod.metadata.namespace.as_deref().unwrap_or("default"),
        )
    }

    fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    fn container(&self, name: &str) -> Option<Spec> {
        let spec = spec(&self.pod);
        let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let own = all.find(|container| container.name == name).cloned();
        own.or_else(|| ephemeral(&self.pod).into_iter().map(|(spec, _)| spec).find(|spec| spec.name == name))
    }

    /// The Pod's addresses, given its sandbox's.
    fn ips(&self, sandbox: Vec<String>) -> Vec<String> {
        let own = spec(&self.pod).host_network == Some(true);
        if own { vec![self.context.config.node_ip.to_string()] } else { sandbox }
    }

    /// Work on files, off the threads that serve everybody.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, String> + Send + 'static,
    ) -> Result<T, String> {
        self.context.tasks.spawn_blocking(work).await.map_err(|error| error.to_string())?
    }

    fn contents<'a>(&'a self, facts: &'a Facts, images: &'a Images) -> Contents<'a> {
        let Context { client, drivers, runtime, .. } = &*self.context;
        Contents { pod: &self.pod, source: &self.source, facts, client, drivers, runtime, images }
    }

    /// Makes every volume of the Pod.
    pub async fn volumes(self) -> Outcome {
        let images = match self.volume_images().await {
            Ok(images) => images,
            Err(error) => return Outcome::Volumes(Err(error)),
        };
        let facts = self.context.facts(Vec::new());
        let contents = self.contents(&facts, &images);
        let mut tokens = self.tokens.lock().await;
        Outcome::Volumes(volumes::prepare(&self.dir(), &contents, &mut tokens).await)
    }

    /// Brings written volumes up to date.
    pub async fn refresh(self, ips: Vec<String>) -> Outcome {
        let facts = self.context.facts(self.ips(ips));
        let images = Images::default();
        let contents = self.contents(&facts, &images);
        let mut tokens = self.tokens.lock().await;
        Outcome::Refreshed(volumes::refresh(&self.dir(), &contents, &mut tokens).await)
    }

    /// Makes a sandbox, with its folder for logs and its control group.
    pub async fn sandbox(self, attempt: u32) -> Outcome {
        let logs = log_directory(&self.pod);
        if let Err(error) = fs::create_dir_all(&logs) {
            return Outcome::Sandbox(Err(format!("{}: {error}", logs.display())));
        }
        let spec = spec(&self.pod);
        if let Err(error) = cgroups::create(&cgroup_parent(spec, self.uid()), pod_limits(spec)) {
            tracing::warn!(%error, pod = self.name(), "the Pod's own limits are not set");
        }
        let config = sandbox_config(&self.pod, attempt, &self.context.config, &self.context.resolv_conf);
        let handler = match self.runtime_handler().await {
            Ok(handler) => handler,
            Err(error) => return Outcome::Sandbox(Err(error)),
        };
        let made = self.context.runtime.run_sandbox(config, &handler).await;
        let made = made.map_err(|error| error.to_string());
        Outcome::Sandbox(match made {
            Ok(id) => self.admit(&id).await,
            Err(error) => Err(error),
        })
    }

    /// The runtime that the Pod's RuntimeClass stands for; empty where it names none.
    async fn runtime_handler(&self) -> Result<String, String> {
        let name = spec(&self.pod).runtime_class_name.as_deref().filter(|name| !name.is_empty());
        let Some(name) = name else { return Ok(String::new()) };
        let classes: Api<RuntimeClass> = Api::all(self.context.client.clone());
        match classes.get_opt(name).await {
            Ok(Some(class)) => Ok(class.handler),
            Ok(None) => Err(format!("RuntimeClass \"{name}\" not found")),
            Err(error) => Err(format!("RuntimeClass \"{name}\": {error}")),
        }
    }

    /// No container starts before the network policies hold that the Pod's address brings into force.
    async fn admit(&self, sandbox: &str) -> Result<(), String> {
        let (policies, runtime) = (&self.context.policies, &self.context.runtime);
        if !policies.any().await {
            return Ok(());
        }
        let status = runtime.sandbox_status(sandbox).await.map_err(|error| error.to_string())?;
        let Some(ip) = status.network.and_then(|network| network.ip.parse().ok()) else { return Ok(()) };
        let admitted = policies.admit(&self.pod, ip, POLICIES).await;
        if admitted.is_err() {
            // It is made anew, and asked about again.
            let _ = runtime.stop_sandbox(sandbox).await;
        }
        admitted.map_err(|error| error.to_string())
    }

    /// Stops a sandbox.
    pub async fn stop_sandbox(self, id: String) -> Outcome {
        let result = self.context.runtime.stop_sandbox(&id).await;
        Outcome::SandboxStopped { id, result: result.map_err(|error| error.to_string()) }
    }

    /// Removes one sandbox; the runtime may be busy with the end of something in it, so it is stopped once more before.
    async fn remove(&self, id: &str) -> Result<(), RuntimeError> {
        let runtime = &self.context.runtime;
        if runtime.remove_sandbox(id).await.is_ok() {
            return Ok(());
        }
        runtime.stop_sandbox(id).await?;
        runtime.remove_sandbox(id).await
    }

    /// Removes a sandbox that was replaced.
    pub async fn remove_sandbox(self, id: String) -> Outcome {
        let result = self.remove(&id).await;
        Outcome::Removed { id, result: result.map_err(|error| error.to_string()) }
    }

    /// Lets go of the volumes; what the containers left, their messages and their logs, stays.
    pub async fn release(self) -> Outcome {
        if let Err(error) = volumes::take_back(&self.context, &self.dir()).await {
            self.context.events.warning(reference(&self.pod, None), "FailedUnMount", error.to_string());
            return Outcome::Released(Err(error.to_string()));
        }
        let dir = self.dir();
        let released = self.blocking(move || volumes::release(&dir).map_err(|error| error.to_string()));
        Outcome::Released(released.await)
    }

    /// Removes sandboxes with their containers, volumes, logs and the Pod's cgroup.
    pub async fn cleanup(self, sandboxes: Vec<String>) -> Outcome {
        for id in sandboxes {
            if let Err(error) = self.remove(&id).await {
                return Outcome::Cleaned(Err(error.to_string()));
            }
        }
        if let Err(error) = volumes::take_back(&self.context, &self.dir()).await {
            self.context.events.warning(reference(&self.pod, None), "FailedUnMount", error.to_string());
            return Outcome::Cleaned(Err(error.to_string()));
        }
        let (dir, logs) = (self.dir(), log_directory(&self.pod));
        let group = cgroup_parent(spec(&self.pod), self.uid());
        let cleaned = self.blocking(move || {
            volumes::remove(&dir).map_err(|error| error.to_string())?;
            let _ = fs::remove_dir_all(logs);
            cgroups::remove(&group);
            Ok(())
        });
        Outcome::Cleaned(cleaned.await)
    }
}

impl Outcome {
    /// For actions that are simply tried again later: why it failed.
    pub fn failed(&self) -> Option<&str> {
        let result = match self {
            Self::Stopped { result, .. }
            | Self::SandboxStopped { result, .. }
            | Self::Removed { result, .. }
            | Self::Released(result)
            | Self::Finished(result)
            | Self::Sandbox(result)
            | Self::Refreshed(result)
            | Self::Cleaned(result) => result.as_ref().err(),
            Self::Resized { result, .. } => result.as_ref().err(),
            Self::Volumes(result) => result.as_ref().err(),
            Self::Reported(_, result) => result.as_ref().err(),
            Self::Pulled { .. }
            | Self::Started { .. }
            | Self::PostStarted { .. }
            | Self::PreStopped { .. } => None,
        };
        result.map(String::as_str)
    }
}

/// Actions that read what the Pod refers to.
pub fn reads_references(key: &Key, pod: &Pod) -> bool {
    match key {
        Key::Volumes | Key::Refresh | Key::Start(_) => true,
        Key::Pull(_) => spec(pod).image_pull_secrets.is_some(),
        _ => false,
    }
}
