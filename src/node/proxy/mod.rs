//! Service semantics on this node: a pure plan of rules, and backends that apply it.
//!
//! ```text
//! View --plan()--> Rules --Backend::apply()--> kernel
//!   ^ informers                 | health checks, stale UDP flows
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
mod rules;
mod sync;

pub use backend::{Backend, BackendKind, open};
pub use iptables::Iptables;
pub use plan::{Settings, plan};
pub use rules::{Chains, Flow, HealthCheck, Rules, Table};
pub use sync::{Proxy, run};
