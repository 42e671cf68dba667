//! Rules as one nftables table with verdict maps, as kube-proxy's nftables mode has them: what a packet costs does not
//! grow with the number of Services, and a sync is one transaction of what changed.

mod text;
mod written;

use futures::future::BoxFuture;

use super::backend::{Applied, Backend};
use super::plan::Plan;
use crate::network::Changed;
use sys::exec::ExecError;
use sys::nftables::{Nftables as Tool, TOOL, Transaction};
use written::Written;

/// Everything that the table needs of tool and kernel, in a table that is only checked.
const PROBE: &str = "add table ip minik-probe
add map ip minik-probe m { type ipv4_addr . inet_proto . inet_service : verdict; }
add set ip minik-probe s { type ipv4_addr; flags dynamic,timeout; timeout 5s; }
add chain ip minik-probe c
add chain ip minik-probe n { type nat hook prerouting priority -100; policy accept; }
add rule ip minik-probe c numgen random mod 2 vmap { 0 : accept, 1 : drop }
add rule ip minik-probe c update @s { ip saddr }
add rule ip minik-probe c fib daddr type local ip daddr . meta l4proto . th dport vmap @m
add rule ip minik-probe n meta l4proto tcp dnat to 192.0.2.1:80
add map ip minik-probe e { typeof ip daddr . meta l4proto . th dport . numgen random mod 65536 : ip daddr . th dport; }
add rule ip minik-probe n meta l4proto { tcp, udp, sctp } dnat ip to ip daddr . meta l4proto . th dport . numgen random mod 2 map @e
";

/// The backend over `nft`.
pub struct Nftables {
    tool: Tool,
    /// Taken while a batch is on its way: after an error nothing is known.
    written: Written,
}

impl Nftables {
    /// A backend that knows nothing of the kernel yet: its first sync replaces the table.
    pub fn new(tool: Tool) -> Self {
        Self { tool, written: Written::default() }
    }

    /// Fails where tool or kernel lack something that the backend needs.
    pub async fn check(tool: &Tool) -> Result<(), ExecError> {
        tool.check(PROBE).await
    }
}

impl Backend for Nftables {
    fn apply<'a>(
        &'a mut self,
        plan: &'a Plan,
        changed: &'a Changed,
    ) -> BoxFuture<'a, Result<Applied, ExecError>> {
        Box::pin(async move {
            let mut written = std::mem::take(&mut self.written);
            let batch = written.batch(plan, changed);
            let transactions = usize::from(!batch.is_empty());
            if transactions > 0 {
                self.tool.apply(batch).await?;
            }
            self.written = written;
            Ok(Applied { by: TOOL, transactions })
        })
    }

    fn forget(&mut self) {
        self.written = Written::default();
    }

    fn concerns(&self, transaction: &Transaction) -> bool {
        transaction.deleted.iter().any(|deleted| deleted.table == text::TABLE)
    }
}
