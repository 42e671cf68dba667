//! Score: spread constraints that are wished for.

use super::{MAX, number};
use crate::cycle::Cycle;
use crate::snapshot::NodeInfo;

/// Spread constraints that are wished for: the fewer of the same kind are near, the better.
pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<f64> {
    let soft: Vec<_> = cycle.spreads().iter().filter(|spread| !spread.hard).collect();
    if soft.is_empty() {
        return vec![0.0; nodes.len()];
    }
    let one = |node: &&NodeInfo| -> f64 {
        let counted = soft.iter().filter_map(|spread| {
            let value = node.label(&spread.key)?;
            let here = number(spread.counts.get(value).copied().unwrap_or(0));
            // A key with many values tells nodes apart more finely: its counts weigh more.
            let weight = (number(i64::try_from(spread.counts.len()).unwrap_or(0)) + 2.0).ln();
            Some(here * weight + number(spread.max_skew - 1))
        });
        counted.sum::<f64>().round()
    };
    let raw: Vec<f64> = nodes.iter().map(one).collect();
    let (min, max) = raw.iter().fold((f64::MAX, 0.0_f64), |(min, max), v| (min.min(*v), max.max(*v)));
    raw.iter().map(|value| if max == 0.0 { MAX } else { MAX * (max + min - value) / max }).collect()
}
