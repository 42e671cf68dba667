//! A cluster on Docker: what should exist and what does exist, compared; the difference is what is done.
//!
//! ```text
//! ClusterSpec + what is drawn = ClusterRecord (on the server's volume) --desired()--> Desired --+
//!                                                       Docker --observe()--> Observed ----------+--diff()--> Steps
//!
//! Steps --execute()--> network, containers --wait--> every node Ready
//!           |                                  |
//!           +-- anything failed, or Ctrl-C: what this command made is removed again, and nothing else
//! ```
//!
//! No state is kept outside Docker: labels say what belongs to a cluster ([`labels`]), the record on the server's volume
//! says what it should be. `docker/` alone names the client library.

mod apply;
pub mod backups;
mod binary;
mod builder;
mod change;
mod create;
mod delete;
pub mod diff;
pub mod docker;
mod error;
mod execute;
mod faults;
pub mod file;
mod files;
mod identity;
pub mod images;
mod inside;
mod inspect;
pub mod labels;
mod lifecycle;
mod list;
mod lock;
mod login;
mod manifests;
pub mod node_image;
pub mod numbers;
mod observe;
pub mod plan;
mod ports;
mod progress;
mod proxy_env;
mod record;
mod registries;
mod settings;
mod size;
pub mod snapshots;
mod spec;
mod subnet;
mod trust;
mod wait;

pub use apply::follow;
pub use builder::{Builder, Cluster, unique_name};
pub use change::{ChangeOptions, Changed, change};
pub use create::{CreateOptions, Created, create};
pub use delete::{delete, expired};
pub use docker::{Docker, DockerError, EngineInfo};
pub use error::ClusterError;
pub use faults::{Broken, begin_fault, broken, heal};
pub use files::{Carried, CarriedFile};
pub use identity::{Access, access_of};
pub use inspect::{Inspected, inspect};
pub use lifecycle::{find_node, node_ip, node_number, start, start_node, stop, stop_node, wait_healed};
pub use list::{ClusterSummary, NodeSummary, find, list};
pub use login::host_credentials;
pub use node_image::ImageError;
pub use observe::subnet_free;
pub use ports::{PortMapping, Protocol, Target, node_numbers};
pub use progress::{Phases, Progress, Silent};
pub use record::{ClusterRecord, Drawn};
pub use registries::{
    RegistryInfo, create_registry, delete_registry, list_registries, start_registry, stop_registry,
};
pub use settings::{Addresses, HostAlias, Registries};
pub use size::{Cpus, Memory};
pub use spec::{ClusterName, ClusterSpec, HostMount, NodeSpec, SpecError, node_label, taint};
pub use wait::client;
