//! Storage drivers of this node: how they register, and what the API is told of them.
//!
//! ```text
//! socket in plugins_registry --GetInfo, NodeGetInfo--> registered --> CSINode, labels and annotation of the Node
//!                  ^    \--refused or silent: told so, tried again later      |
//!                  \---------------------- socket gone -----------------------/
//! ```

mod drivers;
mod publish;
mod watch;

pub use drivers::{Drivers, Registered, Staged, mounted_in, staging};
pub use watch::run;
