//! Garbage: deletes what has lost its owners, in the background or before the owner itself, or lets it stay.
//!
//! It watches the metadata of everything there is and keeps who owns whom.
//!
//! ```text
//! owner gone                    -> dependents are deleted
//! owner waits (foreground)      -> dependents are deleted, then the owner is let go
//! owner leaves them (orphan)    -> their reference is removed, then the owner is let go
//! ```

mod graph;

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{
    DeleteParams, DynamicObject, PartialObjectMeta, Patch, PatchParams, Preconditions, PropagationPolicy,
};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;

use self::graph::{Graph, Item, Plan};
use super::context::{Context, Error, ignore_not_found};
use super::discovered::{Kind, kinds};
use super::harness::{Harness, Outcome, Reconcile};
use client::queue::Queue;
use rt::{Backoff, Stop, Tasks};

/// Between attempts to discover or watch.
const RETRY: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(10) };

struct Reconciler {
    client: Client,
    queue: Queue<String>,
    graph: Mutex<Graph>,
    kinds: RwLock<Kinds>,
}

/// The kinds that are followed. They come and go with definitions; a number is never given twice.
#[derive(Default)]
struct Kinds {
    /// By group and kind.
    by_name: HashMap<(String, String), usize>,
    all: Vec<Kind>,
    ends: HashMap<usize, Stop>,
}

pub(super) fn start(context: &Context) {
    let mut harness = Harness::new(context);
    let shared = Arc::new(Reconciler {
        client: context.client.clone(),
        queue: harness.queue(),
        graph: Mutex::default(),
        kinds: RwLock::default(),
    });
    let unsynced = watch::Sender::new(None);
    let mut waiting = unsynced.subscribe();
    harness.waits_for(async move {
        // An owner that was not listed yet must not look absent.
        let _ = waiting.wait_for(|left| *left == Some(0)).await;
    });
    // Whatever happens to a definition, or to another server's group, may change which kinds there are.
    let (changed, changes) = watch::channel(());
    let of_servers = changed.clone();
    context.cache::<APIService>().on_change(move |change| {
        let remote =
            |service: &Arc<APIService>| service.spec.as_ref().is_some_and(|spec| spec.service.is_some());
        if change.latest().is_some_and(remote) {
            of_servers.send_modify(|()| ());
        }
    });
    context.cache::<CustomResourceDefinition>().on_change(move |change| {
        if change.old.map(face) != change.new.map(face) {
            changed.send_modify(|()| ());
        }
    });
    let (follower, tasks) = (Arc::clone(&shared), context.tasks.clone());
    context.tasks.spawn_until_stop(async move { follower.follow(changes, &unsynced, &tasks).await });
    harness.run(10, shared);
}

/// What of a definition decides which kinds there are.
fn face(definition: &Arc<CustomResourceDefinition>) -> impl PartialEq {
    let spec = &definition.spec;
    let served: Vec<String> =
        spec.versions.iter().filter(|version| version.served).map(|version| version.name.clone()).collect();
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let established = conditions
        .filter(|condition| condition.type_ == "Established")
        .any(|condition| condition.status == "True");
    (spec.group.clone(), spec.names.clone(), served, established)
}

type Unsynced = watch::Sender<Option<usize>>;

impl Reconciler {
    /// Discovers the kinds there are, again after every change of a definition, and watches each of them.
    async fn follow(self: Arc<Self>, mut changes: watch::Receiver<()>, unsynced: &Unsynced, tasks: &Tasks) {
        let mut failures = 0;
        loop {
            match kinds(&self.client, false).await {
                Ok(kinds) => {
                    failures = 0;
                    self.take(kinds, unsynced, tasks);
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    failures += 1;
                    tracing::debug!(%error, "discovery failed");
                    tokio::time::sleep(RETRY.delay(failures)).await;
                }
            }
        }
    }

    /// Begins to watch kinds that are new, and forgets those that are gone.
    fn take(self: &Arc<Self>, found: Vec<Kind>, unsynced: &Unsynced, tasks: &Tasks) {
        let name = |kind: &Kind| (kind.resource.group.clone(), kind.resource.kind.clone());
        let mut kinds = self.kinds.write().unwrap_or_else(PoisonError::into_inner);
        let present: HashSet<_> =
            found.iter().map(|kind| (name(kind), kind.resource.version.clone())).collect();
        let known = |kinds: &Kinds, at: usize| (name(&kinds.all[at]), kinds.all[at].resource.version.clone());
        let gone: Vec<usize> =
            kinds.by_name.values().copied().filter(|at| !present.contains(&known(&kinds, *at))).collect();
        for at in gone {
            let was = name(&kinds.all[at]);
            kinds.by_name.remove(&was);
            if let Some(end) = kinds.ends.remove(&at) {
                end.cancel();
            }
            self.graph().replace(at, Vec::new()).into_iter().for_each(|uid| self.queue.add(uid));
        }
        let fresh: Vec<Kind> =
            found.into_iter().filter(|kind| !kinds.by_name.contains_key(&name(kind))).collect();
        unsynced.send_modify(|left| *left = Some(left.unwrap_or(0) + fresh.len()));
        for kind in fresh {
            let (at, end) = (kinds.all.len(), tasks.stop().child_token());
            kinds.by_name.insert(name(&kind), at);
            kinds.all.push(kind);
            kinds.ends.insert(at, end.clone());
            let (feeder, unsynced) = (Arc::clone(self), unsynced.clone());
            tasks.spawn(async move {
                let counted = AtomicBool::new(false);
                end.run_until_cancelled(feeder.feed(at, &unsynced, &counted)).await;
                synced(&unsynced, &counted);
            });
        }
    }

    fn kind(&self, at: usize) -> Kind {
        self.kinds.read().unwrap_or_else(PoisonError::into_inner).all[at].clone()
    }

