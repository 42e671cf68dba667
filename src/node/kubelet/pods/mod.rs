//! One worker per Pod: it compares what the Pod asks for with what the runtime has, and carries out the difference.
//!
//! ```text
//!            watch: added                 all containers done, policy says stay
//!   (none) ---------------> running --------------------------------------------> terminal
//!                              |  deletionTimestamp, deadline                        |
//!                              v                                                     | deletionTimestamp
//!                         terminating <---------------------------------------------/
//!   SIGTERM (after preStop), grace, SIGKILL; sandbox stopped; last status written
//!                              |
//!                              v  DELETE with grace 0 and the Pod's uid
//!                            gone --containers, volumes, logs, cgroup removed--> (none)
//!
//!   running, per container:
//!     pull --> create, start --> postStart --> probes --exit--> back-off --> pull
//!     (the next container starts after postStart; hooks are actions of their own and end with their container)
//!                                                 \--liveness failed, definition changed--> stop
//! ```
//!
//! `plan` and `status` are pure: they see the Pod, the runtime's view, the worker's memory and the time. What is to be
//! done is an `action` that carries all it needs; `ops` does each once, and what failed is tried again by the plan.

mod action;
mod admission;
mod end;
mod manager;
mod observe;
mod ops;
mod outcome;
mod parents;
mod plan;
mod probing;
mod resize;
mod state;
mod static_pods;
mod status;
mod view;
mod worker;

pub use manager::Manager;
pub use state::Failed;
