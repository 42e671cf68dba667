//! How fast a scale may change, and which of the recent recommendations counts.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerSpec};

/// What is remembered of an autoscaler between two rounds.
#[derive(Clone, Debug, Default)]
pub(super) struct ScaleHistory {
    recommendations: VecDeque<(Timestamp, i32)>,
    ups: VecDeque<(Timestamp, i32)>,
    downs: VecDeque<(Timestamp, i32)>,
}

/// A condition: its truth, reason and message.
pub(super) type Told = (bool, &'static str, String);

/// What comes out of a recommendation.
#[derive(Debug, PartialEq)]
pub(super) struct Limited {
    pub replicas: i32,
    pub able: Told,
    pub limited: Told,
}

/// Upstream keeps nothing for longer than the longest window there may be.
const LONGEST: SignedDuration = SignedDuration::from_hours(1);

fn policy(kind: &str, value: i32) -> HPAScalingPolicy {
    HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds: 15 }
}

/// The rules of a direction, with what is assumed where nothing is said.
pub(super) fn rules(spec: &HorizontalPodAutoscalerSpec, up: bool) -> HPAScalingRules {
    let behavior = spec.behavior.as_ref();
    let said = behavior.and_then(|all| if up { all.scale_up.clone() } else { all.scale_down.clone() });
    let mut rules = said.unwrap_or_default();
    if rules.policies.as_ref().is_none_or(Vec::is_empty) {
        let all = policy("Percent", 100);
        rules.policies = Some(if up { vec![all, policy("Pods", 4)] } else { vec![all] });
    }
    rules.stabilization_window_seconds.get_or_insert(if up { 0 } else { 300 });
    rules
}

fn window(rules: &HPAScalingRules) -> SignedDuration {
    SignedDuration::from_secs(rules.stabilization_window_seconds.unwrap_or(0).into())
}

impl ScaleHistory {
    /// Notes that the scale was changed.
    pub(super) fn scaled(&mut self, from: i32, to: i32, now: Timestamp) {
        let events = if to > from { &mut self.ups } else { &mut self.downs };
        events.push_back((now, (to - from).abs()));
        events.retain(|(at, _)| now.duration_since(*at) < LONGEST);
    }

    fn changed(events: &VecDeque<(Timestamp, i32)>, period: i32, now: Timestamp) -> i32 {
        let period = SignedDuration::from_secs(period.into());
        events.iter().filter(|(at, _)| now.duration_since(*at) < period).map(|(_, change)| change).sum()
    }

    /// The most moderate of the recommendations within the windows.
    fn stabilize(
        &mut self,
        spec: &HorizontalPodAutoscalerSpec,
        current: i32,
        wanted: i32,
        now: Timestamp,
    ) -> i32 {
        let (up, down) = (window(&rules(spec, true)), window(&rules(spec, false)));
        self.recommendations.retain(|(at, _)| now.duration_since(*at) < LONGEST);
        let within = |window: SignedDuration| {
            self.recommendations
                .iter()
                .filter(move |(at, _)| now.duration_since(*at) < window)
                .map(|(_, r)| *r)
        };
        let lowest = within(up).chain([wanted]).min().unwrap_or(wanted);
        let highest = within(down).chain([wanted]).max().unwrap_or(wanted);
        self.recommendations.push_back((now, wanted));
        current.clamp(lowest, highest.max(lowest))
    }

    /// How far the policies of a direction let the scale go now.
    fn limit(&self, rules: &HPAScalingRules, up: bool, current: i32, now: Timestamp) -> i32 {
        if rules.select_policy.as_deref() == Some("Disabled") {
            return current;
        }
        let one = |policy: &HPAScalingPolicy| {
            let added = Self::changed(&self.ups, policy.period_seconds, now);
            let removed = Self::changed(&self.downs, policy.period_seconds, now);
            let start = i64::from(current - added + removed);
            let value = i64::from(policy.value);
            let to = match (policy.type_.as_str(), up) {
                ("Pods", true) => start + value,
                ("Pods", false) => start - value,
                (_, true) => (start * (100 + value) + 99).div_euclid(100),
                (_, false) => (start * (100 - value)).div_euclid(100),
            };
            i32::try_from(to).unwrap_or(if to > 0 { i32::MAX } else { 0 })
        };
        let all = rules.policies.iter().flatten().map(one);
        let least_change = rules.select_policy.as_deref() == Some("Min");
        let chosen = if up == least_change { all.min() } else { all.max() };
        let chosen = chosen.unwrap_or(current);
        if up { chosen.max(current) } else { chosen.min(current) }
    }

