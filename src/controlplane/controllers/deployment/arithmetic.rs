//! How many Pods a rollout may have too many or too few, and how a scale is spread over ReplicaSets.

use std::cmp::Reverse;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::plan::{available, replicas};
use super::revision::annotation_number;
use client::typed::scaled;

pub(super) const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX: &str = "deployment.kubernetes.io/max-replicas";

/// What a Deployment asks for, defaults applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub replicas: i32,
    /// Both are 0 for the strategy Recreate.
    pub surge: i32,
    pub unavailable: i32,
    pub rolling: bool,
}

impl Bounds {
    pub(super) fn of(spec: &DeploymentSpec) -> Self {
        let replicas = spec.replicas.unwrap_or(1);
        let strategy = spec.strategy.as_ref();
        if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
            return Self { replicas, surge: 0, unavailable: 0, rolling: false };
        }
        let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
        let quarter = IntOrString::String("25%".to_owned());
        let or_quarter = |value: Option<&IntOrString>| value.cloned().unwrap_or_else(|| quarter.clone());
        let surge = or_quarter(rolling.and_then(|rolling| rolling.max_surge.as_ref()));
        let unavailable = or_quarter(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()));
        let surge = scaled(&surge, replicas, true);
        let mut unavailable = scaled(&unavailable, replicas, false);
        if surge == 0 && unavailable == 0 {
            // Validation refuses 0 and 0; percentages may still come to it. Then go on one by one.
            unavailable = 1;
        }
        Self { replicas, surge, unavailable: unavailable.min(replicas), rolling: true }
    }

    pub(super) fn min_available(self) -> i32 {
        self.replicas - self.unavailable
    }

    /// The most Pods all ReplicaSets together may have.
    pub(super) fn most(self) -> i32 {
        self.replicas + self.surge
    }

    /// How many replicas the new ReplicaSet may have now.
    pub(super) fn new_size(self, all: &[&ReplicaSet], new: i32) -> i32 {
        if !self.rolling {
            return self.replicas;
        }
        let current: i32 = all.iter().map(|set| replicas(set)).sum();
        let room = self.most() - current;
        if room <= 0 { new } else { new + room.min(self.replicas - new).max(0) }
    }
}

/// New sizes for the old ReplicaSets of a rolling update: first what does not work is given up, then
/// as much of the rest as availability allows.
pub(super) fn shrink_old(bounds: Bounds, old: &[&ReplicaSet], new: Option<&ReplicaSet>) -> Vec<i32> {
    let mut sizes: Vec<i32> = old.iter().map(|set| replicas(set)).collect();
    let total: i32 = sizes.iter().sum::<i32>() + new.map_or(0, replicas);
    let new_unavailable = new.map_or(0, |new| replicas(new) - available(new));
    let budget = total - bounds.min_available() - new_unavailable;
    if budget <= 0 {
        return sizes;
    }
    let mut order: Vec<usize> = (0..old.len()).collect();
    order.sort_by_key(|&i| (old[i].metadata.creation_timestamp.clone(), old[i].metadata.name.clone()));
    let mut cleaned = 0;
    for &i in &order {
        let unhealthy = (sizes[i] - available(old[i])).max(0);
        let down = unhealthy.min(budget - cleaned);
        sizes[i] -= down;
        cleaned += down;
    }
    let alive: i32 = old.iter().copied().chain(new).map(available).sum();
    let mut spare = alive - bounds.min_available();
    for &i in &order {
        let down = sizes[i].min(spare.max(0));
        sizes[i] -= down;
        spare -= down;
    }
    sizes
}

fn fraction(set: &ReplicaSet, deployment: &Deployment, bounds: Bounds) -> i32 {
    let size = replicas(set);
    if bounds.replicas == 0 {
        return -size;
    }
    let known = deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or_default();
    let before = annotation_number(set, MAX).unwrap_or(known);
    if before <= 0 {
        return 0;
    }
    let share = f64::from(size) * f64::from(bounds.most()) / f64::from(before);
    // Sizes are small whole numbers: the rounded share fits.
    #[allow(clippy::cast_possible_truncation)]
    let share = share.round() as i32;
    share - size
}

