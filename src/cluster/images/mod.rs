//! Images on the nodes of clusters: they enter the host once, into a store that all nodes share.
//!
//! ```text
//! docker save, an archive, standard input
//!    --intake (names, digests)--> one archive --> volume minik-images --> each node links what it lacks
//! ```
//!
//! A second cluster, a node that is added, and an image that is loaded again copy nothing.

mod archive;
pub(super) mod digest;
mod keep;
mod load;
mod manage;
mod on_node;

pub use archive::ArchiveError;
pub(super) use keep::keep;
pub use load::{ImageSource, Loaded, load, source};
pub use manage::{NodeImage, Pruned, list_images, prune, pull, remove};
