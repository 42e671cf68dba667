//! The kernel's packet filter through `nft`: whole tables of ours, changed in place by one transaction each, and the
//! kernel's own word of who else changes tables.

mod difference;
mod guard;
mod monitor;
mod table;

use std::sync::Arc;

use super::exec::{Exec, ExecError, Invocation};

pub use difference::Known;
pub use guard::Guard;
pub use monitor::{Deleted, Monitor, Seen, Transaction};
pub use table::{Chain, Set, Table};

/// The program's name, as the kernel tells it with a transaction.
pub const TOOL: &str = "nft";

/// The packet filter of the network namespace in which the tool runs.
#[derive(Clone)]
pub struct Nftables {
    exec: Arc<dyn Exec>,
}

impl Nftables {
    /// Over the tool that `exec` runs.
    pub fn new(exec: Arc<dyn Exec>) -> Self {
        Self { exec }
    }

    /// Whether tool and kernel can do `probe`, which changes nothing. Fails with what they say.
    pub async fn check(&self, probe: &str) -> Result<(), ExecError> {
        let invocation = Invocation::new(TOOL, ["--check", "-f", "-"]).with_stdin(probe);
        self.exec.run(invocation).await.map(drop)
    }

    /// Applies a batch: all of it or nothing.
    pub async fn apply(&self, batch: String) -> Result<(), ExecError> {
        self.exec.run(Invocation::new(TOOL, ["-f", "-"]).with_stdin(batch)).await.map(drop)
    }
}