    fn graph(&self) -> MutexGuard<'_, Graph> {
        self.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the graph up to date for one kind.
    async fn feed(&self, at: usize, unsynced: &Unsynced, counted: &AtomicBool) {
        let kind = self.kind(at);
        let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(self.client.clone(), &kind.resource);
        let mut events = pin!(watcher::watcher(api, watcher::Config::default()));
        let (mut failures, mut listed) = (0, Vec::new());
        while let Some(event) = events.next().await {
            let mut done = false;
            let touched = match event {
                Ok(Event::Apply(object)) => self.graph().put(Item::of(at, object.metadata)),
                Ok(Event::Delete(object)) => {
                    self.graph().remove(object.metadata.uid.as_deref().unwrap_or_default())
                }
                Ok(Event::Init) => {
                    listed.clear();
                    Vec::new()
                }
                Ok(Event::InitApply(object)) => {
                    listed.push(Item::of(at, object.metadata));
                    Vec::new()
                }
                Ok(Event::InitDone) => {
                    done = true;
                    self.graph().replace(at, std::mem::take(&mut listed))
                }
                Err(error) => {
                    failures += 1;
                    tracing::debug!(kind = kind.resource.kind, %error, "watch interrupted");
                    tokio::time::sleep(RETRY.delay(failures)).await;
                    // One kind that cannot be read must not stop the rest: owners are looked up before
                    // anything is deleted.
                    done = failures >= 3;
                    Vec::new()
                }
            };
            if done {
                synced(unsynced, counted);
            }
            touched.into_iter().for_each(|uid| self.queue.add(uid));
        }
    }

    fn api(&self, kind: usize, namespace: &str) -> Api<DynamicObject> {
        let kind = self.kind(kind);
        if kind.namespaced && !namespace.is_empty() {
            Api::namespaced_with(self.client.clone(), namespace, &kind.resource)
        } else {
            Api::all_with(self.client.clone(), &kind.resource)
        }
    }

    /// Asks the API server for an owner that no watch has shown.
    async fn exists(&self, item: &Item, owner: &OwnerReference) -> Result<bool, Error> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let name = (group.to_owned(), owner.kind.clone());
        let kind = self.kinds.read().unwrap_or_else(PoisonError::into_inner).by_name.get(&name).copied();
        let Some(kind) = kind else {
            // A kind that nobody serves says nothing about the object.
            return Ok(true);
        };
        if self.kind(kind).namespaced && item.namespace.is_empty() {
            return Ok(true);
        }
        let found = self.api(kind, &item.namespace).get_metadata_opt(&owner.name).await?;
        Ok(found.is_some_and(|found| found.metadata.uid.as_deref() == Some(owner.uid.as_str())))
    }

    /// Deletes the version that was decided on: an owner's end may be seen before the dependent's own change that let it go.
    async fn delete(
        &self,
        api: &Api<DynamicObject>,
        item: &Item,
        policy: PropagationPolicy,
    ) -> Result<(), Error> {
        let params = DeleteParams {
            propagation_policy: Some(policy),
            preconditions: Some(Preconditions {
                uid: Some(item.uid.clone()),
                resource_version: Some(item.version.clone()),
            }),
            ..DeleteParams::default()
        };
        ignore_not_found(api.delete(&item.name, &params).await)?;
        Ok(())
    }

    async fn release(&self, api: &Api<DynamicObject>, item: &Item, finalizer: &str) -> Result<(), Error> {
        let left: Vec<&String> = item.finalizers.iter().filter(|name| *name != finalizer).collect();
        self.patch(api, item, json!({ "finalizers": left })).await
    }

    /// Changes metadata of the version that was decided on; another version is another decision.
    async fn patch(&self, api: &Api<DynamicObject>, item: &Item, mut change: Value) -> Result<(), Error> {
        change["uid"] = json!(item.uid);
        change["resourceVersion"] = json!(item.version);
        let patch = Patch::Merge(json!({ "metadata": change }));
        ignore_not_found(api.patch_metadata(&item.name, &PatchParams::default(), &patch).await)?;
        Ok(())
    }
}

/// Counts a kind as listed, once.
fn synced(unsynced: &Unsynced, counted: &AtomicBool) {
    if !counted.swap(true, Ordering::Relaxed) {
        unsynced.send_modify(|left| *left = left.map(|left| left - 1));
    }
}

impl Reconcile for Reconciler {
    type Key = String;

    async fn reconcile(&self, uid: &String) -> Result<Outcome, Error> {
        let Some((item, unknown)) = self.graph().look(uid) else { return Ok(Outcome::Done) };
        for owner in unknown {
            if !self.exists(&item, &owner).await? {
                self.graph().absent.insert(owner.uid.clone());
            }
        }
        let plan = self.graph().plan(uid);
        let api = self.api(item.kind, &item.namespace);
        match plan {
            Plan::Nothing => {}
            Plan::Delete(policy) => self.delete(&api, &item, policy).await?,
            Plan::Detach(owners) => {
                self.patch(&api, &item, json!({"ownerReferences": item.owners_without(&owners)})).await?;
            }
            Plan::DeleteDependents(dependents) => {
                dependents.into_iter().for_each(|dependent| self.queue.add(dependent));
            }
            Plan::Orphan(dependents) => {
                for dependent in dependents {
                    let api = self.api(dependent.kind, &dependent.namespace);
                    let left = dependent.owners_without(&[uid.to_owned()]);
                    self.patch(&api, &dependent, json!({ "ownerReferences": left })).await?;
                }
                self.release(&api, &item, graph::ORPHAN).await?;
            }
            Plan::Release => self.release(&api, &item, graph::FOREGROUND).await?,
        }
        Ok(Outcome::Done)
    }
}
