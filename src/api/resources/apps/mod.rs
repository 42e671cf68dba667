//! Workloads of the group `apps`, and the core group's ReplicationController, which is one of them.

mod daemon_set;
mod deployment;
mod replica_set;
mod revision;
mod stateful_set;
mod workload;

pub use daemon_set::DaemonSet;
pub use deployment::Deployment;
pub use replica_set::{ReplicaSet, ReplicationController};
pub use revision::ControllerRevision;
pub use stateful_set::StatefulSet;
