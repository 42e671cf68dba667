//! What each metric of an autoscaler says: how many replicas it asks for, and its status.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, ExternalMetricStatus, MetricIdentifier, MetricSpec, MetricStatus,
    MetricTarget, MetricValueStatus, ObjectMetricSource, ObjectMetricStatus, PodsMetricStatus,
    ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use kube::ResourceExt;

use super::replicas::{Aim, Ratio, Samples, by_pods, ready_pods};
use super::source::{Source, total};
use api::quantity::Quantity;

/// What is known when metrics are evaluated.
pub(super) struct Round<'a> {
    pub source: Source<'a>,
    /// The Pods of the scaled object.
    pub pods: &'a [Arc<Pod>],
    pub selector: &'a str,
    pub current: i32,
    /// How far down and up the ratio may be off, in thousandths.
    pub tolerances: (i64, i64),
    pub now: Timestamp,
}

/// What one metric says.
pub(super) struct Proposal {
    pub replicas: i32,
    /// What it is, for people.
    pub name: String,
    pub status: MetricStatus,
}

/// Why a metric says nothing: the condition's reason, and the words.
#[derive(Debug)]
pub(super) struct Unknown {
    pub reason: &'static str,
    pub message: String,
}

fn milli(amount: Option<&Amount>) -> Option<i64> {
    Quantity::parse(&amount?.0).ok().map(|quantity| quantity.milli())
}

fn amount(milli: i64) -> Option<Amount> {
    Some(Amount(Quantity::from_milli(milli).to_string()))
}

fn containers<'a>(pod: &'a Pod, container: Option<&'a str>) -> impl Iterator<Item = &'a Container> {
    let spec = pod.spec.iter();
    let all = spec.flat_map(|spec| {
        let sidecars = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always")))
    });
    all.filter(move |candidate| container.is_none_or(|name| candidate.name == name))
}

/// What each Pod asks for, in thousandths. Fails when a container asks for nothing.
fn requests(
    pods: &[Arc<Pod>],
    resource: &str,
    container: Option<&str>,
) -> Result<BTreeMap<String, i64>, String> {
    let mut all = BTreeMap::new();
    for pod in pods {
        let mut sum = 0;
        for container in containers(pod, container) {
            let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
            let request = milli(requests.and_then(|requests| requests.get(resource)));
            sum += request.ok_or_else(|| {
                format!(
                    "missing request for {resource} in container {} of Pod {}",
                    container.name,
                    pod.name_any()
                )
            })?;
        }
        all.insert(pod.name_any(), sum);
    }
    Ok(all)
}

