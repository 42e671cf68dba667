//! What stands between the cluster and the host: load balancer addresses, and the proxy that serves Ingresses and Gateways
//! at them; and registries of images.

pub mod gateway;
pub mod ingress;
pub mod loadbalancer;
pub mod proxy;
pub mod registry;
pub mod secrets;
mod served;

pub use served::{Options, run};
