//! A Pod sandbox's CRI configuration.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;

use super::{cgroup_parent, config, files, security};
use crate::cri::api::{LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol};
use crate::cri::labels;
use crate::kubelet::spec;
use ::config::NodeConfig;

/// The sandbox's configuration. `resolv_conf` is the node's own, for Pods that inherit it.
pub fn sandbox_config(pod: &Pod, attempt: u32, node: &NodeConfig, resolv_conf: &str) -> PodSandboxConfig {
    let spec = spec(pod);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let uid = text(&pod.metadata.uid);
    let sysctls = spec.security_context.iter().flat_map(|context| context.sysctls.iter().flatten());
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: text(&pod.metadata.name),
            uid: uid.clone(),
            namespace: text(&pod.metadata.namespace),
            attempt,
        }),
        hostname: files::kernel_hostname(pod, node),
        log_directory: config::log_directory(pod).display().to_string(),
        dns_config: Some(files::dns_config(pod, node, resolv_conf)),
        port_mappings: port_mappings(pod),
        labels: pod_labels(pod),
        annotations: pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect(),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroup_parent(spec, &uid),
            security_context: Some(security::sandbox_security(spec)),
            sysctls: sysctls.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        }),
    }
}

/// The labels by which a Pod's things are found again; the Pod's own beside them, as upstream has it.
pub fn pod_labels(pod: &Pod) -> HashMap<String, String> {
    let mut all: HashMap<String, String> =
        pod.metadata.labels.clone().unwrap_or_default().into_iter().collect();
    let metadata = &pod.metadata;
    for (key, value) in [
        (labels::POD_NAME, &metadata.name),
        (labels::POD_NAMESPACE, &metadata.namespace),
        (labels::POD_UID, &metadata.uid),
    ] {
        all.insert(key.to_owned(), value.clone().unwrap_or_default());
    }
    all
}

/// Host ports, unless the Pod is on the node's network anyway.
fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    let spec = spec(pod);
    if spec.host_network == Some(true) {
        return Vec::new();
    }
    let sidecars = spec.init_containers.iter().flatten();
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            Some(PortMapping {
                protocol: i32::from(match port.protocol.as_deref() {
                    Some("UDP") => Protocol::Udp,
                    Some("SCTP") => Protocol::Sctp,
                    _ => Protocol::Tcp,
                }),
                container_port: port.container_port,
                host_port: port.host_port.filter(|port| *port > 0)?,
                host_ip: port.host_ip.clone().unwrap_or_default(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::testing;
    use serde_json::json;

    #[test]
    fn a_pod_on_the_node_s_network_has_no_host_name_of_its_own() {
        let check = |host_network: bool, expect: &str| {
            let pod = testing::pod(json!({"metadata": {"name": "web"},
                "spec": {"hostNetwork": host_network, "containers": []}}));
            assert_eq!(sandbox_config(&pod, 0, &NodeConfig::example(), "").hostname, expect);
        };
        check(false, "web");
        check(true, "");
        let whole = testing::pod(json!({"metadata": {"name": "web", "namespace": "shop"},
            "spec": {"subdomain": "db", "setHostnameAsFQDN": true, "containers": []}}));
        let name = sandbox_config(&whole, 0, &NodeConfig::example(), "").hostname;
        assert_eq!(name, "web.db.shop.svc.cluster.local");
    }
}
