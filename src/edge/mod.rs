//! What stands between the cluster and the host: load balancer addresses and mapped ports.

pub mod loadbalancer;
