//! What the kubelet's tests stand on: made-up Pods, a runtime on a socket and an API server that holds one Pod.

mod api;
mod cri;

pub use api::FakeApi;
pub use cri::{FakeRuntime, Fault};

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

/// A Pod from JSON.
pub fn pod(value: serde_json::Value) -> Pod {
    serde_json::from_value(value).expect("a Pod")
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
