//! PersistentVolumes and the claims on them: finds or makes a volume for each claim, binds the two to one another, and
//! takes a volume back when its claim is gone.
//!
//! ```text
//! claim: Pending --a volume fits--> Bound
//!            \--none, our class--> a directory on the node of the first Pod that uses the claim --> Bound
//! volume: Available --> Bound --claim gone--> Released --Delete--> (data and volume gone)
//!                                                      \--Retain--> (kept)
//! ```
//!
//! Volumes are directories on nodes (provisioner `minik.dev/local-path`). With `WaitForFirstConsumer` the scheduler
//! places the Pod first, and the volume is made where the Pod is; from then on the volume says on which node it is.

mod attach;
mod claims;
mod ephemeral;
mod plan;
mod volumes;

use super::context::Context;

/// The provisioner that this server runs itself.
const PROVISIONER: &str = "minik.dev/local-path";

/// Starts the controllers of claims and of volumes.
pub(super) fn start(context: &Context) {
    claims::start(context);
    volumes::start(context);
}

/// Starts the controller that makes the claims of Pods' ephemeral volumes.
pub(super) fn start_ephemeral(context: &Context) {
    ephemeral::start(context);
}

/// Starts the controller that asks for volumes of storage drivers to be attached to nodes.
pub(super) fn start_attach(context: &Context) {
    attach::start(context);
}
