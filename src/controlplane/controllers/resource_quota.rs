//! ResourceQuotas: says in their status what their namespaces use. That nobody uses more is admission's business.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota, Secret, Service,
};
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::context::{Context, Error, ignore_not_found};
use super::discovered::kinds;
use super::harness::{Harness, Outcome, Reconcile};
use crate::api::quantity::Quantity;
use crate::api::quota::{self, Amounts};
use crate::client::informer::{Cache, Key, Object};

/// Kinds that are not followed are counted again after so long, as upstream does with all.
const LOOK_AGAIN: Duration = Duration::from_secs(5 * 60);

/// Finds a followed kind's objects in a namespace, as documents.
type Read = Box<dyn Fn(&str) -> Vec<Value> + Send + Sync>;

/// A kind that is followed.
struct Counted {
    group: &'static str,
    resource: &'static str,
    read: Read,
}

fn documents<K: Object + serde::Serialize>(objects: Vec<Arc<K>>) -> Vec<Value> {
    objects.iter().filter_map(|object| serde_json::to_value(object.as_ref()).ok()).collect()
}

/// The status that a quota should have.
fn status(quota: &Value, objects: &[(&str, &str, Vec<Value>)]) -> Value {
    let hard = quota::hard(quota);
    let mut used: Amounts = hard.keys().map(|name| (name.clone(), Quantity::ZERO)).collect();
    for (group, resource, all) in objects {
        for object in all.iter().filter(|object| quota::counts(quota, group, resource, object)) {
            for (name, amount) in quota::usage(group, resource, object) {
                if hard.contains_key(&name) {
                    quota::add(&mut used, &name, amount);
                }
            }
        }
    }
    let used: serde_json::Map<String, Value> =
        used.into_iter().map(|(name, amount)| (name, amount.to_string().into())).collect();
    json!({"hard": quota.pointer("/spec/hard").cloned().unwrap_or_else(|| json!({})), "used": used})
}

/// Follows one kind: a change brings back the quotas of its namespace.
fn follow<K>(
    context: &Context,
    harness: &mut Harness<Key>,
    quotas: &Cache<ResourceQuota>,
    group: &'static str,
    resource: &'static str,
) -> Counted
where
    K: Object + ResourceExt + serde::Serialize,
{
    let cache = context.cache::<K>();
    let all = quotas.clone();
    harness.watches(&cache, move |change, queue| {
        let Some(object) = change.new.or(change.old) else { return };
        let namespace = object.namespace().unwrap_or_default();
        for quota in all.in_namespace(&namespace) {
            queue.add(Key::of(&quota.metadata));
        }
    });
    let read: Read = Box::new(move |namespace: &str| documents(cache.in_namespace(namespace)));
    Counted { group, resource, read }
}

pub(super) fn start(context: &Context) {
    let quotas = context.cache::<ResourceQuota>();
    let mut harness = Harness::new(context);
    harness.watches(&quotas, |change, queue| {
        change.new.into_iter().for_each(|quota| queue.add(Key::of(&quota.metadata)));
    });
    let harness_ref = &mut harness;
    let counted = vec![
        follow::<Pod>(context, harness_ref, &quotas, "", "pods"),
        follow::<Service>(context, harness_ref, &quotas, "", "services"),
        follow::<PersistentVolumeClaim>(context, harness_ref, &quotas, "", "persistentvolumeclaims"),
        follow::<ConfigMap>(context, harness_ref, &quotas, "", "configmaps"),
        follow::<Secret>(context, harness_ref, &quotas, "", "secrets"),
        follow::<ReplicationController>(context, harness_ref, &quotas, "", "replicationcontrollers"),
        follow::<ResourceQuota>(context, harness_ref, &quotas, "", "resourcequotas"),
        follow::<Deployment>(context, harness_ref, &quotas, "apps", "deployments"),
        follow::<ReplicaSet>(context, harness_ref, &quotas, "apps", "replicasets"),
        follow::<StatefulSet>(context, harness_ref, &quotas, "apps", "statefulsets"),
        follow::<DaemonSet>(context, harness_ref, &quotas, "apps", "daemonsets"),
        follow::<Job>(context, harness_ref, &quotas, "batch", "jobs"),
        follow::<CronJob>(context, harness_ref, &quotas, "batch", "cronjobs"),
    ];
    harness.run(5, Arc::new(Reconciler { context: context.clone(), quotas, counted }));
}

struct Reconciler {
    context: Context,
    quotas: Cache<ResourceQuota>,
    counted: Vec<Counted>,
}

impl Reconciler {
    /// Kinds that the quota counts and nothing follows: `count/widgets.example.com`.
    fn others<'a>(&self, hard: &'a Amounts) -> Vec<(&'a str, &'a str)> {
        let named = hard.keys().filter_map(|name| name.strip_prefix("count/"));
        let split =
            named.map(|name| name.split_once('.').map_or((name, ""), |(plural, group)| (plural, group)));
        split
            .filter(|(plural, group)| {
                !self.counted.iter().any(|known| known.resource == *plural && known.group == *group)
            })
            .collect()
    }
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(found) = self.quotas.get(key) else { return Ok(Outcome::Done) };
        let namespace = found.namespace().unwrap_or_default();
        let quota = serde_json::to_value(found.as_ref()).map_err(|error| Error::Other(error.to_string()))?;
        let hard = quota::hard(&quota);
        let mut objects: Vec<(&str, &str, Vec<Value>)> =
            self.counted.iter().map(|kind| (kind.group, kind.resource, (kind.read)(&namespace))).collect();
        let others = self.others(&hard);
        if !others.is_empty() {
            let known = kinds(&self.context.client, true).await?;
            for (plural, group) in &others {
                let kind = known
                    .iter()
                    .find(|kind| kind.resource.plural == *plural && kind.resource.group == *group);
                let Some(kind) = kind.filter(|kind| kind.namespaced) else { continue };
                let api: Api<DynamicObject> =
                    Api::namespaced_with(self.context.client.clone(), &namespace, &kind.resource);
                let count = api.list_metadata(&ListParams::default()).await?.items.len();
                objects.push((group, plural, vec![json!({}); count]));
            }
        }
        let wanted = status(&quota, &objects);
        if quota.get("status") != Some(&wanted) {
            let api = self.context.api::<ResourceQuota>(&namespace);
            let mut replaced = quota.clone();
            replaced["status"] = wanted;
            let replaced: ResourceQuota =
                serde_json::from_value(replaced).map_err(|error| Error::Other(error.to_string()))?;
            let name = found.name_any();
            ignore_not_found(api.replace_status(&name, &PostParams::default(), &replaced).await)?;
        }
        Ok(if others.is_empty() { Outcome::Done } else { Outcome::RequeueAfter(LOOK_AGAIN) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_what_is_used() {
        let quota = json!({"spec": {"hard": {"pods": "5", "requests.cpu": "2", "services": "1"}}});
        let pod = json!({"spec": {"containers": [{"resources": {"requests": {"cpu": "500m"}}}]}});
        let objects = [("", "pods", vec![pod.clone(), pod]), ("", "secrets", vec![json!({})])];
        assert_eq!(
            status(&quota, &objects),
            json!({"hard": {"pods": "5", "requests.cpu": "2", "services": "1"},
                   "used": {"pods": "2", "requests.cpu": "1", "services": "0"}})
        );
    }
}