    /// What of a recommendation may be done now.
    pub(super) fn apply(
        &mut self,
        spec: &HorizontalPodAutoscalerSpec,
        current: i32,
        wanted: i32,
        now: Timestamp,
    ) -> Limited {
        let stable = self.stabilize(spec, current, wanted, now);
        let able = match stable.cmp(&wanted) {
            std::cmp::Ordering::Equal => {
                (true, "ReadyForNewScale", "recommended size matches current size".to_owned())
            }
            std::cmp::Ordering::Greater => {
                let text = "recent recommendations were higher than current one, applying the highest recent recommendation";
                (true, "ScaleDownStabilized", text.to_owned())
            }
            std::cmp::Ordering::Less => {
                let text = "recent recommendations were lower than current one, applying the lowest recent recommendation";
                (true, "ScaleUpStabilized", text.to_owned())
            }
        };
        let (min, max) = (spec.min_replicas.unwrap_or(1), spec.max_replicas);
        let (replicas, limited) = if stable > current {
            let limit = self.limit(&rules(spec, true), true, current, now);
            if stable > limit.min(max) {
                match limit < max {
                    true => (
                        limit,
                        (
                            true,
                            "ScaleUpLimit",
                            "the desired replica count is increasing faster than the maximum scale rate",
                        ),
                    ),
                    false => (
                        max,
                        (
                            true,
                            "TooManyReplicas",
                            "the desired replica count is more than the maximum replica count",
                        ),
                    ),
                }
            } else {
                (stable, (false, "DesiredWithinRange", "the desired count is within the acceptable range"))
            }
        } else if stable < current {
            let limit = self.limit(&rules(spec, false), false, current, now);
            if stable < limit.max(min) {
                match limit > min {
                    true => (
                        limit,
                        (
                            true,
                            "ScaleDownLimit",
                            "the desired replica count is decreasing faster than the maximum scale rate",
                        ),
                    ),
                    false => (
                        min,
                        (
                            true,
                            "TooFewReplicas",
                            "the desired replica count is less than the minimum replica count",
                        ),
                    ),
                }
            } else {
                (stable, (false, "DesiredWithinRange", "the desired count is within the acceptable range"))
            }
        } else {
            (stable, (false, "DesiredWithinRange", "the desired count is within the acceptable range"))
        };
        Limited { replicas, able, limited: (limited.0, limited.1, limited.2.to_owned()) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    #[test]
    fn scales_change_as_fast_as_they_may() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let check = |behavior: Value, current: i32, wanted: i32, expect: (i32, &str)| {
            let spec = json!({"minReplicas": 2, "maxReplicas": 20, "behavior": behavior,
                "scaleTargetRef": {"kind": "Deployment", "name": "d"}});
            let spec: HorizontalPodAutoscalerSpec = from_value(spec).unwrap();
            let got = ScaleHistory::default().apply(&spec, current, wanted, now);
            assert_eq!((got.replicas, got.limited.1), expect, "{behavior} {current} {wanted}");
        };
        check(json!({}), 3, 5, (5, "DesiredWithinRange"));
        check(json!({}), 3, 9, (7, "ScaleUpLimit"));
        check(json!({}), 8, 30, (16, "ScaleUpLimit"));
        check(json!({}), 15, 30, (20, "TooManyReplicas"));
        check(json!({}), 5, 1, (2, "TooFewReplicas"));
        let slow = |rules: Value| json!({"scaleUp": rules, "scaleDown": rules});
        let pods = || slow(json!({"policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}));
        check(pods(), 5, 9, (6, "ScaleUpLimit"));
        check(pods(), 5, 2, (4, "ScaleDownLimit"));
        check(slow(json!({"selectPolicy": "Disabled"})), 5, 9, (5, "ScaleUpLimit"));
        let both = json!([{"type": "Pods", "value": 1, "periodSeconds": 60}, {"type": "Percent", "value": 60, "periodSeconds": 60}]);
        check(slow(json!({"policies": both})), 5, 12, (8, "ScaleUpLimit"));
        check(slow(json!({"policies": both, "selectPolicy": "Min"})), 5, 12, (6, "ScaleUpLimit"));
    }

    #[test]
    fn a_scale_goes_down_only_when_it_was_asked_for_long_enough() {
        let spec: HorizontalPodAutoscalerSpec =
            from_value(json!({"maxReplicas": 10, "scaleTargetRef": {"kind": "D", "name": "d"}})).unwrap();
        let mut history = ScaleHistory::default();
        let start: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let mut at = |seconds: i64, wanted: i32| {
            history.apply(&spec, 5, wanted, start + SignedDuration::from_secs(seconds)).replicas
        };
        assert_eq!(at(0, 5), 5);
        assert_eq!(at(15, 2), 5);
        assert_eq!(at(299, 2), 5);
        assert_eq!(at(316, 2), 2);
    }
}
