//! NetworkPolicies on this node: who may talk to its Pods, and to whom they may.
//!
//! ```text
//! policies, Pods, namespaces --plan()--> Plan --table()--> one nftables table, changed in place
//!            kubelet --admit(Pod, address)--> waits until that holds
//! ```
//!
//! A node judges what comes to its own Pods and what leaves them, after Services have been translated. What the node
//! itself sends to its Pods (probes) is never judged, as Kubernetes has it; flows that have begun go on.

mod enforce;
mod observed;
mod plan;
mod text;

pub use enforce::{Options, Policies, run};
pub use observed::{Member, Observed};
pub use plan::{Isolation, Match, Plan, Ports, plan};
pub use text::table;
