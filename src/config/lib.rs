//! Configuration that travels: what a node is told when its container is made.

mod arguments;
pub mod backup;
mod build_info;
mod datastore;
pub mod eviction;
mod fault;
pub mod image_store;
mod join_token;
pub mod kubeconfig;
mod lb;
mod node;
mod registry;
mod servers;

pub use arguments::Arguments;
pub use build_info::BuildInfo;
pub use datastore::Datastore;
pub use fault::{Fault, FaultKind};
pub use join_token::JoinToken;
pub use lb::LbConfig;
pub use node::{Brought, Feature, NodeConfig, NodeSettings, Role};
pub use registry::RegistryConfig;
pub use servers::{Server, Servers};
