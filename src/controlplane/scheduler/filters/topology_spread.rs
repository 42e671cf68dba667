//! Filter: spread constraints that must hold.

use crate::cycle::Cycle;
use crate::snapshot::NodeInfo;
use crate::why::Refusal;

/// Spread constraints that must hold.
pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
    for spread in cycle.spreads().iter().filter(|spread| spread.hard) {
        let Some(value) = node.label(&spread.key) else {
            let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
            return Err(Refusal::of_node(reason));
        };
        let here = spread.counts.get(value).copied().unwrap_or(0);
        if here + spread.itself - spread.least > spread.max_skew {
            return Err(Refusal::of_pods("node(s) didn't match pod topology spread constraints"));
        }
    }
    Ok(())
}
