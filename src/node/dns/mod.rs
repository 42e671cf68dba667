//! Cluster DNS, answered on every node for its own Pods.
