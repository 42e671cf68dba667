//! Configuration that travels: what a node is told when its container is made.

mod node;

pub use node::{NodeConfig, Role};
