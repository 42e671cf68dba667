//! Runs the Pods bound to this node and reports what became of them.
//!
//! ```text
//! join (identity) -> register the Node -> serve certificate -> pods, status, lease, server
//! ```

mod container;
mod context;
mod grpc;
mod handler;
pub mod identity;
mod image;
mod node;
mod objects;
mod pods;
mod probe;
mod rotation;
mod run;
mod server;
mod services;
mod volumes;

#[cfg(test)]
mod testing;

pub use run::{KubeletError, KubeletOptions, run};

use std::sync::LazyLock;

use k8s_openapi::api::core::v1::{Pod, PodSpec};

/// A Pod's definition; the API server never stores one without.
fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: LazyLock<PodSpec> = LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}
