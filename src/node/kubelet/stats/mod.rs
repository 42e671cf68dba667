//! What this node, its Pods and their containers use: measured when somebody asks, told in the kubelet's formats.

mod groups;
mod metrics;
mod sample;
mod summary;

pub use metrics::{cadvisor, own, probes, resource};
pub use sample::{Depth, PodUse, Sampler};
pub use summary::summary;
