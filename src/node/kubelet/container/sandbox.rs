//! A Pod sandbox's CRI configuration.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::Pod;

use super::{cgroup_parent, config, files, security};
use crate::cri::api::{LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol};
use crate::cri::labels;
use crate::kubelet::spec;
use ::config::NodeConfig;

/// By this annotation containerd's shim tells whether it serves the container already.
const SHIM_GROUP: &str = "io.containerd.runc.v2.group";
/// A node's Pods share so many shims. A shim of each Pod's own costs memory and wakes up twice a minute to collect
/// garbage; one for all makes every container wait while one is created, and takes all Pods with it when it is killed.
const SHIM_GROUPS: u32 = 4;

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
        annotations: annotations(pod, &uid),
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

/// The Pod's own annotations, and the shim it is served by: always the same, as each of its containers is asked about.
fn annotations(pod: &Pod, uid: &str) -> HashMap<String, String> {
    let mut all: HashMap<String, String> =
        pod.metadata.annotations.clone().unwrap_or_default().into_iter().collect();
    let group = uid.bytes().map(u32::from).sum::<u32>() % SHIM_GROUPS;
    all.insert(SHIM_GROUP.to_owned(), format!("pods-{group}"));
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

    #[test]
    fn pods_share_a_few_shims_whatever_they_say_themselves() {
        let group = |uid: &str| {
            let pod = testing::pod(json!({"metadata": {"name": "web", "uid": uid,
                "annotations": {"a": "b", SHIM_GROUP: "mine"}}, "spec": {"containers": []}}));
            let config = sandbox_config(&pod, 0, &NodeConfig::example(), "");
            assert_eq!(config.annotations.get("a").map(String::as_str), Some("b"));
            config.annotations.get(SHIM_GROUP).cloned().expect("a group")
        };
        assert_eq!(
            group("5d7f4e7e-0000-4000-8000-000000000001"),
            group("5d7f4e7e-0000-4000-8000-000000000001")
        );
        let groups: std::collections::BTreeSet<String> =
            (0..100).map(|n| group(&format!("uid-{n}"))).collect();
        assert_eq!(groups.into_iter().collect::<Vec<_>>(), ["pods-0", "pods-1", "pods-2", "pods-3"]);
    }
}