impl Round<'_> {
    /// Evaluates one metric. Fails with why it cannot be told.
    pub(super) async fn evaluate(&self, metric: &MetricSpec) -> Result<Proposal, Unknown> {
        let failed = |reason: &'static str| move |message: String| Unknown { reason, message };
        let (replicas, name, status) = match (metric.type_.as_str(), metric) {
            ("Resource", MetricSpec { resource: Some(source), .. }) => {
                let got = self.resource(&source.name, None, &source.target).await;
                let (replicas, current) = got.map_err(failed("FailedGetResourceMetric"))?;
                let status = ResourceMetricStatus { name: source.name.clone(), current };
                let status = MetricStatus { resource: Some(status), ..MetricStatus::default() };
                (replicas, format!("{} resource", source.name), status)
            }
            ("ContainerResource", MetricSpec { container_resource: Some(source), .. }) => {
                let got = self.resource(&source.name, Some(&source.container), &source.target).await;
                let (replicas, current) = got.map_err(failed("FailedGetContainerResourceMetric"))?;
                let (container, name) = (source.container.clone(), source.name.clone());
                let status = ContainerResourceMetricStatus { container, name, current };
                let status = MetricStatus { container_resource: Some(status), ..MetricStatus::default() };
                (replicas, format!("{} container resource", source.name), status)
            }
            ("Pods", MetricSpec { pods: Some(source), .. }) => {
                let got = self.pods_metric(&source.metric, &source.target).await;
                let (replicas, current) = got.map_err(failed("FailedGetPodsMetric"))?;
                let status = PodsMetricStatus { metric: source.metric.clone(), current };
                let status = MetricStatus { pods: Some(status), ..MetricStatus::default() };
                (replicas, format!("pods metric {}", source.metric.name), status)
            }
            ("Object", MetricSpec { object: Some(source), .. }) => {
                let value = self.object(source).await.map_err(failed("FailedGetObjectMetric"))?;
                let (replicas, current) = self.single(value, &source.target);
                let described_object = source.described_object.clone();
                let status = ObjectMetricStatus { metric: source.metric.clone(), described_object, current };
                let status = MetricStatus { object: Some(status), ..MetricStatus::default() };
                (replicas, format!("{} metric {}", source.described_object.kind, source.metric.name), status)
            }
            ("External", MetricSpec { external: Some(source), .. }) => {
                let value = self.source.external(&source.metric).await;
                let (replicas, current) =
                    self.single(value.map_err(failed("FailedGetExternalMetric"))?, &source.target);
                let status = ExternalMetricStatus { metric: source.metric.clone(), current };
                let status = MetricStatus { external: Some(status), ..MetricStatus::default() };
                (replicas, format!("external metric {}", source.metric.name), status)
            }
            (kind, _) => {
                let message = format!("unknown metric source type {kind:?}");
                return Err(Unknown { reason: "InvalidMetricSourceType", message });
            }
        };
        Ok(Proposal { replicas, name, status: MetricStatus { type_: metric.type_.clone(), ..status } })
    }

    async fn object(&self, source: &ObjectMetricSource) -> Result<i64, String> {
        let about = &source.described_object;
        let resource = self.resource_name(about.api_version.as_deref(), &about.kind).await?;
        self.source.object(&resource, &about.name, &source.metric).await
    }

    async fn resource_name(&self, api_version: Option<&str>, kind: &str) -> Result<String, String> {
        let (resource, _) = super::target_resource(self.source.client, api_version, kind).await?;
        Ok(match resource.group.as_str() {
            "" => resource.plural,
            group => format!("{}.{group}", resource.plural),
        })
    }

    async fn resource(
        &self,
        resource: &str,
        container: Option<&str>,
        target: &MetricTarget,
    ) -> Result<(i32, MetricValueStatus), String> {
        let failed = |why: String| format!("failed to get {resource} usage: {why}");
        let samples = self.source.resource(self.selector, resource, container).await.map_err(failed)?;
        let cpu = resource == "cpu";
        let (sum, average) = total(&samples);
        if let Some(percent) = target.average_utilization {
            let failed = |why: String| format!("failed to get {resource} utilization: {why}");
            let requests = requests(self.pods, resource, container).map_err(failed)?;
            let aim = |request: i64| Aim {
                target: request * i64::from(percent) / 100,
                full: request * i64::from(percent.max(100)) / 100,
            };
            let aims = requests.iter().map(|(name, request)| (name.clone(), aim(*request))).collect();
            let replicas = self.replicas(&samples, &aims, cpu).map_err(failed)?;
            let asked: i64 =
                requests.iter().filter(|(name, _)| samples.contains_key(*name)).map(|(_, r)| r).sum();
            let used = i32::try_from(sum * 100 / asked.max(1)).unwrap_or(i32::MAX);
            let current = MetricValueStatus {
                average_utilization: Some(used),
                average_value: amount(average),
                value: None,
            };
            return Ok((replicas, current));
        }
        let aims = self.same_aims(target);
        let replicas = self.replicas(&samples, &aims, cpu).map_err(failed)?;
        Ok((replicas, MetricValueStatus { average_value: amount(average), ..MetricValueStatus::default() }))
    }

    async fn pods_metric(
        &self,
        metric: &MetricIdentifier,
        target: &MetricTarget,
    ) -> Result<(i32, MetricValueStatus), String> {
        let samples = self.source.pods(self.selector, metric).await?;
        let replicas = self.replicas(&samples, &self.same_aims(target), false)?;
        let (_, average) = total(&samples);
        Ok((replicas, MetricValueStatus { average_value: amount(average), ..MetricValueStatus::default() }))
    }

    /// Every Pod should use the same.
    fn same_aims(&self, target: &MetricTarget) -> BTreeMap<String, Aim> {
        let target = milli(target.average_value.as_ref()).unwrap_or_default();
        self.pods.iter().map(|pod| (pod.name_any(), Aim { target, full: target })).collect()
    }

    fn replicas(&self, samples: &Samples, aims: &BTreeMap<String, Aim>, cpu: bool) -> Result<i32, String> {
        let there: Samples = samples
            .iter()
            .filter(|(name, _)| aims.contains_key(*name))
            .map(|(n, s)| (n.clone(), s.clone()))
            .collect();
        by_pods(self.current, self.pods, &there, aims, cpu, self.tolerances, self.now)
    }

    /// One number for all Pods together.
    fn single(&self, value: i64, target: &MetricTarget) -> (i32, MetricValueStatus) {
        let near = |ratio: Ratio| {
            ratio.is_near(if ratio.used > ratio.aim { self.tolerances.1 } else { self.tolerances.0 })
        };
        if let Some(per_pod) = milli(target.average_value.as_ref()) {
            let current = usize::try_from(self.current).unwrap_or_default();
            let all = Ratio { used: value.into(), aim: i128::from(per_pod) * i128::from(self.current) };
            let each = Ratio { used: value.into(), aim: per_pod.into() };
            let replicas = if near(all) { self.current } else { each.times(1) };
            let average = value / i64::try_from(current.max(1)).unwrap_or(1);
            return (
                replicas,
                MetricValueStatus { average_value: amount(average), ..MetricValueStatus::default() },
            );
        }
        let aim = milli(target.value.as_ref()).unwrap_or_default();
        let ratio = Ratio { used: value.into(), aim: aim.into() };
        let replicas = if near(ratio) { self.current } else { ratio.times(ready_pods(self.pods)) };
        (replicas, MetricValueStatus { value: amount(value), ..MetricValueStatus::default() })
    }
}
