//! ReplicaSets and ReplicationControllers: keeps as many Pods of a template as were asked for.

mod kinds;
mod plan;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::ResourceExt;
use kube::api::PostParams;

use self::kinds::Replicas;
use self::plan::{Plan, observe, plan};
use super::claim::{candidates, claim, settle};
use super::context::{Context, Error};
use super::expectations::Expectations;
use super::harness::{Harness, Outcome, Reconcile};
use super::indexes;
use super::pod_control::{PodControl, template_pod, watch_owners, watch_pods};
use client::informer::{Cache, Key};
use client::typed::{available_in, controller_of, is_active};

struct Reconciler<O> {
    context: Context,
    expectations: Expectations,
    sets: Cache<O>,
    pods: Cache<Pod>,
}

/// Starts the controller of ReplicaSets.
pub(super) fn start(context: &Context) {
    start_kind::<ReplicaSet>(context);
}

/// Starts the controller of ReplicationControllers: the same plan over an older kind.
pub(super) fn start_replication(context: &Context) {
    start_kind::<ReplicationController>(context);
}

fn start_kind<O: Replicas>(context: &Context) {
    let expectations = Expectations::default();
    let (sets, pods) = (indexes::by_owner::<O>(context), indexes::pods(context));
    let mut harness = Harness::new(context);
    watch_owners(&mut harness, &sets, &expectations);
    watch_pods(&mut harness, &pods, &expectations, &sets, |set: &O| {
        set.as_replica_set().spec.as_ref().map(|spec| spec.selector.clone())
    });
    harness.run(5, Arc::new(Reconciler { context: context.clone(), expectations, sets, pods }));
}

impl<O: Replicas> Reconcile for Reconciler<O> {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(owner) = self.sets.get(key) else {
            self.expectations.forget(key);
            return Ok(Outcome::Done);
        };
        let set = owner.as_replica_set();
        let Some(spec) = &set.spec else { return Ok(Outcome::Done) };
        // Asked before the Pods are read: what is seen later can only be newer.
        let trusted = self.expectations.satisfied(key, self.context.now());
        let candidates = candidates(&*owner, &self.pods);
        let mut claim = claim(&*owner, &spec.selector, candidates);
        claim.adopt.retain(|pod| is_active(pod));
        claim.release.retain(|pod| is_active(pod));
        let owned = settle(&self.context, &*owner, claim).await?;
        let now = self.context.now();
        let seen = observe(&owned);
        let may_act = trusted && set.metadata.deletion_timestamp.is_none();
        let done = match plan(&set, &seen, &self.related(&owner)) {
            _ if !may_act => Ok(()),
            Plan::Enough => Ok(()),
            Plan::Create(count) => self.create(key, &owner, &set, count).await,
            Plan::Delete(pods) => self.delete(key, &owner, &pods).await,
        };
        let failure = done.as_ref().err().map(|(reason, error)| (*reason, error.to_string()));
        let status = plan::status(&set, &seen, failure.as_ref().map(|(r, m)| (*r, m.as_str())), now);
        self.update_status(&owner, &set, status).await?;
        let min_ready = spec.min_ready_seconds.unwrap_or_default();
        let next = seen.active.iter().filter_map(|pod| available_in(pod, min_ready, now));
        let next = next.filter(|left| left.is_positive()).min();
        done.map(|()| Outcome::after(next)).map_err(|(_, error)| error)
    }
}

impl<O: Replicas> Reconciler<O> {
    /// Active Pods of all ReplicaSets of the same Deployment: a node with many of them is relieved first.
    fn related(&self, set: &O) -> Vec<Arc<Pod>> {
        let siblings: Vec<String> = match controller_of(set.meta()) {
            Some(owner) => {
                let siblings = indexes::controlled_by(&self.sets, &owner.uid);
                siblings.iter().filter_map(|sibling| sibling.meta().uid.clone()).collect()
            }
            None => set.meta().uid.clone().into_iter().collect(),
        };
        let pods = siblings.iter().flat_map(|uid| indexes::controlled_by(&self.pods, uid));
        pods.filter(|pod| is_active(pod)).collect()
    }

    fn control<'a>(&'a self, key: &'a Key, set: &O) -> PodControl<'a> {
        PodControl {
            context: &self.context,
            expectations: &self.expectations,
            key,
            about: set.object_ref(&()),
        }
    }

    async fn create(
        &self,
        key: &Key,
        owner: &O,
        set: &ReplicaSet,
        count: usize,
    ) -> Result<(), (&'static str, Error)> {
        let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
        let pod = template_pod(&template, owner);
        let pods = std::iter::repeat_n(pod, count).collect();
        self.control(key, owner).create(pods).await.map_err(|error| ("FailedCreate", error))
    }

    async fn delete(&self, key: &Key, owner: &O, pods: &[Arc<Pod>]) -> Result<(), (&'static str, Error)> {
        self.control(key, owner).delete(pods).await.map_err(|error| ("FailedDelete", error))
    }

    async fn update_status(
        &self,
        owner: &O,
        set: &ReplicaSet,
        mut status: ReplicaSetStatus,
    ) -> Result<(), Error> {
        // Only ReplicaSets say how many of their Pods are on their way out.
        if O::kind(&()) != "ReplicaSet" {
            status.terminating_replicas = None;
        }
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api = self.context.api::<O>(&owner.namespace().unwrap_or_default());
        let changed = owner.with_status(status);
        super::context::ignore_not_found(
            api.replace_status(&owner.name_any(), &PostParams::default(), &changed).await,
        )?;
        Ok(())
    }
}
