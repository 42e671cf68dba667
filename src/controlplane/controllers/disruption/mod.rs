//! PodDisruptionBudgets: counts how many of a budget's Pods may be evicted now, for evictions to spend.

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DynamicObject, GroupVersionKind, PostParams};
use kube::discovery::oneshot;
use kube::{Api, Resource, ResourceExt};

use self::plan::{Scales, matching, plan};
use super::context::{Context, Error, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use super::indexes;
use client::informer::{Cache, Key};
use client::typed::{controller_of, selects};

struct Reconciler {
    context: Context,
    budgets: Cache<PodDisruptionBudget>,
    pods: Cache<Pod>,
    deployments: Cache<Deployment>,
    sets: Cache<ReplicaSet>,
    stateful: Cache<StatefulSet>,
    replication: Cache<ReplicationController>,
}

pub(super) fn start(context: &Context) {
    let reconciler = Arc::new(Reconciler {
        context: context.clone(),
        budgets: context.cache(),
        pods: indexes::pods(context),
        deployments: context.cache(),
        sets: indexes::by_owner(context),
        stateful: context.cache(),
        replication: indexes::by_owner(context),
    });
    let mut harness = Harness::new(context);
    harness.watches(&reconciler.budgets, |change, queue| {
        change.new.into_iter().for_each(|budget| queue.add(Key::of(&budget.metadata)));
    });
    let budgets = reconciler.budgets.clone();
    harness.watches(&reconciler.pods, move |change, queue| {
        let Some(pod) = change.latest() else { return };
        for budget in budgets.in_namespace(&pod.namespace().unwrap_or_default()) {
            let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            let concerned = |pod: &Arc<Pod>| {
                selector.is_some_and(|selector| selects(selector, pod.metadata.labels.as_ref()))
            };
            if change.both().any(concerned) {
                queue.add(Key::of(&budget.metadata));
            }
        }
    });
    // A workload that is scaled changes how many Pods are expected: every budget of its namespace may count it.
    let budgets = reconciler.budgets.clone();
    harness.watches(&reconciler.deployments, move |change, queue| {
        let size = |d: &Arc<Deployment>| d.spec.as_ref().and_then(|spec| spec.replicas);
        if change.new.map(size) != change.old.map(size) {
            let namespace = change.latest().and_then(|d| d.namespace()).unwrap_or_default();
            budgets.in_namespace(&namespace).iter().for_each(|b| queue.add(Key::of(&b.metadata)));
        }
    });
    harness.reads(&reconciler.sets);
    harness.reads(&reconciler.stateful);
    harness.reads(&reconciler.replication);
    harness.run(2, reconciler);
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(budget) = self.budgets.get(key) else { return Ok(Outcome::Done) };
        let pods = matching(&budget, self.pods.in_namespace(&key.namespace));
        let recorder = &self.context.recorder;
        if pods.is_empty() {
            recorder.normal(budget.object_ref(&()), "NoPods", "No matching pods found");
        }
        let scales = self.scales(&pods).await?;
        let planned = plan(&budget, &pods, &scales, self.context.now());
        for name in &planned.not_deleted {
            let message = format!("Pod was expected by PDB {key} to be deleted but it wasn't");
            let pod = pods.iter().find(|pod| pod.name_any() == *name);
            pod.into_iter().for_each(|pod| {
                recorder.warning(pod.object_ref(&()), "NotDeleted", message.clone());
            });
        }
        if let Some(why) = &planned.failure {
            let message = format!("Failed to calculate the number of expected pods: {why}");
            recorder.warning(budget.object_ref(&()), "CalculateExpectedPodCountFailed", message);
        }
        if budget.status.as_ref() != Some(&planned.status) {
            let changed = PodDisruptionBudget { status: Some(planned.status), ..(*budget).clone() };
            let api = self.context.api::<PodDisruptionBudget>(&key.namespace);
            ignore_not_found(api.replace_status(&key.name, &PostParams::default(), &changed).await)?;
        }
        Ok(Outcome::after(planned.look_again))
    }
}

impl Reconciler {
    /// How many Pods each controller of these Pods wants, by its uid.
    async fn scales(&self, pods: &[Arc<Pod>]) -> Result<Scales, Error> {
        let mut scales = BTreeMap::new();
        for pod in pods {
            let Some(owner) = controller_of(&pod.metadata) else { continue };
            if !scales.contains_key(&owner.uid) {
                let namespace = pod.namespace().unwrap_or_default();
                scales.insert(owner.uid.clone(), self.scale(&namespace, owner).await?);
            }
        }
        Ok(scales)
    }

    /// What a Pod's controller, or the controller of that, wants; its uid is told so that none is counted twice.
    async fn scale(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Result<(String, i32), String>, Error> {
        let key = Key::new(namespace, &owner.name);
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let missing = || Err(format!("{} {key} does not exist", owner.kind));
        let uid = owner.uid.clone();
        let found = match (group, owner.kind.as_str()) {
            ("apps", "ReplicaSet") => {
                let Some(set) = self.sets.get(&key).filter(|set| set.uid() == Some(uid.clone())) else {
                    return Ok(missing());
                };
                if let Some(above) = controller_of(&set.metadata)
                    && above.kind == "Deployment"
                    && let Some(deployment) = self.deployments.get(&Key::new(namespace, &above.name))
                {
                    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
                    return Ok(Ok((above.uid.clone(), replicas.unwrap_or(1))));
                }
                set.spec.as_ref().map(|spec| spec.replicas.unwrap_or(1))
            }
            ("apps", "StatefulSet") => {
                let set = self.stateful.get(&key).filter(|set| set.uid() == Some(uid.clone()));
                set.and_then(|set| set.spec.as_ref().map(|spec| spec.replicas.unwrap_or(1)))
            }
            ("", "ReplicationController") => {
                let set = self.replication.get(&key).filter(|set| set.uid() == Some(uid.clone()));
                set.and_then(|set| set.spec.as_ref().map(|spec| spec.replicas.unwrap_or(1)))
            }
            _ => return self.scale_subresource(namespace, owner).await,
        };
        Ok(found.map_or_else(missing, |replicas| Ok((uid, replicas))))
    }

    async fn scale_subresource(
        &self,
        namespace: &str,
        owner: &OwnerReference,
    ) -> Result<Result<(String, i32), String>, Error> {
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let kind = GroupVersionKind::gvk(group, version, &owner.kind);
        let Ok((resource, _)) = oneshot::pinned_kind(&self.context.client, &kind).await else {
            return Ok(Err(format!("{}.{group} is not served", owner.kind)));
        };
        let api: Api<DynamicObject> = Api::namespaced_with(self.context.client.clone(), namespace, &resource);
        Ok(match api.get_scale(&owner.name).await {
            Ok(scale) => Ok((owner.uid.clone(), scale.spec.and_then(|s| s.replicas).unwrap_or(0))),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                Err(format!("{}.{group} does not implement the scale subresource", resource.plural))
            }
            Err(error) => return Err(error.into()),
        })
    }
}
