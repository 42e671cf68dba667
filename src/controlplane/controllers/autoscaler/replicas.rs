//! How many replicas a metric asks for, by upstream's rules: Pods that are not ready or not measured must not make the
//! answer more extreme.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use client::typed::pod_condition;

/// A Pod's CPU counts only when it has run for this long (upstream's cpu-initialization-period).
const CPU_START: SignedDuration = SignedDuration::from_mins(5);
/// A Pod that has not been ready within this time of its start never was (upstream's initial-readiness-delay).
const READINESS_DELAY: SignedDuration = SignedDuration::from_secs(30);

/// What was measured of one Pod, in thousandths.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub used: i64,
    pub at: Timestamp,
    pub window: SignedDuration,
}

/// Samples by Pod.
pub(super) type Samples = BTreeMap<String, Sample>;

/// What a Pod should use, in thousandths, and what counts for one that was not measured when there is little to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aim {
    pub target: i64,
    pub full: i64,
}

/// What is used against what is aimed at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ratio {
    pub used: i128,
    pub aim: i128,
}

impl Ratio {
    /// Whether the two differ by no more than so many thousandths.
    pub(super) fn is_near(self, tolerance: i64) -> bool {
        (self.used - self.aim).abs() * 1000 <= self.aim * i128::from(tolerance)
    }

    /// So many replicas times the ratio, rounded up.
    pub(super) fn times(self, replicas: usize) -> i32 {
        if self.aim <= 0 {
            return 0;
        }
        let product = self.used * i128::try_from(replicas).unwrap_or(i128::MAX);
        i32::try_from((product + self.aim - 1).div_euclid(self.aim)).unwrap_or(i32::MAX)
    }

    fn direction(self) -> Ordering {
        self.used.cmp(&self.aim)
    }
}

/// How Pods count.
#[derive(Debug, Default, PartialEq)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    missing: BTreeSet<String>,
    ignored: BTreeSet<String>,
}

fn is_unready(pod: &Pod, sample: &Sample, now: Timestamp) -> bool {
    let start = pod.status.as_ref().and_then(|status| status.start_time.as_ref()).map(|at| at.0);
    let (Some(ready), Some(start)) = (pod_condition(pod, "Ready"), start) else { return true };
    let changed = ready.last_transition_time.as_ref().map_or(start, |at| at.0);
    if start + CPU_START > now {
        return ready.status == "False" || sample.at < changed + sample.window;
    }
    ready.status == "False" && start + READINESS_DELAY > changed
}

fn group(pods: &[Arc<Pod>], samples: &Samples, cpu: bool, now: Timestamp) -> Groups {
    let mut groups = Groups::default();
    for pod in pods {
        let (name, phase) = (pod.name_any(), pod.status.as_ref().and_then(|status| status.phase.as_deref()));
        if pod.metadata.deletion_timestamp.is_some() || phase == Some("Failed") {
            groups.ignored.insert(name);
        } else if phase == Some("Pending") {
            groups.unready.insert(name);
        } else {
            match samples.get(&name) {
                None => {
                    groups.missing.insert(name);
                }
                Some(sample) if cpu && is_unready(pod, sample, now) => {
                    groups.unready.insert(name);
                }
                Some(_) => groups.ready += 1,
            }
        }
    }
    groups
}

