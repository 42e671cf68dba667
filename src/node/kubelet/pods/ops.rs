use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container as Spec, LifecycleHandler, Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::memory::SETUP;
use crate::node::cri::api::{AuthConfig, Mount};
use crate::node::kubelet::container::{
    Environment, Parts, Source, cgroup_parent, check_user, container_config, environment, hosts_file,
    log_directory, pod_limits, sandbox_config,
};
use crate::node::kubelet::context::{Context, reference};
use crate::node::kubelet::handler::Target;
use crate::node::kubelet::image::{self, Policy};
use crate::node::kubelet::spec;
use crate::node::kubelet::volumes::{self, Contents, Tokens, Volumes};
use crate::sys::cgroups;

/// What an action came to.
#[derive(Debug)]
pub enum Outcome {
    Volumes(Result<Volumes, String>),
    Sandbox(Result<(), String>),
    Pulled {
        container: String,
        result: Result<String, Failure>,
    },
    Started {
        container: String,
        result: Result<String, Failure>,
    },
    Stopped {
        id: String,
    },
    SandboxStopped {
        id: String,
    },
    Removed {
        id: String,
    },
    Finished(Result<(), String>),
    Cleaned,
    /// A status was sent; `Err` says why not.
    Reported(Box<PodStatus>, Result<(), String>),
    Refreshed(Result<(), String>),
}

/// A reason and a message, as container status shows them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: &'static str,
    pub message: String,
}

fn failure(reason: &'static str, message: impl ToString) -> Failure {
    Failure { reason, message: message.to_string() }
}

