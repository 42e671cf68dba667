//! Kinds of the core group that behave in their own way.

mod config;
mod container;
mod namespace;
mod node;
mod pod;
mod pod_spec;
mod pod_update;
mod probe;
mod service;
mod storage;
mod volume;

pub use config::{ConfigMap, LimitRange, Secret};
pub use namespace::Namespace;
pub use node::{Event, Node};
pub use pod::{Pod, PodTemplate, validate_template};
pub use pod_spec::default_template;
pub use service::{EndpointSlice, Endpoints, Service};
pub use storage::{Claim, Volume};
