//! A Pod's volumes on this node: folders that containers mount, and the files minik writes into them.

mod atomic;
mod claims;
mod csi;
mod host_path;
mod nfs;
mod owner;
mod prepare;
mod projected;
mod sub_path;
mod tokens;

pub use csi::take_back;
pub use prepare::{Volumes, mounts, prepare, refresh, remove};
pub use projected::Contents;
pub use tokens::Tokens;
