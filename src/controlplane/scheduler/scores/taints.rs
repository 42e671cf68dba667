//! Score: few untolerated `PreferNoSchedule` taints.

use super::{by_maximum, number};
use crate::cycle::Cycle;
use crate::snapshot::NodeInfo;
use client::typed::tolerates_any;

/// The fewer untolerated `PreferNoSchedule` taints the better.
pub(super) fn score(cycle: &Cycle<'_>, nodes: &[&NodeInfo]) -> Vec<f64> {
    let tolerations = cycle.pod.pod.spec.as_ref().and_then(|spec| spec.tolerations.as_ref());
    let one = |info: &&NodeInfo| {
        let spec = info.node.as_ref().and_then(|node| node.spec.as_ref());
        let taints = spec.into_iter().flat_map(|spec| spec.taints.iter().flatten());
        let bad = taints.filter(|t| t.effect == "PreferNoSchedule" && !tolerates_any(tolerations, t));
        number(i64::try_from(bad.count()).unwrap_or(i64::MAX))
    };
    by_maximum(&nodes.iter().map(one).collect::<Vec<_>>(), true)
}
