//! StatefulSets: numbered Pods with names, claims and an order of their own.

mod plan;
mod pods;

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Resource, ResourceExt};
use serde_json::json;

use self::plan::{Op, Revision, Seen};
use self::pods::{Retention, claim_names, goes_with_another, new_claims};
use super::claim::{candidates, claim, settle};
use super::context::{Context, Error, ignore_exists, ignore_not_found};
use super::expectations::Expectations;
use super::harness::{Harness, Outcome, Reconcile};
use super::history::{REVISION_LABEL, Revised, Settled, template_of, truncate};
use super::indexes;
use super::pod_control::{explain, watch_owners, watch_pods};
use client::informer::{Cache, Key};

/// The label of a revision that carries its hash.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

struct Reconciler {
    context: Context,
    sets: Cache<StatefulSet>,
    pods: Cache<Pod>,
    claims: Cache<PersistentVolumeClaim>,
    revisions: Cache<ControllerRevision>,
}

pub(super) fn start(context: &Context) {
    // Names are known beforehand, so nothing is made twice: what is expected need not be kept.
    let expectations = Expectations::default();
    let (sets, pods) = (context.cache::<StatefulSet>(), indexes::pods(context));
    let (claims, revisions) = (context.cache(), indexes::by_owner::<ControllerRevision>(context));
    let mut harness = Harness::new(context);
    watch_owners(&mut harness, &sets, &expectations);
    watch_pods(&mut harness, &pods, &expectations, &sets, |set: &StatefulSet| {
        set.spec.as_ref().map(|spec| spec.selector.clone())
    });
    // A claim that is gone may be what a Pod waits for.
    let waiting = sets.clone();
    harness.watches(&claims, move |change: &client::informer::Change<'_, PersistentVolumeClaim>, queue| {
        let (None, Some(claim)) = (change.new, change.old) else { return };
        for set in waiting.in_namespace(&claim.namespace().unwrap_or_default()) {
            if claim.name_any().contains(&format!("-{}-", set.name_any())) {
                queue.add(Key::of(&set.metadata));
            }
        }
    });
    harness.reads(&revisions);
    harness.run(2, Arc::new(Reconciler { context: context.clone(), sets, pods, claims, revisions }));
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(set) = self.sets.get(key) else { return Ok(Outcome::Done) };
        let Some(spec) = &set.spec else { return Ok(Outcome::Done) };
        let revisions = claim(&*set, &spec.selector, candidates(&*set, &self.revisions));
        let mut revisions = settle(&self.context, &*set, revisions).await?;
        let collisions = set.status.as_ref().and_then(|status| status.collision_count);
        let revised = Revised { owner: &*set, template: &spec.template, collisions, label: HASH_LABEL };
        let newest = match revised.settle(&self.context, &revisions).await? {
            Settled::Revision(newest) => newest,
            Settled::Collision => {
                let mut status = set.status.clone().unwrap_or_default();
                status.collision_count = Some(status.collision_count.unwrap_or_default() + 1);
                self.update_status(&set, status).await?;
                return Ok(Outcome::Done);
            }
        };
        revisions.retain(|revision| revision.name_any() != newest.name_any());
        revisions.push(Arc::clone(&newest));
        let (current, update) = self.pair(&set, spec, &revisions, &newest);
        let mut claimed = claim(&*set, &spec.selector, candidates(&*set, &self.pods));
        // Only Pods with a name of the set's can be its own.
        claimed.adopt.retain(|pod| pods::ordinal(&set, pod).is_some());
        let owned = settle(&self.context, &*set, claimed).await?;
        let seen = Seen::new(&set, spec, (&current, &update), &owned, self.context.now());
        let done = self.act(key, &set, seen.plan()).await;
        self.update_status(&set, seen.status()).await?;
        done?;
        let live = |revision: &ControllerRevision| {
            let name = revision.name_any();
            name == current.name
                || name == update.name
                || owned.iter().any(|pod| pod.labels().get(REVISION_LABEL) == Some(&name))
        };
        truncate(&self.context, key, &revisions, &live, spec.revision_history_limit).await?;
        Ok(Outcome::after(seen.next_available()))
    }
}

impl Reconciler {
    /// The revision the set comes from, and the one it goes to. Without a known one it comes from where it goes to.
    fn pair(
        &self,
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        revisions: &[Arc<ControllerRevision>],
        newest: &ControllerRevision,
    ) -> (Revision, Revision) {
        let named = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
        let current = revisions.iter().find(|revision| Some(revision.name_any().as_str()) == named);
        let update = || Revision { name: newest.name_any(), template: spec.template.clone() };
        let current = current.and_then(|revision| {
            Some(Revision { name: revision.name_any(), template: template_of(revision)? })
        });
        (current.unwrap_or_else(update), update())
    }

