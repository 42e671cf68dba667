//! How fast nodes may lose their Pods: a whole zone that falls silent is more likely a broken network than broken nodes.

use std::collections::{BTreeMap, HashMap};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;

use client::typed::node_is_ready;

/// Between two nodes of a zone that are tainted (upstream's node-eviction-rate of 0.1 a second).
const INTERVAL: SignedDuration = SignedDuration::from_secs(10);
/// The same in a large cluster's zone that is partly broken (secondary-node-eviction-rate of 0.01 a second).
const SLOW_INTERVAL: SignedDuration = SignedDuration::from_secs(100);
/// Up to so many nodes a cluster is small, and a partly broken zone of it is left alone (large-cluster-size-threshold).
const SMALL: usize = 50;

/// How a zone is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Normal,
    /// Many of its nodes are not ready (unhealthy-zone-threshold, 55 %).
    Partial,
    /// All of them.
    Full,
}

/// Whether a node's Pods may be driven out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eviction {
    Allowed,
    /// Not now; later, after this long, if that is known.
    Later(Option<SignedDuration>),
    /// No node answers: nobody's Pods are touched, and what was begun is taken back.
    Off,
}

fn zone(node: &Node) -> String {
    let label = |key: &str| node.labels().get(key).map(String::as_str).unwrap_or_default();
    format!("{}/{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

fn state(ready: usize, not_ready: usize) -> State {
    match (ready, not_ready) {
        (0, 1..) => State::Full,
        (_, 3..) if not_ready * 100 >= (ready + not_ready) * 55 => State::Partial,
        _ => State::Normal,
    }
}

/// When a node of each zone was last tainted.
#[derive(Debug, Default)]
pub(super) struct Limiter(HashMap<String, Timestamp>);

impl Limiter {
    /// Decides about one node that is not ready, and counts it if it may lose its Pods.
    pub(super) fn decide<'a>(
        &mut self,
        node: &Node,
        nodes: impl Iterator<Item = &'a Node>,
        now: Timestamp,
    ) -> Eviction {
        let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        let mut all = 0;
        for other in nodes {
            all += 1;
            let (ready, not_ready) = counts.entry(zone(other)).or_default();
            *(if node_is_ready(other) { ready } else { not_ready }) += 1;
        }
        let states: BTreeMap<&String, State> =
            counts.iter().map(|(zone, (ready, not))| (zone, state(*ready, *not))).collect();
        if states.values().all(|state| *state == State::Full) {
            return Eviction::Off;
        }
        let zone = zone(node);
        let interval = match states.get(&zone) {
            Some(State::Partial) if all <= SMALL => return Eviction::Later(None),
            Some(State::Partial) => SLOW_INTERVAL,
            _ => INTERVAL,
        };
        if let Some(last) = self.0.get(&zone) {
            let left = last.duration_since(now) + interval;
            if left.is_positive() {
                return Eviction::Later(Some(left));
            }
        }
        self.0.insert(zone, now);
        Eviction::Allowed
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    /// `ready/all` nodes of each zone; the first node that is not ready is asked about.
    fn check(limiter: &mut Limiter, zones: &[(usize, usize)], at: i64, expect: Eviction) {
        let mut nodes: Vec<Node> = Vec::new();
        for (number, (ready, all)) in zones.iter().enumerate() {
            for index in 0..*all {
                let status = if index < *ready { "True" } else { "Unknown" };
                let node = json!({"metadata": {"name": format!("{number}-{index}"),
                    "labels": {"topology.kubernetes.io/zone": number.to_string()}},
                    "status": {"conditions": [{"type": "Ready", "status": status}]}});
                nodes.push(from_value(node).unwrap());
            }
        }
        let asked = nodes.iter().find(|node| !node_is_ready(node)).unwrap();
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(at);
        assert_eq!(limiter.decide(asked, nodes.iter(), now), expect, "{zones:?} at {at}");
    }

    #[test]
    fn nodes_lose_their_pods_one_by_one_and_not_when_all_are_silent() {
        let limiter = &mut Limiter::default();
        check(limiter, &[(2, 3)], 0, Eviction::Allowed);
        check(limiter, &[(1, 3)], 4, Eviction::Later(Some(SignedDuration::from_secs(6))));
        check(limiter, &[(1, 3)], 10, Eviction::Allowed);
        check(limiter, &[(0, 3)], 30, Eviction::Off);
        check(limiter, &[(0, 1)], 30, Eviction::Off);
        check(limiter, &[(0, 3), (1, 1)], 30, Eviction::Allowed);
        check(limiter, &[(1, 5)], 60, Eviction::Later(None));
        check(limiter, &[(2, 60)], 200, Eviction::Allowed);
        check(limiter, &[(2, 60)], 220, Eviction::Later(Some(SignedDuration::from_secs(80))));
    }
}
