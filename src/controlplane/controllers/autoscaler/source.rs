//! Where measurements come from: the metrics APIs, asked as any other client asks them.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use k8s_openapi::api::autoscaling::v2::MetricIdentifier;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::Client;
use serde_json::Value;

use super::replicas::{Sample, Samples};
use api::quantity::Quantity;

/// Asks the metrics APIs about one namespace.
pub(super) struct Source<'a> {
    pub client: &'a Client,
    pub namespace: &'a str,
}

fn milli(value: Option<&Value>) -> Option<i64> {
    Quantity::from_value(value?).ok().map(|quantity| quantity.milli())
}

/// A span as Go writes it: `30s`, `1m0s`.
fn span(text: &str) -> SignedDuration {
    text.parse().unwrap_or(SignedDuration::from_mins(1))
}

/// A selector as a query has it.
fn query_selector(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return String::new() };
    let mut parts: Vec<String> =
        selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    for term in selector.match_expressions.iter().flatten() {
        let values = term.values.as_deref().unwrap_or_default().join(",");
        parts.push(match term.operator.as_str() {
            "In" => format!("{} in ({values})", term.key),
            "NotIn" => format!("{} notin ({values})", term.key),
            "Exists" => term.key.clone(),
            _ => format!("!{}", term.key),
        });
    }
    parts.join(",")
}

fn query(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// Reads a list of PodMetrics: one resource, of all containers or of one.
fn resource_samples(list: &Value, resource: &str, container: Option<&str>) -> Samples {
    let one = |item: &Value| {
        let name = item.pointer("/metadata/name")?.as_str()?.to_owned();
        let containers = item.get("containers")?.as_array()?;
        let mut counted = containers
            .iter()
            .filter(|entry| {
                container.is_none_or(|name| entry.get("name").and_then(Value::as_str) == Some(name))
            })
            .peekable();
        counted.peek()?;
        let used: Option<Vec<i64>> =
            counted.map(|entry| milli(entry.get("usage").and_then(|usage| usage.get(resource)))).collect();
        Some((name, sample(item, used?.iter().sum())))
    };
    list.get("items").and_then(Value::as_array).into_iter().flatten().filter_map(one).collect()
}

fn sample(item: &Value, used: i64) -> Sample {
    let at = item.get("timestamp").and_then(Value::as_str).and_then(|text| text.parse().ok());
    let window = match item.get("windowSeconds").and_then(Value::as_i64) {
        Some(seconds) => SignedDuration::from_secs(seconds),
        None => item.get("window").and_then(Value::as_str).map_or(SignedDuration::from_mins(1), span),
    };
    Sample { used, at: at.unwrap_or_default(), window }
}

/// Reads a list of MetricValues about Pods.
fn custom_samples(list: &Value) -> Samples {
    let one = |item: &Value| {
        let name = item.pointer("/describedObject/name")?.as_str()?.to_owned();
        Some((name, sample(item, milli(item.get("value"))?)))
    };
    list.get("items").and_then(Value::as_array).into_iter().flatten().filter_map(one).collect()
}

impl Source<'_> {
    async fn get(&self, path: &str, query: &str) -> Result<Value, String> {
        let path = if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") };
        let request = http::Request::get(path).body(Vec::new()).map_err(|error| error.to_string())?;
        self.client
            .request::<Value>(request)
            .await
            .map_err(|error| super::super::pod_control::explain(&error))
    }

    /// What the selected Pods use of a resource. Fails when the API does, or knows none of them.
    pub(super) async fn resource(
        &self,
        selector: &str,
        resource: &str,
        container: Option<&str>,
    ) -> Result<Samples, String> {
        let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{}/pods", self.namespace);
        let list = self.get(&path, &query(&[("labelSelector", selector)])).await;
        let list = list.map_err(|why| format!("unable to fetch metrics from resource metrics API: {why}"))?;
        let samples = resource_samples(&list, resource, container);
        match samples.is_empty() {
            true => Err("no metrics returned from resource metrics API".to_owned()),
            false => Ok(samples),
        }
    }

    fn custom(&self, rest: &str) -> String {
        format!("/apis/custom.metrics.k8s.io/v1beta2/namespaces/{}/{rest}", self.namespace)
    }

    /// A metric of each of the selected Pods. Fails when the API does, or knows none of them.
    pub(super) async fn pods(&self, selector: &str, metric: &MetricIdentifier) -> Result<Samples, String> {
        let wanted = query_selector(metric.selector.as_ref());
        let query = query(&[("labelSelector", selector), ("metricLabelSelector", &wanted)]);
        let list = self.get(&self.custom(&format!("pods/*/{}", metric.name)), &query).await;
        let list = list.map_err(|why| format!("unable to fetch metrics from custom metrics API: {why}"))?;
        let samples = custom_samples(&list);
        match samples.is_empty() {
            true => Err("no metrics returned from custom metrics API".to_owned()),
            false => Ok(samples),
        }
    }

    /// A metric of one object, named by its resource, in thousandths. Fails when the API does.
    pub(super) async fn object(
        &self,
        resource: &str,
        name: &str,
        metric: &MetricIdentifier,
    ) -> Result<i64, String> {
        let wanted = query_selector(metric.selector.as_ref());
        let path = self.custom(&format!("{resource}/{name}/{}", metric.name));
        let list = self.get(&path, &query(&[("metricLabelSelector", &wanted)])).await;
        let list = list.map_err(|why| format!("unable to fetch metrics from custom metrics API: {why}"))?;
        milli(list.pointer("/items/0/value"))
            .ok_or_else(|| "no metrics returned from custom metrics API".to_owned())
    }

    /// The sum of an external metric's values, in thousandths. Fails when the API does, or has none.
    pub(super) async fn external(&self, metric: &MetricIdentifier) -> Result<i64, String> {
        let path =
            format!("/apis/external.metrics.k8s.io/v1beta1/namespaces/{}/{}", self.namespace, metric.name);
        let wanted = query_selector(metric.selector.as_ref());
        let list = self.get(&path, &query(&[("labelSelector", &wanted)])).await;
        let list = list.map_err(|why| format!("unable to fetch metrics from external metrics API: {why}"))?;
        let values: Vec<i64> = list
            .get("items")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|item| milli(item.get("value")))
            .collect();
        match values.is_empty() {
            true => Err("no metrics returned from external metrics API".to_owned()),
            false => Ok(values.iter().sum()),
        }
    }
}

