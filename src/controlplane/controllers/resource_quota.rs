//! ResourceQuotas: says in their status what their namespaces use. That nobody uses more is admission's business.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, Pod, ReplicationController, ResourceQuota, Secret, Service,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::context::{Context, Error, ignore_not_found};
use super::discovered::kinds;
use super::harness::{Harness, Outcome, Reconcile};
use api::quantity::Quantity;
use api::quota::{self, Amounts};
use client::informer::{Cache, Key, Names, Object};
use client::queue::Queue;

/// Kinds that nobody serves are looked for again after so long; a definition of theirs is noticed at once.
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
    let queue = harness.queue();
    let reconciler =
        Arc::new(Reconciler { context: context.clone(), quotas, counted, queue, others: Mutex::default() });
    let definitions = Arc::clone(&reconciler);
    harness.watches(&context.cache::<CustomResourceDefinition>(), move |change, _| {
        let Some(definition) = change.latest() else { return };
        let kind = (definition.spec.names.plural.clone(), definition.spec.group.clone());
        definitions.defined(&kind, change.new.is_some());
    });
    harness.run(5, reconciler);
}

/// Plural and group.
type KindName = (String, String);

struct Reconciler {
    context: Context,
    quotas: Cache<ResourceQuota>,
    counted: Vec<Counted>,
    queue: Queue<Key>,
    /// Kinds that quotas count beside those, followed from the first such quota on for as long as they are served.
    others: Mutex<HashMap<KindName, Arc<Names>>>,
}

impl Reconciler {
    /// Kinds that the quota counts and nothing follows: `count/widgets.example.com`.
    fn uncounted<'a>(&self, hard: &'a Amounts) -> Vec<(&'a str, &'a str)> {
        let named = hard.keys().filter_map(|name| name.strip_prefix("count/"));
        let split =
            named.map(|name| name.split_once('.').map_or((name, ""), |(plural, group)| (plural, group)));
        split
            .filter(|(plural, group)| {
                !self.counted.iter().any(|known| known.resource == *plural && known.group == *group)
            })
            .collect()
    }

    /// A definition came, changed or went: the quotas that count its kind are looked at again.
    fn defined(&self, kind: &KindName, there: bool) {
        if !there && let Some(names) = self.others.lock().unwrap_or_else(PoisonError::into_inner).remove(kind)
        {
            names.end();
        }
        let counted = format!("count/{}.{}", kind.0, kind.1);
        for quota in self.quotas.list() {
            let hard = quota.spec.as_ref().and_then(|spec| spec.hard.as_ref());
            if hard.is_some_and(|hard| hard.contains_key(&counted)) {
                self.queue.add(Key::of(&quota.metadata));
            }
        }
    }

    /// The objects of a kind that nothing else follows; `None` while no such kind is served.
    async fn followed(&self, plural: &str, group: &str) -> Result<Option<Arc<Names>>, Error> {
        let name = (plural.to_owned(), group.to_owned());
        if let Some(known) = self.others.lock().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return Ok(Some(Arc::clone(known)));
        }
        let served = kinds(&self.context.client, true).await?;
        let kind = served.iter().find(|kind| kind.resource.plural == plural && kind.resource.group == group);
        let Some(kind) = kind.filter(|kind| kind.namespaced) else { return Ok(None) };
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let names = others.entry(name).or_insert_with(|| {
            let (quotas, queue) = (self.quotas.clone(), self.queue.clone());
            let names = self.context.informers.names(&kind.resource, move |namespace| {
                let of_it = quotas.in_namespace(namespace);
                of_it.iter().for_each(|quota| queue.add(Key::of(&quota.metadata)));
            });
            Arc::new(names)
        });
        Ok(Some(Arc::clone(names)))
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
        let mut unknown = false;
        for (plural, group) in self.uncounted(&hard) {
            match self.followed(plural, group).await? {
                Some(names) => objects.push((group, plural, vec![json!({}); names.count(&namespace).await])),
                None => unknown = true,
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
        Ok(if unknown { Outcome::RequeueAfter(LOOK_AGAIN) } else { Outcome::Done })
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