/// How many replicas the Pods' own measurements ask for. `aims` has what each Pod should use. Fails when none was
/// measured.
pub(super) fn by_pods(
    current: i32,
    pods: &[Arc<Pod>],
    samples: &Samples,
    aims: &BTreeMap<String, Aim>,
    cpu: bool,
    tolerances: (i64, i64),
    now: Timestamp,
) -> Result<i32, String> {
    let groups = group(pods, samples, cpu, now);
    let counted = |name: &String| !groups.unready.contains(name) && !groups.ignored.contains(name);
    let mut used: BTreeMap<&String, i64> =
        samples.iter().filter(|(name, _)| counted(name)).map(|(name, sample)| (name, sample.used)).collect();
    let ratio = |used: &BTreeMap<&String, i64>| {
        let aim = used.keys().filter_map(|name| aims.get(*name)).map(|aim| i128::from(aim.target)).sum();
        Ratio { used: used.values().map(|used| i128::from(*used)).sum(), aim }
    };
    if used.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let (down, up) = tolerances;
    let near = |ratio: Ratio| ratio.is_near(if ratio.direction() == Ordering::Greater { up } else { down });
    let first = ratio(&used);
    let fills_unready = !groups.unready.is_empty() && first.direction() == Ordering::Greater;
    if !fills_unready && groups.missing.is_empty() {
        return Ok(if near(first) { current } else { first.times(groups.ready) });
    }
    for name in &groups.missing {
        match first.direction() {
            // Little is used: those that were not measured are taken to use all they may.
            Ordering::Less => used.insert(name, aims.get(name).map_or(0, |aim| aim.full)),
            Ordering::Greater => used.insert(name, 0),
            Ordering::Equal => None,
        };
    }
    if fills_unready {
        used.extend(groups.unready.iter().map(|name| (name, 0)));
    }
    let second = ratio(&used);
    if near(second) || second.direction() != first.direction() {
        return Ok(current);
    }
    let wanted = second.times(used.len());
    let backwards = match second.direction() {
        Ordering::Less => wanted > current,
        _ => wanted < current,
    };
    Ok(if backwards { current } else { wanted })
}

/// How many of the Pods run and are ready.
pub(super) fn ready_pods(pods: &[Arc<Pod>]) -> usize {
    pods.iter().filter(|pod| client::typed::is_ready(pod)).count()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    /// Each Pod as `state used`: `ok` is ready for long, `new` has just started, `pending`, `failed`; `-` is not measured.
    fn check(current: i32, target: i64, full: i64, cpu: bool, all: &[&str], expect: Result<i32, ()>) {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        let (mut pods, mut samples, mut aims) = (Vec::new(), Samples::new(), BTreeMap::new());
        for (at, text) in all.iter().enumerate() {
            let (state, used) = text.split_once(' ').unwrap();
            let name = format!("p{at}");
            let (phase, start, ready) = match state {
                "ok" => ("Running", "2026-01-01T00:00:00Z", "True"),
                "new" => ("Running", "2026-01-01T00:59:00Z", "False"),
                "pending" => ("Pending", "2026-01-01T00:59:00Z", "False"),
                _ => ("Failed", "2026-01-01T00:00:00Z", "False"),
            };
            let pod = json!({"metadata": {"name": name}, "status": {"phase": phase, "startTime": start,
                "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": start}]}});
            pods.push(Arc::new(from_value(pod).unwrap()));
            if let Ok(used) = used.parse() {
                samples.insert(name.clone(), Sample { used, at: now, window: SignedDuration::from_secs(30) });
            }
            aims.insert(name, Aim { target, full });
        }
        let got = by_pods(current, &pods, &samples, &aims, cpu, (100, 100), now).map_err(drop);
        assert_eq!(got, expect, "{current} {target} {all:?}");
    }

    #[test]
    fn replicas_follow_what_is_used() {
        check(3, 300, 1000, true, &["ok 300", "ok 500", "ok 700"], Ok(5));
        check(3, 300, 1000, true, &["ok 100", "ok 100", "ok 100"], Ok(1));
        check(3, 300, 1000, true, &["ok 310", "ok 290", "ok 320"], Ok(3));
        // A Pod that has just started is taken to use nothing while there is too much to do.
        check(3, 300, 1000, true, &["ok 500", "ok 700", "new 900"], Ok(4));
        check(3, 300, 1000, false, &["ok 500", "ok 700", "new 900"], Ok(7));
        check(3, 300, 1000, true, &["ok 500", "ok 700", "pending -"], Ok(4));
        check(3, 300, 1000, true, &["ok 900", "ok 900", "failed -"], Ok(6));
        // One that was not measured holds back in both directions.
        check(4, 300, 1000, true, &["ok 100", "ok 100", "ok 100", "ok -"], Ok(4));
        check(2, 300, 1000, true, &["ok 550", "ok -"], Ok(2));
        check(2, 300, 1000, true, &["ok -", "ok -"], Err(()));
    }
}
