//! Defaults and validation of Pod specifications and templates.

use serde_json::{Value, json};

use super::container;
use super::persistent_volume::default_sources;
use crate::resources::fill::Fill;

/// Defaults of the Pod template below `key` of a workload's spec.
pub fn default_template(spec: &mut Value, key: &str) {
    spec.within(key, |template| {
        template.within("spec", default_spec);
    });
}

/// Defaults of a Pod's spec, in Pods and templates alike. Rule: `SetDefaults_PodSpec` and what it contains.
pub fn default_spec(spec: &mut Value) {
    spec.fill_text("dnsPolicy", "ClusterFirst");
    spec.fill_text("restartPolicy", "Always");
    spec.fill("terminationGracePeriodSeconds", 30);
    spec.fill_text("schedulerName", "default-scheduler");
    spec.fill("securityContext", json!({}));
    // The old name of the field is kept equal to the new one, in both directions.
    if let Some(name) = spec.get("serviceAccountName").filter(|name| !name.is_null() && *name != "").cloned()
    {
        spec.put("serviceAccount", name);
    } else if let Some(name) =
        spec.get("serviceAccount").filter(|name| !name.is_null() && *name != "").cloned()
    {
        spec.put("serviceAccountName", name);
    }
    spec.each("volumes", default_volume);
    let host_network = spec.get("hostNetwork").and_then(Value::as_bool).unwrap_or(false);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        spec.each(list, |container| {
            container::default_container(container);
            if host_network {
                container.each("ports", |port| {
                    let number = port.get("containerPort").cloned().unwrap_or_default();
                    port.fill("hostPort", number);
                });
            }
        });
    }
}

/// What a Pod has beyond a template: links to Services, and requests where only limits are said.
/// Rule: `SetDefaults_Pod`.
pub fn default_pod(spec: &mut Value) {
    spec.fill("enableServiceLinks", true);
    for list in ["initContainers", "containers"] {
        spec.each(list, |container| container.within("resources", container::requests_from_limits));
    }
    spec.within("resources", container::requests_from_limits);
}

fn default_volume(volume: &mut Value) {
    let sources = volume
        .as_object()
        .map_or(0, |members| members.iter().filter(|(k, v)| *k != "name" && !v.is_null()).count());
    if sources == 0 {
        volume.put("emptyDir", json!({}));
    }
    for source in ["configMap", "secret", "downwardAPI", "projected"] {
        volume.within(source, |source| source.fill("defaultMode", 0o644));
    }
    default_sources(volume);
    volume.within("downwardAPI", |source| source.each("items", default_downward_item));
    volume.within("projected", |source| {
        source.each("sources", |source| {
            source.within("serviceAccountToken", |token| token.fill("expirationSeconds", 3600));
            source.within("downwardAPI", |downward| downward.each("items", default_downward_item));
        });
    });
    volume.within("ephemeral", |source| {
        source.within("volumeClaimTemplate", |claim| {
            claim.within("spec", |spec| spec.fill("volumeMode", "Filesystem"))
        });
    });
}

fn default_downward_item(item: &mut Value) {
    item.within("fieldRef", |field| field.fill_text("apiVersion", "v1"));
    item.within("resourceFieldRef", |field| field.fill("divisor", "0"));
}
