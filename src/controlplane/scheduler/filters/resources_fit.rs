//! Filter: what the Pod asks for must be free.

use crate::cycle::Cycle;
use crate::snapshot::NodeInfo;
use crate::why::Refusal;

const PODS: &str = "pods";

/// What the Pod asks for must be free on the node, and the node must take one more Pod.
pub(super) fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
    let has = |name: &str| node.allocatable.get(name).copied().unwrap_or(0);
    let mut refusal = Refusal { reasons: Vec::new(), preemptible: true, everywhere: false };
    if i64::try_from(node.pods.len()).unwrap_or(i64::MAX) >= has(PODS) {
        refusal.reasons.push("Too many pods".to_owned());
        refusal.preemptible &= has(PODS) > 0;
    }
    for (name, wanted) in &cycle.pod.requests {
        let used = node.requested.get(name).copied().unwrap_or(0);
        if *wanted > 0 && *wanted > has(name) - used {
            refusal.reasons.push(format!("Insufficient {name}"));
            refusal.preemptible &= *wanted <= has(name);
        }
    }
    if refusal.reasons.is_empty() { Ok(()) } else { Err(refusal) }
}
