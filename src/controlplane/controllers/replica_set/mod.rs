//! ReplicaSets: keeps as many Pods of a template as were asked for.

mod plan;
mod rank;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use kube::api::PostParams;
use kube::{Resource, ResourceExt};

use self::plan::{Plan, observe, plan};
use super::claim::{candidates, claim, settle};
use super::context::{Context, Error};
use super::expectations::Expectations;
use super::harness::{Harness, Outcome, Reconcile};
use super::indexes;
use super::pod_control::{PodControl, template_pod, watch_pods};
use crate::client::informer::{Cache, Key};
use crate::client::typed::{available_in, controller_of, is_active, selects};

struct Reconciler {
    context: Context,
    expectations: Expectations,
    sets: Cache<ReplicaSet>,
    pods: Cache<Pod>,
}

pub(super) fn start(context: &Context) {
    let expectations = Expectations::default();
    let (sets, pods) = (indexes::replica_sets(context), indexes::pods(context));
    let mut harness = Harness::new(context);
    let forgotten = expectations.clone();
    harness.watches(&sets, move |change, queue| {
        if let Some(set) = change.latest() {
            let key = Key::of(&set.metadata);
            if change.new.is_none() {
                forgotten.forget(&key);
            }
            queue.add(key);
        }
    });
    let owners = sets.clone();
    watch_pods(&mut harness, &pods, &expectations, "ReplicaSet", move |pod| {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let wants = |set: &Arc<ReplicaSet>| {
            set.spec.as_ref().is_some_and(|spec| selects(&spec.selector, pod.metadata.labels.as_ref()))
        };
        owners.in_namespace(namespace).iter().filter(|set| wants(set)).map(|s| Key::of(&s.metadata)).collect()
    });
    harness.run(5, Arc::new(Reconciler { context: context.clone(), expectations, sets, pods }));
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(set) = self.sets.get(key) else {
            self.expectations.forget(key);
            return Ok(Outcome::Done);
        };
        let Some(spec) = &set.spec else { return Ok(Outcome::Done) };
        // Asked before the Pods are read: what is seen later can only be newer.
        let trusted = self.expectations.satisfied(key, self.context.now());
        let candidates = candidates(&*set, &self.pods);
        let mut claim = claim(&*set, &spec.selector, candidates);
        claim.adopt.retain(|pod| is_active(pod));
        claim.release.retain(|pod| is_active(pod));
        let owned = settle(&self.context, &*set, claim).await?;
        let now = self.context.now();
        let seen = observe(&owned);
        let may_act = trusted && set.metadata.deletion_timestamp.is_none();
        let done = match plan(&set, &seen, &self.related(&set)) {
            _ if !may_act => Ok(()),
            Plan::Enough => Ok(()),
            Plan::Create(count) => self.create(key, &set, count).await,
            Plan::Delete(pods) => self.delete(key, &set, &pods).await,
        };
        let failure = done.as_ref().err().map(|(reason, error)| (*reason, error.to_string()));
        let status = plan::status(&set, &seen, failure.as_ref().map(|(r, m)| (*r, m.as_str())), now);
        self.update_status(&set, status).await?;
        let min_ready = spec.min_ready_seconds.unwrap_or_default();
        let next = seen.active.iter().filter_map(|pod| available_in(pod, min_ready, now));
        let next = next.filter(|left| left.is_positive()).min();
        done.map(|()| Outcome::after(next)).map_err(|(_, error)| error)
    }
}

impl Reconciler {
    /// Active Pods of all ReplicaSets of the same Deployment: a node with many of them is relieved first.
    fn related(&self, set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let siblings = match controller_of(&set.metadata) {
            Some(owner) => indexes::controlled_by(&self.sets, &owner.uid),
            None => vec![Arc::new(set.clone())],
        };
        let pods = siblings.iter().filter_map(|sibling| sibling.uid());
        pods.flat_map(|uid| indexes::controlled_by(&self.pods, &uid)).filter(|pod| is_active(pod)).collect()
    }

    fn control<'a>(&'a self, key: &'a Key, set: &ReplicaSet) -> PodControl<'a> {
        PodControl {
            context: &self.context,
            expectations: &self.expectations,
            key,
            about: set.object_ref(&()),
        }
    }

    async fn create(&self, key: &Key, set: &ReplicaSet, count: usize) -> Result<(), (&'static str, Error)> {
        let template = set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default();
        let pod = template_pod(&template, set);
        let pods = std::iter::repeat_n(pod, count).collect();
        self.control(key, set).create(pods).await.map_err(|error| ("FailedCreate", error))
    }

    async fn delete(
        &self,
        key: &Key,
        set: &ReplicaSet,
        pods: &[Arc<Pod>],
    ) -> Result<(), (&'static str, Error)> {
        self.control(key, set).delete(pods).await.map_err(|error| ("FailedDelete", error))
    }

    async fn update_status(&self, set: &ReplicaSet, status: ReplicaSetStatus) -> Result<(), Error> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api = self.context.api::<ReplicaSet>(&set.namespace().unwrap_or_default());
        let changed = ReplicaSet { status: Some(status), ..set.clone() };
        super::context::ignore_not_found(
            api.replace_status(&set.name_any(), &PostParams::default(), &changed).await,
        )?;
        Ok(())
    }
}
