//! The backends that a plan can be applied with.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::iptables::Iptables;
use super::nftables::Nftables;
use super::plan::Plan;
use crate::network::Changed;
use sys::exec::{Exec, ExecError};
use sys::iptables::PacketFilter;
use sys::nftables::{self, Transaction};

/// What a sync has done, as the kernel tells others of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The program that did it, cut to the 15 characters that the kernel keeps.
    pub by: &'static str,
    pub transactions: usize,
}

/// Makes a plan true in the kernel. The shared test-suite runs over every backend.
pub trait Backend: Send + Sync {
    /// Makes `plan` true, of which no more than `changed` differs from what the last success was given. After an error,
    /// and after [`Backend::forget`], the next call starts from what the kernel has and makes all of it true.
    fn apply<'a>(
        &'a mut self,
        plan: &'a Plan,
        changed: &'a Changed,
    ) -> BoxFuture<'a, Result<Applied, ExecError>>;

    /// Forgets what the kernel was last seen to have: somebody else has changed it.
    fn forget(&mut self);

    /// Whether a transaction of somebody else's took away what this backend needs.
    fn concerns(&self, transaction: &Transaction) -> bool;
}

/// The backends there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendKind {
    /// One table with verdict maps.
    Nftables,
    /// iptables with its default kernel interface.
    Iptables,
    /// iptables for kernels without nf_tables.
    IptablesLegacy,
}

impl BackendKind {
    /// The best that tools and kernel can do here. Fails where there is none.
    pub async fn detect(exec: Arc<dyn Exec>) -> Result<Self, ExecError> {
        match Nftables::check(&nftables::Nftables::new(exec.clone())).await {
            Ok(()) => return Ok(Self::Nftables),
            Err(error) => tracing::info!(%error, "nftables cannot be used for Services; trying iptables"),
        }
        let filter = PacketFilter::detect(exec).await?;
        Ok(if filter.is_legacy() { Self::IptablesLegacy } else { Self::Iptables })
    }
}

/// The backend of a kind, over the tools that `exec` runs.
pub fn open(kind: BackendKind, exec: Arc<dyn Exec>) -> Box<dyn Backend> {
    match kind {
        BackendKind::Nftables => Box::new(Nftables::new(nftables::Nftables::new(exec))),
        BackendKind::Iptables => Box::new(Iptables::new(PacketFilter::new(exec))),
        BackendKind::IptablesLegacy => Box::new(Iptables::new(PacketFilter::legacy(exec))),
    }
}
