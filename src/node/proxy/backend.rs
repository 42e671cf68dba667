use futures::future::BoxFuture;

use super::iptables::Iptables;
use super::rules::Rules;
use crate::sys::exec::ExecError;
use crate::sys::iptables::PacketFilter;

/// Makes rules true in the kernel. The shared test-suite runs over every backend.
pub trait Backend: Send + Sync {
    /// Applies all of `rules`, in as little work as the difference from the last success allows. After an error the
    /// next call starts from what the kernel has.
    fn apply<'a>(&'a mut self, rules: &'a Rules) -> BoxFuture<'a, Result<(), ExecError>>;
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
