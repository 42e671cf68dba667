//! HorizontalPodAutoscalers: every fifteen seconds scales what they name to what its metrics ask for.
//!
//! ```text
//! metrics -> replicas asked for -> the most of them -> stabilized -> within the rate and the bounds -> scale
//! ```

mod behavior;
mod evaluate;
mod replicas;
mod source;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams};
use kube::discovery::{ApiCapabilities, ApiResource, oneshot};
use kube::{Api, Client, Resource};
use serde_json::json;

use self::behavior::{ScaleHistory, Told, rules};
use self::evaluate::{Round, Unknown};
use self::source::Source;
use super::context::{Context, Error, ignore_not_found};
use super::harness::{Harness, Outcome, Reconcile};
use super::pod_control::explain;
use api::quantity::Quantity;
use client::informer::{Cache, Key};

/// Between two looks at the metrics (upstream's horizontal-pod-autoscaler-sync-period).
const PERIOD: Duration = Duration::from_secs(15);
/// By how many thousandths a metric may be off without a change.
const TOLERANCE: i64 = 100;

struct Reconciler {
    context: Context,
    scalers: Cache<HorizontalPodAutoscaler>,
    histories: Mutex<HashMap<Key, ScaleHistory>>,
}

pub(super) fn start(context: &Context) {
    let scalers = context.cache::<HorizontalPodAutoscaler>();
    let mut harness = Harness::new(context);
    harness.watches(&scalers, |change, queue| {
        let spec = |scaler: &Arc<HorizontalPodAutoscaler>| scaler.spec.clone();
        if let Some(scaler) = change.latest()
            && change.new.map(spec) != change.old.map(spec)
        {
            queue.add(Key::of(&scaler.metadata));
        }
    });
    let reconciler = Reconciler { context: context.clone(), scalers, histories: Mutex::default() };
    harness.run(2, Arc::new(reconciler));
}

/// Finds how a kind is served. Fails with the words that the condition shows.
async fn target_resource(
    client: &Client,
    api_version: Option<&str>,
    kind: &str,
) -> Result<(ApiResource, ApiCapabilities), String> {
    let api_version = api_version.unwrap_or("v1");
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    let unknown = |_| {
        format!(
            "unable to determine resource for scale target reference: no matches for kind {kind:?} in group {group:?}"
        )
    };
    oneshot::pinned_kind(client, &gvk).await.map_err(unknown)
}

/// A status while it is worked out.
struct Writing {
    status: HorizontalPodAutoscalerStatus,
    now: Timestamp,
}

impl Writing {
    fn condition(&mut self, kind: &str, (truth, reason, message): Told) {
        let status = if truth { "True" } else { "False" };
        let all = self.status.conditions.get_or_insert_default();
        let since = match all.iter().find(|known| known.type_ == kind && known.status == status) {
            Some(known) => known.last_transition_time.clone(),
            None => Some(Time(self.now)),
        };
        let new = HorizontalPodAutoscalerCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: since,
        };
        match all.iter_mut().find(|known| known.type_ == kind) {
            Some(known) => *known = new,
            None => all.push(new),
        }
    }
}

impl Reconcile for Reconciler {
    type Key = Key;

    async fn reconcile(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(scaler) = self.scalers.get(key) else {
            self.histories.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
            return Ok(Outcome::Done);
        };
        let mut status = scaler.status.clone().unwrap_or_default();
        status.observed_generation = scaler.metadata.generation;
        let mut writing = Writing { status, now: self.context.now() };
        self.scale(key, &scaler, &scaler.spec, &mut writing).await?;
        if scaler.status.as_ref() != Some(&writing.status) {
            let api = self.context.api::<HorizontalPodAutoscaler>(&key.namespace);
            // Metrics change between two rounds without anybody writing: only the status is ours.
            let patch = Patch::Merge(json!({ "status": writing.status }));
            ignore_not_found(api.patch_status(&key.name, &PatchParams::default(), &patch).await)?;
        }
        Ok(Outcome::RequeueAfter(PERIOD))
    }
}

impl Reconciler {
    fn warn(&self, scaler: &HorizontalPodAutoscaler, reason: &str, message: &str) {
        self.context.recorder.warning(scaler.object_ref(&()), reason, message);
    }

