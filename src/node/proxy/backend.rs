//! The backends that a plan can be applied with.

use futures::future::BoxFuture;

use super::iptables::Iptables;
use super::plan::Plan;
use crate::sys::exec::ExecError;
use crate::sys::iptables::PacketFilter;

/// Makes a plan true in the kernel. The shared test-suite runs over every backend.
pub trait Backend: Send + Sync {
    /// Applies all of `plan`, in as little work as the difference from the last success allows. After an error the
    /// next call starts from what the kernel has.
    fn apply<'a>(&'a mut self, plan: &'a Plan) -> BoxFuture<'a, Result<(), ExecError>>;

    /// Forgets what the kernel was last seen to have: somebody else has changed it.
    fn forget(&mut self);
}

/// The backends there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendKind {
    #[default]
    Iptables,
}

/// The backend of a kind, over a packet filter.
pub fn open(kind: BackendKind, filter: PacketFilter) -> Box<dyn Backend> {
    match kind {
        BackendKind::Iptables => Box::new(Iptables::new(filter)),
    }
}
