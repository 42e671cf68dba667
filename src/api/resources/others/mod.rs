//! Kinds of the smaller groups whose defaults or fields matter: networking, autoscaling, RBAC, storage and others.

mod autoscaler_rules;
mod autoscaling;
mod disruption_budget;
mod event;
mod small;

pub use autoscaling::{AutoscalerV1, AutoscalerV2};
pub use disruption_budget::DisruptionBudget;
pub use event::Event;
pub use small::{
    Binding, Ingress, NetworkPolicy, PriorityClass, Role, SigningRequest, StorageClass, Webhooks,
};