/// Returns the sum and the average of what was measured, in thousandths.
pub(super) fn total(samples: &BTreeMap<String, Sample>) -> (i64, i64) {
    let sum: i64 = samples.values().map(|sample| sample.used).sum();
    (sum, sum / i64::try_from(samples.len().max(1)).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn measurements_are_read() {
        let list = json!({"items": [
            {"metadata": {"name": "a"}, "timestamp": "2026-01-01T00:00:00Z", "window": "30s", "containers": [
                {"name": "c", "usage": {"cpu": "250m", "memory": "1Mi"}}, {"name": "d", "usage": {"cpu": "1", "memory": "1Mi"}}]},
            {"metadata": {"name": "b"}, "timestamp": "2026-01-01T00:00:00Z", "window": "1m0s", "containers": []}]});
        let all = resource_samples(&list, "cpu", None);
        assert_eq!(all.len(), 1);
        assert_eq!((all["a"].used, all["a"].window), (1250, SignedDuration::from_secs(30)));
        assert_eq!(resource_samples(&list, "cpu", Some("c"))["a"].used, 250);
        assert!(resource_samples(&list, "cpu", Some("x")).is_empty());
        let custom = json!({"items": [{"describedObject": {"name": "p"}, "value": "1500m", "timestamp": "2026-01-01T00:00:00Z"}]});
        assert_eq!(custom_samples(&custom)["p"].used, 1500);
        assert_eq!(query(&[("labelSelector", "a=b"), ("x", "")]), "labelSelector=a%3Db");
    }
}
