//! Creating and deleting the Pods of a controller, with its expectations and Events.

use std::sync::Arc;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, Time};
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use super::context::{Context, Error, ignore_not_found};
use super::expectations::Expectations;
use super::harness::Harness;
use client::informer::{Cache, Key, Object};
use client::typed::{controller_of, owner_ref, selects};

/// A Pod of a template, controlled by `owner`; the API server completes the name.
pub(super) fn template_pod<O: Object>(template: &PodTemplateSpec, owner: &O) -> Pod {
    let meta = template.metadata.clone().unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: Some(format!("{}-", owner.name_any())),
            namespace: owner.namespace(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![owner_ref(owner)]),
            ..ObjectMeta::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Brings changes of the owners themselves to their controller.
pub(super) fn watch_owners<O: Object>(
    harness: &mut Harness<Key>,
    owners: &Cache<O>,
    expectations: &Expectations,
) {
    let expectations = expectations.clone();
    harness.watches(owners, move |change, queue| {
        let Some(owner) = change.latest() else { return };
        let key = Key::of(owner.meta());
        if change.new.is_none() {
            expectations.forget(&key);
        }
        queue.add(key);
    });
}

/// Brings Pod changes to the controller of a kind: to the Pod's owner, or, for a Pod that nobody controls, to all
/// owners whose selector would adopt it.
pub(super) fn watch_pods<O: Object>(
    harness: &mut Harness<Key>,
    pods: &Cache<Pod>,
    expectations: &Expectations,
    owners: &Cache<O>,
    selector: fn(&O) -> Option<LabelSelector>,
) {
    let (expectations, owners) = (expectations.clone(), owners.clone());
    let kind = O::kind(&());
    let owner_of = move |pod: &Pod| {
        let controller = controller_of(&pod.metadata).filter(|controller| controller.kind == kind)?;
        Some(Key::new(pod.namespace().unwrap_or_default(), &controller.name))
    };
    harness.watches(pods, move |change, queue| {
        let Some(latest) = change.latest() else { return };
        let key = owner_of(latest);
        if let Some(key) = &key {
            if change.old.is_none() {
                expectations.created(key, 1);
            }
            if change.new.is_none() || latest.metadata.deletion_timestamp.is_some() {
                expectations.deleted(key, latest.metadata.uid.as_deref().unwrap_or_default());
            }
            queue.add(key.clone());
        }
        if let Some(before) = change.old.and_then(|pod| owner_of(pod))
            && key.as_ref() != Some(&before)
        {
            queue.add(before);
        }
        if change.new.is_some() && controller_of(&latest.metadata).is_none() {
            let labels = latest.metadata.labels.as_ref();
            for owner in owners.in_namespace(latest.metadata.namespace.as_deref().unwrap_or_default()) {
                if selector(&owner).is_some_and(|selector| selects(&selector, labels)) {
                    queue.add(Key::of(owner.meta()));
                }
            }
        }
    });
}

/// Creates and deletes Pods in the name of one owner.
pub(super) struct PodControl<'a> {
    pub context: &'a Context,
    pub expectations: &'a Expectations,
    pub key: &'a Key,
    pub about: ObjectReference,
}

impl PodControl<'_> {
    /// Creates Pods in batches of 1, 2, 4, …: when something is wrong with the template or the quota,
    /// one attempt shows it instead of hundreds.
    pub(super) async fn create(&self, pods: Vec<Pod>) -> Result<(), Error> {
        let mut left = pods.len();
        self.expectations.expect_creations(self.key, left, self.context.now());
        let mut pods = pods.into_iter();
        let mut batch = 1;
        while left > 0 {
            let chunk: Vec<Pod> = pods.by_ref().take(batch).collect();
            left -= chunk.len();
            let results = join_all(chunk.iter().map(|pod| self.create_one(pod))).await;
            if let Some(error) = results.into_iter().find_map(Result::err) {
                self.expectations.created(self.key, left);
                return if is_terminating(&error) { Ok(()) } else { Err(error.into()) };
            }
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, pod: &Pod) -> Result<(), kube::Error> {
        let api = self.context.api::<Pod>(&self.key.namespace);
        let recorder = &self.context.recorder;
        match api.create(&PostParams::default(), pod).await {
            Ok(created) => {
                let message = format!("Created pod: {}", created.name_any());
                recorder.normal(self.about.clone(), "SuccessfulCreate", message);
                Ok(())
            }
            Err(error) => {
                self.expectations.created(self.key, 1);
                if !is_terminating(&error) {
                    let message = format!("Error creating: {}", explain(&error));
                    recorder.warning(self.about.clone(), "FailedCreate", message);
                }
                Err(error)
            }
        }
    }

    /// Deletes Pods, all at once; returns the first failure.
    pub(super) async fn delete(&self, pods: &[Arc<Pod>]) -> Result<(), Error> {
        let uids = pods.iter().filter_map(|pod| pod.uid());
        self.expectations.expect_deletions(self.key, uids, self.context.now());
        let results = join_all(pods.iter().map(|pod| self.delete_one(pod))).await;
        results.into_iter().collect::<Result<(), _>>().map_err(Error::from)
    }

    async fn delete_one(&self, pod: &Pod) -> Result<(), kube::Error> {
        let api = self.context.api::<Pod>(&self.key.namespace);
        let preconditions = Preconditions { uid: pod.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        let name = pod.name_any();
        match api.delete(&name, &params).await {
            Ok(_) => {
                self.context.recorder.normal(
                    self.about.clone(),
                    "SuccessfulDelete",
                    format!("Deleted pod: {name}"),
                );
                Ok(())
            }
            Err(error) => {
                self.expectations.deleted(self.key, pod.metadata.uid.as_deref().unwrap_or_default());
                if matches!(&error, kube::Error::Api(status) if status.code == 404) {
                    return Ok(());
                }
                let message = format!("Error deleting: {}", explain(&error));
                self.context.recorder.warning(self.about.clone(), "FailedDelete", message);
                Err(error)
            }
        }
    }
}

/// Removes a Pod that its cluster gave up: says why in its status (`disruption`, see [`disruption_target`]) and deletes
/// exactly this Pod, in its own time or in `grace` seconds. One that is gone already is no error.
pub(super) async fn evict(
    context: &Context,
    pod: &Pod,
    disruption: Option<Value>,
    grace: Option<u32>,
) -> Result<(), Error> {
    let api = context.api::<Pod>(&pod.namespace().unwrap_or_default());
    let name = pod.name_any();
    if let Some(disruption) = disruption {
        let patch = Patch::Strategic(disruption);
        ignore_not_found(api.patch_status(&name, &PatchParams::default(), &patch).await)?;
    }
    let params = DeleteParams {
        grace_period_seconds: grace,
        preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    ignore_not_found(api.delete(&name, &params).await)?;
    Ok(())
}

/// The status patch that says a Pod is ended by the cluster, not by a failure of its own: Jobs' failure policies
/// read it.
pub(super) fn disruption_target(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> Value {
    json!({"metadata": {"uid": pod.uid()}, "status": {"conditions": [{"type": "DisruptionTarget", "status": "True",
        "reason": reason, "message": message, "lastTransitionTime": Time(now)}]}})
}

/// The API server's own words, where it answered.
pub(super) fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether a creation was refused because the namespace is going: trying again is of no use.
pub(super) fn is_terminating(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.details.iter().any(|details| {
        details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
    }))
}
