//! What the kubelet's tests stand on: made-up Pods, a runtime on a socket and an API server that holds one Pod.

mod api;
mod cri;

pub use api::FakeApi;
pub use cri::{FakeRuntime, Fault};

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::config::{NodeConfig, Role};

/// A Pod from JSON.
pub fn pod(value: serde_json::Value) -> Pod {
    serde_json::from_value(value).expect("a Pod")
}

/// A node's configuration as the CLI writes it.
pub fn config() -> NodeConfig {
    NodeConfig {
        cluster: "dev".into(),
        node: "dev-agent-0".into(),
        role: Role::Agent,
        node_ip: [172, 20, 0, 3].into(),
        server_ip: [172, 20, 0, 2].into(),
        server_port: 6443,
        token: "abcdef.0123456789abcdef".into(),
        ca_hash: String::new(),
        pod_cidr: "10.42.0.0/16".parse().expect("cidr"),
        service_cidr: "10.43.0.0/16".parse().expect("cidr"),
        dns_ip: [10, 43, 0, 10].into(),
        cluster_domain: "cluster.local".into(),
        lb_first: [172, 20, 1, 1].into(),
        lb_last: [172, 20, 1, 9].into(),
        api_sans: Vec::new(),
        settings: Default::default(),
    }
}

/// Waits until `holds`, at most ten seconds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let held = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), held)
        .await
        .unwrap_or_else(|_| panic!("never came true: {what}"));
}
