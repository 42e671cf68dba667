//! Configuration that travels: what a node is told when its container is made.

pub mod kubeconfig;
mod node;

pub use node::{NodeConfig, Role};
