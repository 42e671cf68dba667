//! The downward API's fields.

use std::collections::BTreeMap;
use std::fmt::Write;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::resources::{Limits, quantity_milli, quantity_value};
use crate::kubelet::spec;

/// The downward API was asked for something it does not offer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    Path(String),
    #[error("unsupported container resource: {0}")]
    Resource(String),
    #[error("container {0} not found")]
    Container(String),
}

/// What the node adds to a Pod's own fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub node: String,
    pub node_ip: String,
    pub pod_ips: Vec<String>,
    /// The node's allocatable, which stands in for absent limits.
    pub cpu_milli: u64,
    pub memory: u64,
    /// Bytes of the node's disk.
    pub disk: u64,
}

/// Bytes of the node's disk a container may use, or asks for.
fn storage(container: &Container, limit: bool) -> Option<u64> {
    let resources = container.resources.as_ref()?;
    let get = |map: &Option<BTreeMap<String, Quantity>>| map.as_ref()?.get("ephemeral-storage").cloned();
    let limits = get(&resources.limits);
    let found = if limit { limits } else { get(&resources.requests).or(limits) };
    found.as_ref().and_then(quantity_value)
}

/// The value of a fieldRef, by the downward API's list of paths.
pub fn field(pod: &Pod, path: &str, facts: &Facts) -> Result<String, FieldError> {
    let metadata = &pod.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let entry = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    if let Some((map, key)) =
        path.split_once("['").and_then(|(map, rest)| Some((map, rest.strip_suffix("']")?)))
    {
        return match map {
            "metadata.labels" => Ok(entry(&metadata.labels, key)),
            "metadata.annotations" => Ok(entry(&metadata.annotations, key)),
            _ => Err(FieldError::Path(path.to_owned())),
        };
    }
    Ok(match path {
        "metadata.name" => text(&metadata.name),
        "metadata.namespace" => text(&metadata.namespace),
        "metadata.uid" => text(&metadata.uid),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => facts.node.clone(),
        "spec.serviceAccountName" => text(&spec(pod).service_account_name),
        "status.hostIP" | "status.hostIPs" => facts.node_ip.clone(),
        "status.podIP" => facts.pod_ips.first().cloned().unwrap_or_default(),
        "status.podIPs" => facts.pod_ips.join(","),
        other => return Err(FieldError::Path(other.to_owned())),
    })
}

/// `key="value"` lines, values quoted as Go quotes strings.
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let mut text = String::new();
    for (key, value) in map.into_iter().flatten() {
        let quoted = serde_json::Value::String(value.clone());
        let _ = writeln!(text, "{key}={quoted}");
    }
    text.trim_end_matches('\n').to_owned()
}

/// The value of a resourceFieldRef: the container's limit or request, in units of the divisor, rounded up.
pub fn resource_field(
    pod: &Pod,
    own: &Container,
    selector: &ResourceFieldSelector,
    facts: &Facts,
) -> Result<String, FieldError> {
    let spec = spec(pod);
    let mut all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let container = match selector.container_name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => all.find(|c| c.name == name).ok_or_else(|| FieldError::Container(name.to_owned()))?,
        None => own,
    };
    let limits = Limits::of(container);
    let milli = match selector.resource.as_str() {
        "limits.cpu" => limits.cpu_limit.unwrap_or(facts.cpu_milli),
        "requests.cpu" => limits.cpu_request.unwrap_or(0),
        "limits.memory" => limits.memory_limit.unwrap_or(facts.memory) * 1000,
        "requests.memory" => limits.memory_request.unwrap_or(0) * 1000,
        "limits.ephemeral-storage" => storage(container, true).unwrap_or(facts.disk) * 1000,
        "requests.ephemeral-storage" => storage(container, false).unwrap_or(0) * 1000,
        other => return Err(FieldError::Resource(other.to_owned())),
    };
    let divisor =
        selector.divisor.as_ref().and_then(quantity_milli).filter(|divisor| *divisor > 0).unwrap_or(1000);
    Ok(milli.div_ceil(divisor).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::testing::pod;
    use serde_json::json;

    #[test]
    fn fields_and_resources() {
        let pod = pod(json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "w", "tier": "a\"b"}},
            "spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "250m", "memory": "64Mi"}}}]}
        }));
        let facts = Facts {
            node: "n1".into(),
            pod_ips: vec!["10.42.0.3".into()],
            memory: 1 << 30,
            disk: 2 << 30,
            ..Facts::default()
        };
        let check = |path: &str, expect: Result<&str, FieldError>| {
            assert_eq!(field(&pod, path, &facts), expect.map(str::to_owned), "{path}");
        };
        check("metadata.labels['app']", Ok("w"));
        check("metadata.labels", Ok("app=\"w\"\ntier=\"a\\\"b\""));
        check("status.podIP", Ok("10.42.0.3"));
        check("spec.nodeName", Ok("n1"));
        check("spec.other", Err(FieldError::Path("spec.other".into())));
        let container = &pod.spec.as_ref().expect("spec").containers[0];
        let check = |resource: &str, divisor: Option<&str>, expect: &str| {
            let selector =
                serde_json::from_value(json!({"resource": resource, "divisor": divisor})).expect("selector");
            assert_eq!(
                resource_field(&pod, container, &selector, &facts).as_deref(),
                Ok(expect),
                "{resource}"
            );
        };
        check("limits.cpu", None, "1");
        check("limits.cpu", Some("1m"), "250");
        check("limits.memory", Some("1Mi"), "64");
        check("requests.memory", None, "67108864");
        check("limits.ephemeral-storage", Some("1Gi"), "2");
        check("requests.ephemeral-storage", None, "0");
    }
}
