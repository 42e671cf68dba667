//! Kinds of the smaller groups whose defaults or fields matter: networking, autoscaling, RBAC, storage and others.

mod access;
mod autoscaler_rules;
mod autoscaling;
mod cluster;
mod disruption_budget;
mod event;
mod flow;
mod hooks;
mod networking;
mod quota;
mod signing;
mod storage;

pub use access::{Binding, Role};
pub use autoscaling::{AutoscalerV1, AutoscalerV2};
pub use cluster::{ApiService, Lease, PriorityClass, RuntimeClass};
pub use disruption_budget::DisruptionBudget;
pub use event::Event;
pub use flow::{FlowSchema, PriorityLevel};
pub use hooks::{AdmissionPolicy, PolicyBinding, Webhooks};
pub use networking::{Ingress, IngressClass, IpAddress, NetworkPolicy, ServiceCidr};
pub use quota::{LimitRange, ResourceQuota};
pub use signing::SigningRequest;
pub use storage::{
    CsiDriver, CsiNode, CsiStorageCapacity, StorageClass, VolumeAttachment, VolumeAttributesClass,
};
