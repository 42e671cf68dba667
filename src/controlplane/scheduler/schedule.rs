use super::cycle::Cycle;
use super::filters;
use super::scores;
use super::snapshot::{NodeInfo, PodInfo, Snapshot};
use super::why::Why;

/// Finds the best node for a Pod. Of several equally good ones `pick(n)` chooses (an index below `n`).
pub(super) fn schedule(
    pod: &PodInfo,
    snapshot: &Snapshot,
    pick: impl FnOnce(usize) -> usize,
) -> Result<String, Why> {
    let cycle = Cycle::new(pod, snapshot);
    let mut why = Why::default();
    let mut possible: Vec<&NodeInfo> = Vec::new();
    for node in snapshot.nodes() {
        match filters::check(&cycle, node) {
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

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
