//! The kernel's packet filter through iptables' own tools.

use std::sync::Arc;

use super::exec::{Exec, ExecError, Invocation};

/// Which of iptables' two kernel interfaces is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variant {
    /// What the distribution made the default (nf_tables on Debian), shared with the CNI plugins.
    Default,
    /// For kernels without nf_tables.
    Legacy,
}

/// The packet filter of the network namespace in which the tools run.
#[derive(Clone)]
pub struct PacketFilter {
    exec: Arc<dyn Exec>,
    variant: Variant,
}

impl PacketFilter {
    /// Over the tools that `exec` runs, with iptables' default kernel interface.
    pub fn new(exec: Arc<dyn Exec>) -> Self {
        Self { exec, variant: Variant::Default }
    }

    /// The same for kernels without nf_tables.
    pub fn legacy(exec: Arc<dyn Exec>) -> Self {
        Self { exec, variant: Variant::Legacy }
    }

    /// Whether the kernel interface for kernels without nf_tables is used.
    pub fn is_legacy(&self) -> bool {
        self.variant == Variant::Legacy
    }

    /// Finds out which kernel interface answers.
    pub async fn detect(exec: Arc<dyn Exec>) -> Result<Self, ExecError> {
        let default = Self::new(exec);
        let Err(error) = default.save("nat").await else { return Ok(default) };
        let legacy = Self { variant: Variant::Legacy, ..default };
        match legacy.save("nat").await {
            Ok(_) => {
                tracing::warn!(%error, "iptables' default kernel interface does not work; using iptables-legacy");
                Ok(legacy)
            }
            Err(_) => Err(error),
        }
    }

    fn tool(&self, default: &'static str, legacy: &'static str) -> &'static str {
        match self.variant {
            Variant::Default => default,
            Variant::Legacy => legacy,
        }
    }

    /// Applies a batch in iptables-restore's format; chains that it does not name stay. Each table is all or nothing.
    pub async fn restore(&self, batch: String) -> Result<(), ExecError> {
        let tool = self.tool("iptables-restore", "iptables-legacy-restore");
        let invocation = Invocation::new(tool, ["-w", "5", "--noflush", "--counters"]).with_stdin(batch);
        self.exec.run(invocation).await.map(drop)
    }

    /// The table's chains and rules, in iptables-save's format.
    pub async fn save(&self, table: &str) -> Result<String, ExecError> {
        let tool = self.tool("iptables-save", "iptables-legacy-save");
        let output = self.exec.run(Invocation::new(tool, ["-t", table])).await?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