    async fn act(&self, key: &Key, set: &StatefulSet, ops: Vec<Op>) -> Result<(), Error> {
        for op in ops {
            match op {
                Op::Create(pod, number) => self.create(key, set, *pod, number).await?,
                Op::Claims(pod, number, condemned) => {
                    self.keep_claims(key, set, &pod, number, condemned).await?
                }
                Op::Renew(pod) => {
                    let failed =
                        pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Failed");
                    let (reason, kind) = if failed {
                        ("RecreatingFailedPod", "failed")
                    } else {
                        ("RecreatingTerminatedPod", "terminated")
                    };
                    let message = format!("StatefulSet {key} is recreating {kind} Pod {}", pod.name_any());
                    self.context.recorder.warning(set.object_ref(&()), reason, message);
                    self.delete(key, set, &pod).await?;
                }
                Op::Delete(pod) => self.delete(key, set, &pod).await?,
            }
        }
        Ok(())
    }

    fn tell(&self, set: &StatefulSet, verb: &str, what: &str, failure: Option<&kube::Error>) {
        let (recorder, about, name) = (&self.context.recorder, set.object_ref(&()), set.name_any());
        let action = if verb == "create" { "Create" } else { "Delete" };
        match failure {
            None => {
                let message = format!("{verb} {what} in StatefulSet {name} successful");
                recorder.normal(about, &format!("Successful{action}"), message);
            }
            Some(error) => {
                let message = format!("{verb} {what} in StatefulSet {name} failed error: {}", explain(error));
                recorder.warning(about, &format!("Failed{action}"), message);
            }
        }
    }

    async fn create(&self, key: &Key, set: &StatefulSet, pod: Pod, number: i32) -> Result<(), Error> {
        let name = pod.name_any();
        let stale = |claim: &String| {
            self.claims
                .named(&key.namespace, claim)
                .is_some_and(|claim| goes_with_another(&claim, &name, None))
        };
        if claim_names(set, number).iter().any(stale) {
            // It is on its way out with an earlier Pod; when it is gone this is tried again.
            return Ok(());
        }
        self.create_claims(key, set, number, &name).await?;
        let made = self.context.api::<Pod>(&key.namespace).create(&PostParams::default(), &pod).await;
        match made {
            Ok(_) => self.tell(set, "create", &format!("Pod {name}"), None),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                // It is the set's own and not seen yet, or somebody else's and in the way.
                let there = self.context.api::<Pod>(&key.namespace).get_opt(&name).await?;
                let ours = |pod: &Pod| {
                    pod.owner_references().iter().any(|o| Some(&o.uid) == set.metadata.uid.as_ref())
                };
                if !there.as_ref().is_none_or(ours) {
                    let error = kube::Error::Api(status);
                    self.tell(set, "create", &format!("Pod {name}"), Some(&error));
                    return Err(error.into());
                }
            }
            Err(error) => {
                self.tell(set, "create", &format!("Pod {name}"), Some(&error));
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn create_claims(&self, key: &Key, set: &StatefulSet, number: i32, pod: &str) -> Result<(), Error> {
        let api = self.context.api::<PersistentVolumeClaim>(&key.namespace);
        let retention = Retention::of(set, false);
        for mut claim in new_claims(set, number) {
            let name = claim.name_any();
            if self.claims.named(&key.namespace, &name).is_some() {
                continue;
            }
            if retention.with_set {
                claim.metadata.owner_references = retention.owners(set, &Pod::default(), &claim);
            }
            let what = format!("Claim {name} Pod {pod}");
            match ignore_exists(api.create(&PostParams::default(), &claim).await) {
                Ok(Some(_)) => self.tell(set, "create", &what, None),
                Ok(None) => {}
                Err(error) => {
                    self.tell(set, "create", &what, Some(&error));
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    /// Makes claims that a waiting Pod lacks, and gives all of them the owners that the retention policy asks for.
    async fn keep_claims(
        &self,
        key: &Key,
        set: &StatefulSet,
        pod: &Pod,
        number: i32,
        condemned: bool,
    ) -> Result<(), Error> {
        if pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Pending") && !condemned {
            self.create_claims(key, set, number, &pod.name_any()).await?;
        }
        let api = self.context.api::<PersistentVolumeClaim>(&key.namespace);
        for name in claim_names(set, number) {
            let Some(claim) = self.claims.named(&key.namespace, &name) else { continue };
            let Some(owners) = Retention::of(set, condemned).owners(set, pod, &claim) else { continue };
            let patch = json!({"metadata": {"uid": claim.uid(), "resourceVersion": claim.resource_version(),
                "ownerReferences": owners}});
            ignore_not_found(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await)?;
        }
        Ok(())
    }

    async fn delete(&self, key: &Key, set: &StatefulSet, pod: &Pod) -> Result<(), Error> {
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: pod.uid(), resource_version: None }),
            ..DeleteParams::default()
        };
        let what = format!("Pod {}", pod.name_any());
        let deleted = self.context.api::<Pod>(&key.namespace).delete(&pod.name_any(), &params).await;
        match ignore_not_found(deleted) {
            Ok(_) => self.tell(set, "delete", &what, None),
            Err(error) => {
                self.tell(set, "delete", &what, Some(&error));
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn update_status(&self, set: &StatefulSet, status: StatefulSetStatus) -> Result<(), Error> {
        if set.status.as_ref() == Some(&status) {
            return Ok(());
        }
        let api = self.context.api::<StatefulSet>(&set.namespace().unwrap_or_default());
        let changed = StatefulSet { status: Some(status), ..set.clone() };
        ignore_not_found(api.replace_status(&set.name_any(), &PostParams::default(), &changed).await)?;
        Ok(())
    }
}
