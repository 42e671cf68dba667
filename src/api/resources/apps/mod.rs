//! Workloads of the group `apps`, and the core group's ReplicationController, which is one of them.

mod workload;

pub use workload::{DaemonSet, Deployment, ReplicaSet, ReplicationController, StatefulSet};