/// Spreads a scale in the middle of a rollout over the active ReplicaSets in proportion to their size;
/// what rounding leaves goes to the largest. Returns (index, new size).
pub(super) fn proportional(
    deployment: &Deployment,
    bounds: Bounds,
    active: &[&ReplicaSet],
) -> Vec<(usize, i32)> {
    let total: i32 = active.iter().map(|set| replicas(set)).sum();
    let allowed = if bounds.replicas > 0 { bounds.most() } else { 0 };
    let to_add = allowed - total;
    let mut order: Vec<usize> = (0..active.len()).collect();
    let born = |i: usize| active[i].metadata.creation_timestamp.clone();
    if to_add > 0 {
        order.sort_by_key(|&i| (Reverse(replicas(active[i])), Reverse(born(i))));
    } else {
        order.sort_by_key(|&i| (Reverse(replicas(active[i])), born(i)));
    }
    let mut added = 0;
    let mut sizes = Vec::new();
    for &i in &order {
        let left = to_add - added;
        let mut part = 0;
        if replicas(active[i]) != 0 && left != 0 {
            let wish = fraction(active[i], deployment, bounds);
            part = if to_add > 0 { wish.min(left) } else { wish.max(left) };
        }
        added += part;
        sizes.push((i, replicas(active[i]) + part));
    }
    if let Some((_, size)) = sizes.first_mut() {
        *size = (*size + to_add - added).max(0);
    }
    sizes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn spec(replicas: i32, surge: Value, unavailable: Value) -> DeploymentSpec {
        from_value(json!({"replicas": replicas, "selector": {}, "template": {}, "strategy": {
            "type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}))
        .unwrap()
    }

    fn set(name: &str, size: i32, available: i32, max: i32) -> ReplicaSet {
        from_value(json!({
            "metadata": {"name": name, "annotations": {MAX: max.to_string()}, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"replicas": size, "selector": {}},
            "status": {"replicas": size, "availableReplicas": available}}))
        .unwrap()
    }

    #[test]
    fn percentages_round_in_favour_of_progress() {
        let check = |n: i32, surge: Value, unavailable: Value, expect: (i32, i32)| {
            let bounds = Bounds::of(&spec(n, surge, unavailable));
            assert_eq!((bounds.surge, bounds.unavailable), expect, "{n}");
        };
        check(10, json!("25%"), json!("25%"), (3, 2));
        check(1, json!("25%"), json!("25%"), (1, 0));
        check(3, json!(0), json!("10%"), (0, 1));
        check(2, json!(0), json!(5), (0, 2));
        check(4, Value::Null, Value::Null, (1, 1));
    }

    #[test]
    fn old_sets_shrink_only_as_availability_allows() {
        let bounds = Bounds::of(&spec(10, json!(3), json!(2)));
        let check = |old: &[ReplicaSet], new: ReplicaSet, expect: &[i32]| {
            let old: Vec<&ReplicaSet> = old.iter().collect();
            assert_eq!(shrink_old(bounds, &old, Some(&new)), expect);
        };
        check(&[set("a", 10, 10, 13)], set("n", 0, 0, 13), &[8]);
        check(&[set("a", 8, 8, 13)], set("n", 5, 0, 13), &[8]);
        check(&[set("a", 8, 8, 13)], set("n", 5, 3, 13), &[5]);
        check(&[set("a", 8, 5, 13)], set("n", 5, 5, 13), &[3]);
        check(&[set("a", 3, 0, 13), set("b", 7, 7, 13)], set("n", 3, 3, 13), &[0, 5]);
    }

    #[test]
    fn a_scale_amid_a_rollout_is_proportional() {
        let check = |spec: DeploymentSpec, sets: &[ReplicaSet], expect: &[i32]| {
            let deployment = Deployment { spec: Some(spec), ..Deployment::default() };
            let bounds = Bounds::of(deployment.spec.as_ref().unwrap());
            let active: Vec<&ReplicaSet> = sets.iter().collect();
            let mut sizes = vec![0; sets.len()];
            for (i, size) in proportional(&deployment, bounds, &active) {
                sizes[i] = size;
            }
            assert_eq!(sizes, expect);
        };
        // The documentation's example: 10 + 3 surge, 8 old and 5 new, scaled to 15.
        check(spec(15, json!(3), json!(2)), &[set("o", 8, 8, 13), set("n", 5, 0, 13)], &[11, 7]);
        check(spec(5, json!(3), json!(2)), &[set("o", 8, 8, 13), set("n", 5, 0, 13)], &[5, 3]);
        check(spec(0, json!(3), json!(2)), &[set("o", 8, 8, 13), set("n", 5, 0, 13)], &[0, 0]);
    }

    #[test]
    fn the_new_set_grows_into_the_surge() {
        let bounds = Bounds::of(&spec(10, json!(3), json!(2)));
        let old = set("o", 10, 10, 13);
        assert_eq!(bounds.new_size(&[&old], 0), 3);
        let (old, new) = (set("o", 8, 8, 13), set("n", 3, 3, 13));
        assert_eq!(bounds.new_size(&[&old, &new], 3), 5);
    }
}
