//! Kinds of the core group that behave in their own way.

mod claim;
mod config;
mod container;
mod downward;
mod namespace;
mod node;
mod persistent_volume;
mod pod;
mod pod_spec;
mod pod_update;
mod probe;
mod scheduling;
mod service;
mod volume;
mod volume_source;

pub use claim::{Claim, default_claim, validate_claim_template};
pub use config::{ConfigMap, LimitRange, Secret};
pub use namespace::Namespace;
pub use node::{Event, Node};
pub use persistent_volume::PersistentVolume;
pub use pod::{Pod, PodTemplate, validate_template};
pub use pod_spec::default_template;
pub use service::{EndpointSlice, Endpoints, Service};
