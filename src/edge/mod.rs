//! What stands between the cluster and the host: load balancer addresses and the Ingress proxy.

pub mod ingress;
pub mod loadbalancer;
