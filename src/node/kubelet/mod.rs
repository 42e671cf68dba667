//! Runs the Pods bound to this node and reports what became of them.
//!
//! ```text
//! join (identity) -> register the Node -> serve certificate -> pods, status, lease, server
//! ```

mod container;
mod context;
mod eviction;
mod grpc;
mod handler;
pub mod identity;
mod image;
mod node;
mod objects;
mod plugins;
mod pods;
mod pressure;
mod probe;
mod rotation;
mod run;
mod server;
mod services;
mod statics;
mod stats;
mod volumes;

#[cfg(test)]
mod testing;

pub use node::VERSION;
pub use run::{Kubelet, KubeletError, KubeletOptions, run};

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

/// A Pod's definition; the API server never stores one without.
fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// The Pod's ephemeral containers in the form of ordinary ones, each with the name of the container it looks into.
fn ephemeral(pod: &Pod) -> Vec<(Container, Option<String>)> {
    let plain = |container: &k8s_openapi::api::core::v1::EphemeralContainer| {
        // Every field that both have has the same form; the name of the target is the only one more.
        let value = serde_json::to_value(container).ok()?;
        let target = container.target_container_name.clone().filter(|name| !name.is_empty());
        Some((serde_json::from_value::<Container>(value).ok()?, target))
    };
    spec(pod).ephemeral_containers.iter().flatten().filter_map(plain).collect()
}
