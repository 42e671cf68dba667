//! A cluster on Docker: specification -> plan (pure) -> steps.
//!
//! ```text
//! ClusterSpec --plan()--> ClusterPlan --steps--> network, containers, identity --wait--> every node Ready
//!                                         |                                     |
//!                                         +-- anything failed, or Ctrl-C: everything made is removed again
//! ```
//!
//! No state is kept outside Docker: labels say what belongs to a cluster ([`labels`]). `docker/` alone names the client
//! library.

mod binary;
mod create;
mod delete;
pub mod docker;
mod error;
mod identity;
pub mod labels;
mod list;
mod load;
mod node_image;
pub mod plan;
mod progress;
mod proxy_env;
mod spec;
mod subnet;
mod wait;

pub use create::{CreateOptions, Created, create};
pub use delete::delete;
pub use docker::{Docker, DockerError};
pub use error::ClusterError;
pub use identity::{Access, access_of};
pub use list::{ClusterSummary, NodeSummary, find, list};
pub use load::{ImageSource, Loaded, load};
pub use node_image::ImageError;
pub use progress::{Phases, Progress};
pub use spec::{ClusterName, ClusterSpec, SpecError};
pub use wait::client;
