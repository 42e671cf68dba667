//! Runs the node's static Pods, and keeps their mirrors at the API server.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use tokio::sync::watch;
use tokio::time::Instant;

use super::manager::Manager;
use super::state::SETUP;
use crate::kubelet::statics::{Folder, FoundPods, Step, is_static, steps, with_mirror};
use sys::inotify::{WatchError, Watcher};

/// The static Pods that are wanted, by uid.
pub struct StaticPods {
    wanted: Mutex<HashMap<String, Arc<Pod>>>,
    /// Counts changes of them and of their mirrors; 0 until the API server has told of the mirrors.
    changes: watch::Sender<u64>,
    /// When the last mirror went.
    gone: Mutex<Option<Instant>>,
}

/// Whoever deletes a mirror and waits for that sees it gone for so long; one that is there again at once looks to kubectl
/// as if it had never gone.
const GONE: Duration = Duration::from_secs(1);

impl Default for StaticPods {
    fn default() -> Self {
        Self { wanted: Mutex::default(), changes: watch::Sender::new(0), gone: Mutex::default() }
    }
}

impl StaticPods {
    fn wanted(&self) -> Vec<Arc<Pod>> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn gone(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The API server has told of every mirror there is.
    pub fn listed(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    fn changed(&self) {
        self.changes.send_if_modified(|count| {
            *count += u64::from(*count > 0);
            *count > 0
        });
    }
}

fn same_name(one: &Pod, other: &Pod) -> bool {
    (&one.metadata.namespace, &one.metadata.name) == (&other.metadata.namespace, &other.metadata.name)
}

impl Manager {
    /// Runs what the folder describes now, and follows its changes until dropped. The first reading is done when this
    /// returns: nobody takes the containers of static Pods for leftovers.
    pub(super) fn follow_manifests(&self) {
        let mut folder = match Folder::of_node(&self.context.config.node) {
            Ok(folder) => folder,
            Err(error) => return tracing::error!(%error, "there is no folder for static Pods"),
        };
        let watcher = Watcher::new().and_then(|watcher| watcher.add(folder.path()).map(|()| watcher));
        self.want(folder.read());
        let manager = self.clone();
        self.context.tasks.spawn_until_stop(async move {
            if let Err(error) = manager.follow_folder(folder, watcher).await {
                tracing::error!(%error, "static Pods are not followed");
            }
        });
        let manager = self.clone();
        self.context.tasks.spawn_until_stop(async move { manager.keep_mirrors().await });
    }

    async fn follow_folder(
        &self,
        mut folder: Folder,
        watcher: Result<Watcher, WatchError>,
    ) -> Result<(), WatchError> {
        let watcher = watcher?;
        let failed = |source| WatchError::Other { path: "inotify".to_owned(), source };
        loop {
            watcher.changed().await.map_err(failed)?;
            self.want(folder.read());
        }
    }

    /// Takes what the folder describes: the others end.
    fn want(&self, found: FoundPods) {
        for trouble in found.troubles {
            tracing::warn!(trouble, "a manifest describes no static Pod");
            let node = &self.context.config.node;
            let about = ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(node.clone()),
                uid: Some(node.clone()),
                ..ObjectReference::default()
            };
            self.context.events.warning(about, "InvalidStaticPod", trouble);
        }
        let uid = |pod: &Pod| pod.metadata.uid.clone().unwrap_or_default();
        let wanted: HashMap<String, Arc<Pod>> =
            found.pods.into_iter().map(|pod| (uid(&pod), Arc::new(pod))).collect();
        self.statics.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&wanted);
        for pod in self.pods().iter().filter(|pod| is_static(pod) && !wanted.contains_key(&uid(pod))) {
            self.gone(&uid(pod));
        }
        wanted.values().for_each(|pod| self.run_static(pod));
        self.statics.changed();
    }

    /// Begins with a static Pod, unless it runs; its predecessor of that name must have ended.
    fn run_static(&self, pod: &Arc<Pod>) {
        if !self.pods().iter().any(|other| is_static(other) && same_name(other, pod)) {
            self.apply(with_mirror(pod, self.context.mirrors.of(pod).as_deref()));
        }
    }

    /// A static Pod's last trace is gone: another one of its name may begin.
    pub(super) fn static_gone(&self, gone: &Pod) {
        let next = self.statics.wanted().into_iter().find(|pod| same_name(pod, gone));
        if let Some(next) = next {
            self.run_static(&next);
        }
    }

    /// Takes a mirror as the API server has it, or that it has it no more.
    pub(super) fn mirror(&self, mirror: Pod, gone: bool) {
        if gone {
            self.context.mirrors.remove(&mirror);
            *self.statics.gone() = Some(Instant::now());
        } else {
            self.context.mirrors.put(Arc::new(mirror.clone()));
        }
        let shown = self.pods().into_iter().find(|pod| is_static(pod) && same_name(pod, &mirror));
        if let Some(pod) = shown.filter(|pod| self.has_worker(pod)) {
            self.apply(with_mirror(&pod, self.context.mirrors.of(&pod).as_deref()));
        }
        self.statics.changed();
    }

    /// Makes the API server show the static Pods, until dropped.
    async fn keep_mirrors(&self) {
        let mut changes = self.statics.changes.subscribe();
        let _ = changes.wait_for(|count| *count > 0).await;
        let mut failures = 0;
        loop {
            changes.borrow_and_update();
            let node = self.context.node.borrow().clone();
            let mut failed = false;
            for step in steps(&self.statics.wanted(), &self.context.mirrors, &node) {
                if let Err(error) = self.show(step).await {
                    tracing::warn!(%error, "a static Pod is not shown yet");
                    failed = true;
                }
            }
            failures = if failed { failures + 1 } else { 0 };
            let again = async {
                match failed {
                    true => tokio::time::sleep(SETUP.delay(failures)).await,
                    false => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = changes.changed() => {}
                () = again => {}
            }
        }
    }

    async fn show(&self, step: Step) -> Result<(), kube::Error> {
        let api = |namespace: &str| Api::<Pod>::namespaced(self.context.client.clone(), namespace);
        match step {
            Step::Create(mirror) => {
                let gone = *self.statics.gone();
                if let Some(gone) = gone {
                    tokio::time::sleep_until(gone + GONE).await;
                }
                let namespace = mirror.metadata.namespace.clone().unwrap_or_default();
                match api(&namespace).create(&PostParams::default(), &mirror).await {
                    Ok(made) => self.mirror(made, false),
                    // The watch tells of it.
                    Err(kube::Error::Api(status)) if status.code == 409 => {}
                    Err(error) => return Err(error),
                }
            }
            Step::Delete(namespace, name, uid) => {
                let preconditions = Preconditions { uid: Some(uid), resource_version: None };
                let params = DeleteParams {
                    grace_period_seconds: Some(0),
                    preconditions: Some(preconditions),
                    ..DeleteParams::default()
                };
                match api(&namespace).delete(&name, &params).await {
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                    other => drop(other?),
                }
            }
        }
        Ok(())
    }
}
