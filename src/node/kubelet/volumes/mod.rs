//! A Pod's volumes on this node: folders that containers mount, and the files minik writes into them.

mod atomic;
mod claims;
mod csi;
mod host_path;
mod image;
mod nfs;
mod owner;
mod prepare;
mod projected;
mod sub_path;
mod tokens;

pub use prepare::{Volumes, env_files, mounts, prepare, refresh, release, remove};
pub use projected::{Contents, Images};
pub use tokens::Tokens;

use std::path::Path;

use super::context::Context;
use prepare::VolumeError;

/// Takes back what drivers and the runtime mounted for the Pod whose folder is `dir`.
///
/// # Errors
///
/// When one of them is not there or refuses: the Pod's folder must stay until all have let go.
pub async fn take_back(context: &Context, dir: &Path) -> Result<(), VolumeError> {
    csi::take_back(&context.drivers, dir).await?;
    image::take_back(&context.runtime, dir).await
}
