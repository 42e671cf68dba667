//! Kinds of the core group that behave in their own way.

mod claim;
mod config;
mod container;
mod container_env;
mod container_mounts;
mod downward;
mod endpoints;
pub mod event_rules;
mod label_keys;
mod namespace;
mod node;
mod persistent_volume;
mod pod;
mod pod_spec;
mod pod_status;
mod pod_update;
mod probe;
mod requirements;
mod scheduling;
mod security;
mod service;
mod service_rules;
mod volume;
mod volume_source;

pub use claim::{Claim, default_claim, validate_claim_template};
pub use config::{ConfigMap, Secret};
pub use endpoints::{EndpointSlice, Endpoints};
pub use namespace::Namespace;
pub use node::{Event, Node};
pub use persistent_volume::{NOT_SOURCES, PersistentVolume};
pub use pod::{Pod, PodTemplate, validate_template};
pub use pod_spec::default_template;
pub use requirements::amount;
pub use scheduling::toleration;
pub use service::Service;
pub use volume_source::csi_driver;
