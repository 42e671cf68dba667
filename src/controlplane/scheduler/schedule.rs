//! Finds the best node for a Pod.

use super::cycle::Cycle;
use super::filters;
use super::scores;
use super::snapshot::{NodeInfo, PodInfo, Snapshot};
use super::why::{Refusal, Why};

/// Finds the best node for a Pod. Of several equally good ones `pick(n)` chooses (an index below `n`).
pub(super) fn schedule(
    pod: &PodInfo,
    snapshot: &Snapshot,
    pick: impl FnOnce(usize) -> usize,
) -> Result<String, Why> {
    let cycle = Cycle::new(pod, snapshot);
    let mut why = Why::default();
    let nowhere = pod.volumes.problem.clone().or_else(|| asks_for_devices(pod));
    let mut possible: Vec<&NodeInfo> = Vec::new();
    for node in snapshot.nodes() {
        let verdict = match &nowhere {
            Some(problem) => Err(Refusal::of_all(problem.clone())),
            None => check(&cycle, node),
        };
        match verdict {
            Ok(()) => possible.push(node),
            Err(refusal) => {
                why.refusals.insert(node.name().to_owned(), refusal);
            }
        }
    }
    let best = match possible.as_slice() {
        [] => return Err(why),
        [only] => return Ok(only.name().to_owned()),
        several => {
            let totals = scores::total(&cycle, several);
            let top = totals.iter().copied().fold(f64::MIN, f64::max);
            let equal = several.iter().zip(&totals).filter(|(_, total)| **total >= top);
            equal.map(|(node, _)| node.name()).collect::<Vec<_>>()
        }
    };
    let at = pick(best.len()).min(best.len().saturating_sub(1));
    Ok(best.get(at).copied().unwrap_or_default().to_owned())
}

/// A node must do as it is, and with the Pods on it for which room is held.
fn check(cycle: &Cycle<'_>, node: &NodeInfo) -> Result<(), Refusal> {
    if let Some(full) = cycle.snapshot.with_nominated(node, cycle.pod) {
        filters::check(cycle, &full)?;
    }
    filters::check(cycle, node)
}

/// Devices are given by resource claims, which no part of this cluster serves.
fn asks_for_devices(pod: &PodInfo) -> Option<String> {
    let claims = pod.pod.spec.as_ref().and_then(|spec| spec.resource_claims.as_ref());
    let asks = claims.is_some_and(|claims| !claims.is_empty());
    asks.then(|| {
        "pod has resource claims, and dynamic resource allocation is not supported by this cluster".to_owned()
    })
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
