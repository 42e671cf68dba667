//! Deployments: moves Pods from one template to the next by scaling ReplicaSets.
//!
//! ```text
//! template changed -> new ReplicaSet -> up by maxSurge, old ones down by maxUnavailable -> … -> complete
//! ```

mod arithmetic;
mod plan;
mod revision;
mod status;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde_json::json;

use self::plan::{Observed, Op, plan};
use super::claim::{candidates, claim, settle};
use super::context::{Context, Error, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use super::indexes;
use super::pod_control::explain;
use client::informer::{Cache, Key};
use client::typed::{controller_of, is_terminal, selects};

struct Reconciler {
    context: Context,
    deployments: Cache<Deployment>,
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
}

pub(super) fn start(context: &Context) {
    let deployments = context.cache::<Deployment>();
    let (sets, pods) = (indexes::by_owner::<ReplicaSet>(context), indexes::pods(context));
    let mut harness = Harness::new(context);
    harness.watches(&deployments, |change, queue| {
        change.latest().into_iter().for_each(|deployment| queue.add(Key::of(&deployment.metadata)));
    });
    watch_sets(&mut harness, &sets, &deployments);
    watch_ended_pods(&mut harness, &pods, &sets);
    harness.run(5, Arc::new(Reconciler { context: context.clone(), deployments, sets, pods }));
}

fn owner_key(set: &ReplicaSet) -> Option<Key> {
    let controller = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment")?;
    Some(Key::new(set.namespace().unwrap_or_default(), &controller.name))
}

fn watch_sets(harness: &mut Harness<Key>, sets: &Cache<ReplicaSet>, deployments: &Cache<Deployment>) {
    let deployments = deployments.clone();
    harness.watches(sets, move |change, queue| {
        for set in change.both() {
            if let Some(key) = owner_key(set) {
                queue.add(key);
            }
        }
        let Some(set) = change.new.filter(|set| controller_of(&set.metadata).is_none()) else { return };
        for deployment in deployments.in_namespace(&set.namespace().unwrap_or_default()) {
            let spec = deployment.spec.as_ref();
            if spec.is_some_and(|spec| selects(&spec.selector, set.metadata.labels.as_ref())) {
                queue.add(Key::of(&deployment.metadata));
            }
        }
    });
}

/// A Deployment that recreates goes on when the last old Pod has ended.
fn watch_ended_pods(harness: &mut Harness<Key>, pods: &Cache<Pod>, sets: &Cache<ReplicaSet>) {
    let sets = sets.clone();
    harness.watches(pods, move |change, queue| {
        let Some(pod) = change.latest() else { return };
        if change.new.is_some() && !is_terminal(pod) {
            return;
        }
        let owner = controller_of(&pod.metadata).filter(|owner| owner.kind == "ReplicaSet");
        let set = owner.and_then(|owner| sets.named(&pod.namespace().unwrap_or_default(), &owner.name));
        if let Some(key) = set.and_then(|set| owner_key(&set)) {
            queue.add(key);
        }
    });
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(deployment) = self.deployments.get(key) else { return Ok(Outcome::Done) };
        let Some(spec) = &deployment.spec else { return Ok(Outcome::Done) };
        let claim = claim(&*deployment, &spec.selector, candidates(&*deployment, &self.sets));
        let sets = settle(&self.context, &*deployment, claim).await?;
        let running = |uid: &str| indexes::controlled_by(&self.pods, uid).iter().any(|pod| !is_terminal(pod));
        let observed = Observed {
            deployment: &deployment,
            sets: sets.iter().map(|set| ReplicaSet::clone(set)).collect(),
            pods_running: &running,
            now: self.context.now(),
        };
        let ops = plan(observed);
        self.act(key, Deployment::clone(&deployment), ops).await
    }
}

impl Reconciler {
    async fn act(&self, key: &Key, mut current: Deployment, ops: Vec<Op>) -> Result<Outcome, Error> {
        let mut outcome = Outcome::Done;
        let sets = self.context.api::<ReplicaSet>(&key.namespace);
        let deployments = self.context.api::<Deployment>(&key.namespace);
        for op in ops {
            match op {
                Op::Create(set) => {
                    if !self.create(&sets, &mut current, *set).await? {
                        return Ok(outcome);
                    }
                }
                Op::Scale { set, from } => self.scale(&sets, &current, &set, from).await?,
                Op::Update(set) => {
                    sets.replace(&set.name_any(), &PostParams::default(), &set).await?;
                }
                Op::Delete { name, uid } => {
                    let preconditions = Some(Preconditions { uid: Some(uid), resource_version: None });
                    let params = DeleteParams { preconditions, ..DeleteParams::background() };
                    ignore_not_found(sets.delete(&name, &params).await)?;
                }
                Op::Revision(revision) => {
                    let patch = json!({"metadata": {"annotations": {revision::REVISION: revision}}});
                    let params = PatchParams::default();
                    current = deployments.patch(&key.name, &params, &Patch::Merge(patch)).await?;
                }
                Op::Status(status) => {
                    current.status = Some(*status);
                    current = deployments.replace_status(&key.name, &PostParams::default(), &current).await?;
                }
                Op::RequeueAfter(delay) => outcome = Outcome::after(Some(delay)),
            }
        }
        Ok(outcome)
    }

    /// True when the ReplicaSet is there. False when its name is taken by another template: the
    /// collision count has been raised, and the next round finds another name.
    async fn create(
        &self,
        sets: &kube::Api<ReplicaSet>,
        current: &mut Deployment,
        set: ReplicaSet,
    ) -> Result<bool, Error> {
        let deployments = self.context.api::<Deployment>(&current.namespace().unwrap_or_default());
        let (name, replicas) = (set.name_any(), plan::replicas(&set));
        let error = match sets.create(&PostParams::default(), &set).await {
            Ok(_) => {
                if replicas > 0 {
                    let message = format!("Scaled up replica set {name} from 0 to {replicas}");
                    self.context.recorder.normal(current.object_ref(&()), "ScalingReplicaSet", message);
                }
                return Ok(true);
            }
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                let there = sets.get(&name).await?;
                let mine = controller_of(&there.metadata).map(|owner| &owner.uid) == current.uid().as_ref();
                if mine && revision::same_template(&there, &set) {
                    return Ok(true);
                }
                let status = current.status.get_or_insert_default();
                status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
                deployments.replace_status(&current.name_any(), &PostParams::default(), current).await?;
                return Ok(false);
            }
            Err(error) => error,
        };
        let message = format!("Failed to create new replica set {name:?}: {}", explain(&error));
        self.context.recorder.warning(current.object_ref(&()), "ReplicaSetCreateError", message.clone());
        let status = status::creation_failed(current, &message, self.context.now());
        if let Some(status) = status {
            current.status = Some(status);
            deployments.replace_status(&current.name_any(), &PostParams::default(), current).await?;
        }
        Err(error.into())
    }

    async fn scale(
        &self,
        sets: &kube::Api<ReplicaSet>,
        current: &Deployment,
        set: &ReplicaSet,
        from: i32,
    ) -> Result<(), Error> {
        let (name, to) = (set.name_any(), plan::replicas(set));
        sets.replace(&name, &PostParams::default(), set).await?;
        if from != to {
            let way = if to > from { "up" } else { "down" };
            let message = format!("Scaled {way} replica set {name} from {from} to {to}");
            self.context.recorder.normal(current.object_ref(&()), "ScalingReplicaSet", message);
        }
        Ok(())
    }
}
