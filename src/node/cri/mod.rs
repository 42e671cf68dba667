//! The container runtime's edge: containerd as a supervised child, and its CRI socket as typed calls.

pub mod containerd;
mod containerd_api;
pub mod credentials;
mod runtime;
pub use containerd_api::{Containerd, messages};
pub(crate) use runtime::channel;
pub use runtime::labels;

/// Messages and clients generated from the trimmed interface definition.
#[allow(clippy::all, missing_docs)]
pub mod api {
    tonic::include_proto!("runtime.v1");
}

pub use runtime::{Runtime, RuntimeError};
