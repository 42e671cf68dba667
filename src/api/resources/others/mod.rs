//! Kinds of the smaller groups whose defaults or fields matter: networking, autoscaling, RBAC, storage and others.

mod autoscaling;
mod event;
mod small;

pub use autoscaling::{AutoscalerV1, AutoscalerV2};
pub use event::Event;
pub use small::{
    Binding, DisruptionBudget, Ingress, NetworkPolicy, PriorityClass, Role, SigningRequest, StorageClass,
    Webhooks,
};
