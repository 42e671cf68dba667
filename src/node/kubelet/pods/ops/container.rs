//! Operations on containers.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, LifecycleHandler};

use super::{Failure, Job, Outcome, failure};
use crate::cri::api::Mount;
use crate::kubelet::container::{
    Environment, Parts, cgroup_parent, container_config, environment, hosts_file, linux_resources,
    log_directory, pod_limits, resources_hash, sandbox_config,
};
use crate::kubelet::context::reference;
use crate::kubelet::handler::Target;
use crate::kubelet::pods::action::{Hook, Start, Stop};
use crate::kubelet::spec;
use crate::kubelet::volumes::{self, Volumes};
use sys::cgroups;

const CONFIG: &str = "CreateContainerConfigError";

impl Job {
    /// Creates and starts a container. Its postStart hook is an action of its own.
    pub async fn start(self, start: Start, volumes: Arc<Volumes>) -> Outcome {
        let container = start.container.clone();
        let result = self.create_and_start(start, volumes).await;
        if let Err(failure) = &result {
            let about = reference(&self.pod, Some(&container));
            self.context.events.warning(about, "Failed", format!("Error: {}", failure.message));
        }
        Outcome::Started { container, result }
    }

    async fn create_and_start(&self, start: Start, volumes: Arc<Volumes>) -> Result<String, Failure> {
        let spec = self.container(&start.container).ok_or_else(|| failure(CONFIG, "no such container"))?;
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("default");
        let services = self.context.services.of(namespace).await;
        let ips = self.ips(start.ips.clone());
        let facts = self.context.facts(ips.clone());
        let (of, places) = (spec.clone(), volumes.clone());
        let files = self.blocking(move || Ok(volumes::env_files(&of, &places)));
        let env = environment(&Environment {
            pod: &self.pod,
            container: &spec,
            source: &self.source,
            facts: &facts,
            services: &services,
            files: &files.await.map_err(|error| failure(CONFIG, error))?,
        })
        .map_err(|error| failure(CONFIG, error))?;
        let (dir, of, vars) = (self.dir(), spec.clone(), env.clone());
        let mounts = self
            .blocking(move || volumes::mounts(&dir, &of, &volumes, &vars).map_err(|error| error.to_string()));
        let mut mounts = mounts.await.map_err(|error| failure(CONFIG, error))?;
        let (job, of, attempt) = (self.clone(), spec.clone(), start.attempt);
        let own =
            self.blocking(move || job.own_mounts(&of, attempt, &ips).map_err(|error| error.to_string()));
        mounts.extend(own.await.map_err(|error| failure(CONFIG, error))?);
        let config = container_config(Parts {
            pod: &self.pod,
            container: &spec,
            attempt: start.attempt,
            image: &start.image,
            env,
            mounts,
            node_memory: self.context.memory,
            target: start.target,
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
        Ok(id)
    }

    /// Runs the postStart hook.
    pub async fn post_start(self, hook: Hook) -> Outcome {
        let result = self.run_hook(&hook, |lifecycle| lifecycle.post_start.clone()).await;
        Outcome::PostStarted { container: hook.container, id: hook.id, result }
    }

    /// Runs the preStop hook, no longer than until `until`.
    pub async fn pre_stop(self, hook: Hook, until: Timestamp) -> Outcome {
        let left = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
        let ran = self.run_hook(&hook, |lifecycle| lifecycle.pre_stop.clone());
        let result = tokio::time::timeout(left, ran).await.unwrap_or(Ok(()));
        Outcome::PreStopped { container: hook.container, id: hook.id, result }
    }

    async fn run_hook(
        &self,
        hook: &Hook,
        which: fn(&k8s_openapi::api::core::v1::Lifecycle) -> Option<LifecycleHandler>,
    ) -> Result<(), String> {
        let Some(spec) = self.container(&hook.container) else { return Ok(()) };
        let Some(handler) = spec.lifecycle.as_ref().and_then(which) else { return Ok(()) };
        let pod_ip = self.ips(hook.pod_ip.iter().cloned().collect()).into_iter().next();
        let target = Target {
            runtime: self.context.runtime.clone(),
            container: Arc::new(spec),
            id: hook.id.clone(),
            pod_ip,
        };
        if let Some(exec) = &handler.exec {
            return target.exec(exec, Duration::ZERO).await;
        }
        if let Some(http) = &handler.http_get {
            return target.http(http, "kube-lifecycle/1.36").await.map(drop);
        }
        if let Some(tcp) = &handler.tcp_socket {
            return target.tcp(tcp).await;
        }
        if let Some(sleep) = &handler.sleep {
            tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        }
        Ok(())
    }

    /// The stop signal, then SIGKILL when its time is over.
    pub async fn stop(self, stop: Stop) -> Outcome {
        let left = Duration::try_from(stop.kill_at.duration_since(Timestamp::now())).unwrap_or_default();
        // Rounded up: the runtime counts whole seconds.
        let left = Duration::from_secs(left.as_secs() + u64::from(left.subsec_millis() > 0));
        let result = self.context.runtime.stop_container(&stop.id, left).await;
        Outcome::Stopped { id: stop.id, result: result.map_err(|error| error.to_string()) }
    }

    /// Gives a running container, and the Pod's group around it, the resources of its definition.
    pub async fn resize(self, container: String, id: String) -> Outcome {
        let Some(definition) = self.container(&container) else {
            return Outcome::Resized { id, result: Err("no such container".to_owned()) };
        };
        let spec = spec(&self.pod);
        if let Err(error) = cgroups::create(&cgroup_parent(spec, self.uid()), pod_limits(spec)) {
            tracing::warn!(%error, pod = self.name(), "the Pod's own limits are not changed");
        }
        let resources = linux_resources(spec, &definition, self.context.memory);
        let result = self.context.runtime.update_container(&id, resources).await;
        let result = result.map(|()| resources_hash(&definition)).map_err(|error| error.to_string());
        Outcome::Resized { id, result }
    }

    /// Removes an old container with its log and its message.
    pub async fn remove_container(self, id: String, container: String, attempt: u32) -> Outcome {
        let result = self.context.runtime.remove_container(&id).await.map_err(|error| error.to_string());
        if result.is_ok() {
            let logs = log_directory(&self.pod).join(&container);
            let message = message_file(&self.dir(), &container, attempt);
            let removed = self.blocking(move || {
                remove_logs(&logs, attempt);
                let _ = fs::remove_file(message);
                Ok(())
            });
            // What is left goes with the Pod.
            let _ = removed.await;
        }
        Outcome::Removed { id, result }
    }

    /// /etc/hosts and the file for the termination message.
    fn own_mounts(&self, spec: &Spec, attempt: u32, ips: &[String]) -> std::io::Result<Vec<Mount>> {
        let mounted = |path: &str| spec.volume_mounts.iter().flatten().any(|mount| mount.mount_path == path);
        let dir = self.dir();
        let mut mounts = Vec::new();
        if !mounted("/etc/hosts") {
            let path = dir.join("etc-hosts");
            let own = crate::kubelet::spec(&self.pod).host_network == Some(true);
            let node = own.then(|| fs::read_to_string("/etc/hosts").unwrap_or_default());
            fs::create_dir_all(&dir)?;
            fs::write(&path, hosts_file(&self.pod, ips, &self.context.config, node.as_deref()))?;
            mounts.push(mount("/etc/hosts", &path));
        }
        let message = spec.termination_message_path.as_deref().unwrap_or("/dev/termination-log");
        if !message.is_empty() && !mounted(message) {
            let path = message_file(&dir, &spec.name, attempt);
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
}

/// Removes one container's log, and what was turned over of it.
fn remove_logs(dir: &Path, attempt: u32) {
    let own = format!("{attempt}.log");
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let rest = name.to_str().and_then(|name| name.strip_prefix(&own));
        if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Where a container's termination message lands on the node.
pub fn message_file(dir: &Path, container: &str, attempt: u32) -> PathBuf {
    dir.join("containers").join(container).join(format!("{attempt}"))
}

fn mount(container_path: &str, host: &Path) -> Mount {
    Mount {
        container_path: container_path.to_owned(),
        host_path: host.display().to_string(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_turned_over_goes_with_its_log() {
        let dir = tempfile::tempdir().expect("folder");
        for name in ["1.log", "1.log.20260101-000000", "11.log", "2.log"] {
            fs::write(dir.path().join(name), "x").expect("written");
        }
        remove_logs(dir.path(), 1);
        let entries = fs::read_dir(dir.path()).expect("folder").flatten();
        let mut left: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        left.sort();
        assert_eq!(left, ["11.log", "2.log"]);
    }
}