/// Everything an action needs, as it was when the action began.
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

    pub fn container(&self, name: &str) -> Option<Spec> {
        let spec = spec(&self.pod);
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|c| c.name == name).cloned()
    }

    pub async fn volumes(self) -> Outcome {
        let facts = self.context.facts(Vec::new());
        let contents =
            Contents { pod: &self.pod, source: &self.source, facts: &facts, client: &self.context.client };
        let mut tokens = self.tokens.lock().await;
        Outcome::Volumes(volumes::prepare(&self.dir(), &contents, &mut tokens).await)
    }

    pub async fn refresh(self, ips: Vec<String>) -> Outcome {
        let facts = self.context.facts(ips);
        let contents =
            Contents { pod: &self.pod, source: &self.source, facts: &facts, client: &self.context.client };
        let mut tokens = self.tokens.lock().await;
        let result = volumes::refresh(&self.dir(), &contents, &mut tokens).await;
        Outcome::Refreshed(result.map_err(|error| error.to_string()))
    }

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
        let result = self.context.runtime.run_sandbox(config).await;
        Outcome::Sandbox(result.map(drop).map_err(|error| error.to_string()))
    }

    pub async fn pull(self, container: String) -> Outcome {
        let result = match self.container(&container) {
            Some(spec) => self.ensure_image(&spec).await,
            None => Err(failure("ErrImagePull", "no such container")),
        };
        Outcome::Pulled { container, result }
    }

    async fn ensure_image(&self, spec: &Spec) -> Result<String, Failure> {
        let events = &self.context.events;
        let about = || reference(&self.pod, Some(&spec.name));
        let short = spec.image.clone().unwrap_or_default();
        let name = image::normalize(&short).map_err(|error| {
            events.warning(about(), "InspectFailed", error.to_string());
            failure("InvalidImageName", error)
        })?;
        let runtime = &self.context.runtime;
        let present = runtime.image(&name).await.map_err(|error| failure("ImageInspectError", error))?;
        let policy = image::policy(spec);
        match (policy, present) {
            (Policy::IfNotPresent | Policy::Never, Some(image)) => {
                let text = format!("Container image \"{short}\" already present on machine");
                events.normal(about(), "Pulled", text);
                return self.checked(spec, &image);
            }
            (Policy::Never, None) => {
                let text = format!("Container image \"{short}\" is not present with pull policy of Never");
                events.warning(about(), "ErrImageNeverPull", text.clone());
                return Err(failure("ErrImageNeverPull", text));
            }
            _ => {}
        }
        events.normal(about(), "Pulling", format!("Pulling image \"{short}\""));
        let began = tokio::time::Instant::now();
        let auth = credentials(&self.pod, &self.source, &name);
        if let Err(error) = runtime.pull(&name, auth).await {
            events.warning(about(), "Failed", format!("Failed to pull image \"{short}\": {error}"));
            events.warning(about(), "Failed", "Error: ErrImagePull");
            return Err(failure("ErrImagePull", error));
        }
        let image = runtime.image(&name).await.map_err(|error| failure("ImageInspectError", error))?;
        let image = image.unwrap_or_default();
        let took = format!("{:.3}s", began.elapsed().as_secs_f64());
        let text = format!(
            "Successfully pulled image \"{short}\" in {took} ({took} including waiting). Image size: {} bytes.",
            image.size
        );
        events.normal(about(), "Pulled", text);
        self.checked(spec, &image)
    }

    fn checked(&self, container: &Spec, image: &crate::node::cri::api::Image) -> Result<String, Failure> {
        check_user(spec(&self.pod), container, image).map_err(|error| {
            self.context.events.warning(
                reference(&self.pod, Some(&container.name)),
                "Failed",
                format!("Error: {error}"),
            );
            failure("CreateContainerConfigError", error)
        })?;
        Ok(image.id.clone())
    }

    pub async fn start(self, start: Start) -> Outcome {
        let container = start.container.clone();
        let result = self.create_and_start(start).await;
        if let Err(failure) = &result {
            let about = reference(&self.pod, Some(&container));
            self.context.events.warning(about, "Failed", format!("Error: {}", failure.message));
        }
        Outcome::Started { container, result }
    }

    async fn create_and_start(&self, start: Start) -> Result<String, Failure> {
        const CONFIG: &str = "CreateContainerConfigError";
        let spec = self.container(&start.container).ok_or_else(|| failure(CONFIG, "no such container"))?;
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        let services = self.context.services.of(namespace).await;
        let facts = self.context.facts(start.ips.clone());
        let env = environment(&Environment {
            pod: &self.pod,
            container: &spec,
            source: &self.source,
            facts: &facts,
            services: &services,
        })
        .map_err(|error| failure(CONFIG, error))?;
        let mut mounts =
            volumes::mounts(&spec, &start.volumes, &env).map_err(|error| failure(CONFIG, error))?;
        mounts.extend(self.own_mounts(&spec, &start).map_err(|error| failure(CONFIG, error))?);
        let config = container_config(Parts {
            pod: &self.pod,
            container: &spec,
            attempt: start.attempt,
            image: &start.image,
            env,
            mounts,
            node_memory: self.context.memory,
        });
        let sandbox =
            sandbox_config(&self.pod, start.sandbox_attempt, &self.context.config, &self.context.resolv_conf);
        let runtime = &self.context.runtime;
        let id = runtime
            .create_container(&start.sandbox, config, sandbox)
            .await
            .map_err(|error| failure("CreateContainerError", error))?;
        let about = || reference(&self.pod, Some(&spec.name));
        self.context.events.normal(about(), "Created", format!("Created container: {}", spec.name));
        runtime.start_container(&id).await.map_err(|error| failure("RunContainerError", error))?;
        self.context.events.normal(about(), "Started", format!("Started container {}", spec.name));
        if let Some(hook) = spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) {
            self.post_start(&spec, &id, hook, start.ips).await?;
        }
        Ok(id)
    }

    async fn post_start(
        &self,
        spec: &Spec,
        id: &str,
        hook: &LifecycleHandler,
        ips: Vec<String>,
    ) -> Result<(), Failure> {
        let target = self.target(spec, id, ips.into_iter().next());
        let Err(why) = run_hook(&target, hook).await else { return Ok(()) };
        let about = reference(&self.pod, Some(&spec.name));
        self.context.events.warning(about, "FailedPostStartHook", format!("PostStartHook failed: {why}"));
        let _ = self.context.runtime.stop_container(id, Duration::from_secs(2)).await;
        Err(failure("PostStartHookError", why))
    }

    pub fn target(&self, spec: &Spec, id: &str, pod_ip: Option<String>) -> Target {
        Target {
            runtime: self.context.runtime.clone(),
            container: Arc::new(spec.clone()),
            id: id.to_owned(),
            pod_ip,
        }
    }

    /// /etc/hosts and the file for the termination message.
    fn own_mounts(&self, spec: &Spec, start: &Start) -> std::io::Result<Vec<Mount>> {
        let mounted = |path: &str| spec.volume_mounts.iter().flatten().any(|mount| mount.mount_path == path);
        let dir = self.dir();
        let mut mounts = Vec::new();
        if !mounted("/etc/hosts") {
            let path = dir.join("etc-hosts");
            let own = crate::node::kubelet::spec(&self.pod).host_network == Some(true);
            let node = own.then(|| fs::read_to_string("/etc/hosts").unwrap_or_default());
            fs::create_dir_all(&dir)?;
            fs::write(&path, hosts_file(&self.pod, &start.ips, &self.context.config, node.as_deref()))?;
            mounts.push(mount("/etc/hosts", &path));
        }
        let message = spec.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        if !message.is_empty() && !mounted(message) {
            let path = message_file(&dir, &spec.name, start.attempt);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, "")?;
            // Whatever user the container runs as may write its message.
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
            mounts.push(mount(message, &path));
        }
        Ok(mounts)
    }

    /// preStop, then the stop signal, then SIGKILL; all within `grace` seconds, of which the signal gets at least two.
    pub async fn stop(self, stop: Stop) -> Outcome {
        let about = reference(&self.pod, Some(&stop.container));
        self.context.events.normal(about.clone(), "Killing", stop.message.clone());
        let grace = Duration::from_secs(u64::try_from(stop.grace).unwrap_or(0));
        let began = tokio::time::Instant::now();
        let spec = self.container(&stop.container);
        let hook = spec.as_ref().and_then(|spec| spec.lifecycle.as_ref()?.pre_stop.clone());
        if let (Some(spec), Some(hook)) = (&spec, hook)
            && stop.grace > 0
        {
            let target = self.target(spec, &stop.id, stop.pod_ip.clone());
            match tokio::time::timeout(grace, run_hook(&target, &hook)).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => {
                    self.context.events.warning(
                        about,
                        "FailedPreStopHook",
                        format!("PreStopHook failed: {why}"),
                    );
                }
                Err(_) => tracing::debug!(container = stop.container, "preStop used up the grace period"),
            }
        }
        let left = grace.saturating_sub(began.elapsed()).max(Duration::from_secs(2).min(grace));
        // Rounded up: the runtime counts whole seconds.
        let left = Duration::from_secs(left.as_secs() + u64::from(left.subsec_millis() > 0));
        if let Err(error) = self.context.runtime.stop_container(&stop.id, left).await {
            tracing::warn!(%error, container = stop.container, pod = self.name(), "a container does not stop");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Outcome::Stopped { id: stop.id }
    }

    pub async fn stop_sandbox(self, id: String) -> Outcome {
        if let Err(error) = self.context.runtime.stop_sandbox(&id).await {
            tracing::warn!(%error, pod = self.name(), "a sandbox does not stop");
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Outcome::SandboxStopped { id: String::new() };
        }
        Outcome::SandboxStopped { id }
    }

    pub async fn remove_container(self, id: String, container: String, attempt: u32) -> Outcome {
        if let Err(error) = self.context.runtime.remove_container(&id).await {
            tracing::warn!(%error, pod = self.name(), "an old container is not removed");
        }
        let _ = fs::remove_file(log_directory(&self.pod).join(&container).join(format!("{attempt}.log")));
        let _ = fs::remove_file(message_file(&self.dir(), &container, attempt));
        Outcome::Removed { id }
    }

    /// Sends the whole status; fields that were there and are not any more are taken away.
    pub async fn report(self, status: PodStatus, before: Option<PodStatus>) -> Outcome {
        let result = self.patch_status(&status, before.as_ref()).await;
        if result.is_err() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Outcome::Reported(Box::new(status), result)
    }

    async fn patch_status(&self, status: &PodStatus, before: Option<&PodStatus>) -> Result<(), String> {
        let body = status_patch(self.uid(), status, before);
        let patched =
            self.api().patch_status(self.name(), &PatchParams::default(), &Patch::Merge(&body)).await;
        match patched {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                tracing::debug!(pod = self.name(), %status, "the Pod is not there any more");
                Ok(())
            }
            Err(kube::Error::Api(status)) => Err(status.message.clone()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The last status, then the end: the Pod may be forgotten by everybody.
    pub async fn finish(self, status: PodStatus) -> Outcome {
        if let Err(error) = self.patch_status(&status, self.pod.status.as_ref()).await {
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Outcome::Finished(Err(error));
        }
        let preconditions = Preconditions { uid: self.pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..Default::default()
        };
        match self.api().delete(self.name(), &params).await {
            Ok(_) => Outcome::Finished(Ok(())),
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Outcome::Finished(Ok(())),
            Err(error) => {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Outcome::Finished(Err(error.to_string()))
            }
        }
    }

    /// The runtime may be busy with the end of something in it; what still resists goes when the agent starts again.
    async fn remove_sandbox(&self, id: &str) {
        const ATTEMPTS: u32 = 6;
        for attempt in 1..=ATTEMPTS {
            let runtime = &self.context.runtime;
            let Err(error) = runtime.remove_sandbox(id).await else { return };
            tracing::warn!(%error, attempt, pod = self.name(), "a sandbox is not removed yet");
            tokio::time::sleep(SETUP.delay(attempt)).await;
            let _ = runtime.stop_sandbox(id).await;
        }
    }

    /// Removes sandboxes with their containers, volumes, logs and the Pod's cgroup.
    pub async fn cleanup(self, sandboxes: Vec<String>) -> Outcome {
        for id in sandboxes {
            self.remove_sandbox(&id).await;
        }
        if let Err(error) = volumes::remove(&self.dir()) {
            tracing::warn!(%error, pod = self.name(), "volumes are not removed");
        }
        let _ = fs::remove_dir_all(log_directory(&self.pod));
        cgroups::remove(&cgroup_parent(spec(&self.pod), self.uid()));
        Outcome::Cleaned
    }
}

/// What a container is started with.
#[derive(Clone, Debug)]
pub struct Start {
    pub container: String,
    pub attempt: u32,
    pub image: String,
    pub sandbox: String,
    pub sandbox_attempt: u32,
    pub ips: Vec<String>,
    pub volumes: Arc<Volumes>,
}

/// How a container is stopped.
#[derive(Clone, Debug)]
pub struct Stop {
    pub container: String,
    pub id: String,
    pub grace: i64,
    pub message: String,
    pub pod_ip: Option<String>,
}

/// Where a container's termination message lands on the node.
pub fn message_file(dir: &std::path::Path, container: &str, attempt: u32) -> PathBuf {
    dir.join("containers").join(container).join(format!("{attempt}"))
}

fn mount(container_path: &str, host: &std::path::Path) -> Mount {
    Mount {
        container_path: container_path.to_owned(),
        host_path: host.display().to_string(),
        ..Default::default()
    }
}

async fn run_hook(target: &Target, hook: &LifecycleHandler) -> Result<(), String> {
    if let Some(exec) = &hook.exec {
        return target.exec(exec, Duration::ZERO).await;
    }
    if let Some(http) = &hook.http_get {
        return target.http(http, "kube-lifecycle/1.36").await;
    }
    if let Some(sleep) = &hook.sleep {
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
    }
    Ok(())
}

/// The merge patch that makes the stored status `status`.
fn status_patch(uid: &str, status: &PodStatus, before: Option<&PodStatus>) -> Value {
    let mut new = serde_json::to_value(status).unwrap_or_default();
    let old = before.and_then(|before| serde_json::to_value(before).ok()).unwrap_or_default();
    // Fields other components own stay as they are.
    const FOREIGN: &[&str] =
        &["nominatedNodeName", "resize", "resourceClaimStatuses", "ephemeralContainerStatuses"];
    if let (Some(new), Some(old)) = (new.as_object_mut(), old.as_object()) {
        for key in old.keys().filter(|key| !FOREIGN.contains(&key.as_str())) {
            new.entry(key.clone()).or_insert(Value::Null);
        }
    }
    json!({ "metadata": { "uid": uid }, "status": new })
}

/// The registry's credentials among the Pod's imagePullSecrets.
fn credentials(pod: &Pod, source: &Source, image: &str) -> Option<AuthConfig> {
    use crate::node::kubelet::objects::Kind;
    let registry = image.split('/').next()?;
    let secrets = spec(pod).image_pull_secrets.iter().flatten();
    secrets
        .filter_map(|secret| source.get(Kind::Secret, &secret.name))
        .find_map(|data| registry_auth(data, registry))
}

fn registry_auth(data: &BTreeMap<String, Vec<u8>>, registry: &str) -> Option<AuthConfig> {
    let config: Value = serde_json::from_slice(data.get(".dockerconfigjson")?).ok()?;
    let host = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://");
        key.split('/').next().unwrap_or_default().to_owned()
    };
    let same = |key: &str| {
        let host = host(key);
        host == registry || (registry == "docker.io" && host.ends_with("docker.io"))
    };
    let (_, entry) = config.get("auths")?.as_object()?.iter().find(|(key, _)| same(key))?;
    let text = |key: &str| entry.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(AuthConfig {
        username: text("username"),
        password: text("password"),
        auth: text("auth"),
        identity_token: text("identitytoken"),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_takes_away_what_is_gone() {
        let before =
            PodStatus { reason: Some("x".into()), pod_ip: Some("1.2.3.4".into()), ..Default::default() };
        let now =
            PodStatus { phase: Some("Running".into()), pod_ip: Some("1.2.3.5".into()), ..Default::default() };
        let patch = status_patch("u", &now, Some(&before));
        assert_eq!(
            patch,
            json!({"metadata": {"uid": "u"},
                "status": {"phase": "Running", "podIP": "1.2.3.5", "reason": null}})
        );
    }

    #[test]
    fn credentials_are_found_by_registry() {
        let config = json!({"auths": {"https://index.docker.io/v1/": {"auth": "YTpi"}, "r.example": {"username": "u"}}});
        let data = BTreeMap::from([(".dockerconfigjson".to_owned(), config.to_string().into_bytes())]);
        assert_eq!(registry_auth(&data, "docker.io").map(|auth| auth.auth), Some("YTpi".into()));
        assert_eq!(registry_auth(&data, "r.example").map(|auth| auth.username), Some("u".into()));
        assert_eq!(registry_auth(&data, "other"), None);
    }
}
