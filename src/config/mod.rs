//! Configuration that travels: what a node is told when its container is made.

pub mod image_store;
pub mod kubeconfig;
mod lb;
mod node;

pub use lb::LbConfig;
pub use node::{NodeConfig, NodeSettings, Role};
