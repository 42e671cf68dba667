//! Static Pods: those that a folder on the node describes. The kubelet runs them whatever the API server says, and shows each
//! there as a mirror Pod.
//!
//! ```text
//! file in the folder --parsed, filled in--> static Pod --worker--> containers
//!                                               |  \--its status--v
//!                                               \---------> mirror Pod (deleted by somebody: made anew)
//! ```

mod mirror;
mod source;

pub use mirror::{Mirrors, Step, is_mirror, is_static, steps, with_mirror};
pub use source::{Folder, FoundPods};
