//! Service semantics on this node: a pure plan, and backends that apply it.
//!
//! ```text
//! View --what changed--> Planner --Plan--> Backend::apply() --> kernel
//!   ^ informers               | health checks, stale UDP flows
//! ```
//!
//! Tables, chains and their names follow kube-proxy's nftables and iptables modes, so what people know from there holds
//! here. What somebody else deletes is put back: the kernel tells of it.

mod backend;
mod conntrack;
mod endpoints;
mod health;
mod inspect;
mod iptables;
mod names;
mod nftables;
mod plan;
mod planner;
mod status;
mod sync;
mod trace;

pub use backend::{Backend, BackendKind, open};
pub use endpoints::Target;
pub use inspect::{Finding, inspect};
pub use plan::{At, Frontend, FrontendKind, HealthCheck, Plan, Policy, Refusal, ServicePort, Settings, plan};
pub use status::serve_status;
pub use sync::{Proxy, run};
pub use trace::{Fate, Packet, trace};
