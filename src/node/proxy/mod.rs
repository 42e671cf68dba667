//! Service semantics on this node: a pure plan, and backends that apply it.
//!
//! ```text
//! View --plan()--> Plan --Backend::apply()--> kernel
//!   ^ informers               | health checks, stale UDP flows
//! ```
//!
//! Chains and their names follow kube-proxy's iptables mode, so what people know from there holds here.

mod backend;
mod conntrack;
mod endpoints;
mod health;
mod iptables;
mod names;
mod plan;
mod sync;

pub use backend::{Backend, BackendKind, open};
pub use endpoints::Target;
pub use plan::{At, Frontend, FrontendKind, HealthCheck, Plan, Policy, Refusal, ServicePort, Settings, plan};
pub use sync::{Proxy, run};