    async fn scale(
        &self,
        key: &Key,
        scaler: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
        writing: &mut Writing,
    ) -> Result<(), Error> {
        let target = &spec.scale_target_ref;
        let client = &self.context.client;
        let failed = |why: &str| {
            (
                false,
                "FailedGetScale",
                format!("the HPA controller was unable to get the target's current scale: {why}"),
            )
        };
        let resource = match target_resource(client, target.api_version.as_deref(), &target.kind).await {
            Ok((resource, _)) => resource,
            Err(why) => {
                self.warn(scaler, "FailedGetScale", &why);
                writing.condition("AbleToScale", failed(&why));
                return Ok(());
            }
        };
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &key.namespace, &resource);
        let scale = match api.get_scale(&target.name).await {
            Ok(scale) => scale,
            Err(error) => {
                let why = explain(&error);
                self.warn(scaler, "FailedGetScale", &why);
                writing.condition("AbleToScale", failed(&why));
                return Ok(());
            }
        };
        let told = "the HPA controller was able to get the target's current scale".to_owned();
        writing.condition("AbleToScale", (true, "SucceededGetScale", told));
        let current = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
        writing.status.current_replicas = Some(scale.status.as_ref().map_or(0, |status| status.replicas));
        let Some((wanted, why)) = self.wanted(key, scaler, spec, &scale, current, writing).await? else {
            return Ok(());
        };
        writing.status.desired_replicas = wanted;
        if wanted == current {
            return Ok(());
        }
        self.rescale(key, scaler, &api, scale, wanted, &why, writing).await
    }

    /// How many replicas there should be, and why; `None` when that cannot be told.
    async fn wanted(
        &self,
        key: &Key,
        scaler: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
        scale: &Scale,
        current: i32,
        writing: &mut Writing,
    ) -> Result<Option<(i32, String)>, Error> {
        let (min, max) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
        if current == 0 && min != 0 {
            let told = "scaling is disabled since the replica count of the target is zero".to_owned();
            writing.condition("ScalingActive", (false, "ScalingDisabled", told));
            return Ok(Some((0, String::new())));
        }
        if current > max {
            return Ok(Some((max, "Current number of replicas above Spec.MaxReplicas".to_owned())));
        }
        if current < min {
            return Ok(Some((min, "Current number of replicas below Spec.MinReplicas".to_owned())));
        }
        let selector = scale.status.as_ref().and_then(|status| status.selector.clone()).unwrap_or_default();
        if selector.is_empty() {
            let told = "the HPA target's scale is missing a selector".to_owned();
            self.warn(scaler, "SelectorRequired", "selector is required");
            writing.condition("ScalingActive", (false, "InvalidSelector", told));
            return Ok(None);
        }
        let (asked, name) = match self.evaluate(key, scaler, spec, &selector, current, writing).await? {
            Some(found) => found,
            None => return Ok(None),
        };
        let mut histories = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
        let limited = histories.entry(key.clone()).or_default().apply(spec, current, asked, writing.now);
        writing.condition("AbleToScale", limited.able);
        writing.condition("ScalingLimited", limited.limited);
        let why = match asked > current {
            true => format!("{name} above target"),
            false => "All metrics below target".to_owned(),
        };
        Ok(Some((limited.replicas, why)))
    }

    /// The most that any metric asks for, and its name. A metric that cannot be told keeps the scale from going down.
    async fn evaluate(
        &self,
        key: &Key,
        scaler: &HorizontalPodAutoscaler,
        spec: &HorizontalPodAutoscalerSpec,
        selector: &str,
        current: i32,
        writing: &mut Writing,
    ) -> Result<Option<(i32, String)>, Error> {
        let pods =
            self.context.api::<Pod>(&key.namespace).list(&ListParams::default().labels(selector)).await?;
        let pods: Vec<Arc<Pod>> = pods.items.into_iter().map(Arc::new).collect();
        let tolerance = |up: bool| {
            let said = rules(spec, up).tolerance.and_then(|amount| Quantity::parse(&amount.0).ok());
            said.map_or(TOLERANCE, |quantity| quantity.milli())
        };
        let round = Round {
            source: Source { client: &self.context.client, namespace: &key.namespace },
            pods: &pods,
            selector,
            current,
            tolerances: (tolerance(false), tolerance(true)),
            now: writing.now,
        };
        let (mut best, mut first_unknown, mut statuses) =
            (None::<(i32, String)>, None::<Unknown>, Vec::new());
        for metric in spec.metrics.iter().flatten() {
            match round.evaluate(metric).await {
                Ok(proposal) => {
                    if best.as_ref().is_none_or(|(replicas, _)| proposal.replicas > *replicas) {
                        best = Some((proposal.replicas, proposal.name));
                    }
                    statuses.push(proposal.status);
                }
                Err(unknown) => {
                    self.warn(scaler, unknown.reason, &unknown.message);
                    first_unknown.get_or_insert(unknown);
                }
            }
        }
        writing.status.current_metrics = Some(statuses).filter(|all| !all.is_empty());
        let unknown =
            first_unknown.filter(|_| best.as_ref().is_none_or(|(replicas, _)| *replicas <= current));
        if let Some(Unknown { reason, message }) = unknown {
            let told = format!("the HPA was unable to compute the replica count: {message}");
            writing.condition("ScalingActive", (false, reason, told.clone()));
            self.warn(scaler, "FailedComputeMetricsReplicas", &format!("invalid metrics ({message})"));
            return Ok(None);
        }
        if let Some((_, name)) = &best {
            let told = format!("the HPA was able to successfully calculate a replica count from {name}");
            writing.condition("ScalingActive", (true, "ValidMetricFound", told));
        }
        Ok(best)
    }

    #[allow(clippy::too_many_arguments)] // what a scale is changed by, all different
    async fn rescale(
        &self,
        key: &Key,
        scaler: &HorizontalPodAutoscaler,
        api: &Api<DynamicObject>,
        mut scale: Scale,
        wanted: i32,
        why: &str,
        writing: &mut Writing,
    ) -> Result<(), Error> {
        let spec = scale.spec.get_or_insert_default();
        let before = spec.replicas.replace(wanted).unwrap_or(0);
        let name = scaler.spec.scale_target_ref.name.clone();
        match api.replace_scale(&name, &PostParams::default(), &scale).await {
            Ok(_) => {
                let message = format!("New size: {wanted}; reason: {why}");
                self.context.recorder.normal(scaler.object_ref(&()), "SuccessfulRescale", message);
                let told = format!("the HPA controller was able to update the target scale to {wanted}");
                writing.condition("AbleToScale", (true, "SucceededRescale", told));
                writing.status.last_scale_time = Some(Time(writing.now));
                let mut histories = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
                histories.entry(key.clone()).or_default().scaled(before, wanted, writing.now);
                Ok(())
            }
            Err(error) => {
                let cause = explain(&error);
                let message = format!("New size: {wanted}; reason: {why}; error: {cause}");
                self.warn(scaler, "FailedRescale", &message);
                let told = format!("the HPA controller was unable to update the target scale: {cause}");
                writing.condition("AbleToScale", (false, "FailedUpdateScale", told));
                Ok(())
            }
        }
    }
}
