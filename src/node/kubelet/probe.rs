//! Probes: asks a container at its own pace and tells the worker when the answer changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Probe};
use tokio::sync::mpsc;

use super::context::reference;
use super::handler::Target;
use client::events::Recorder;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// A probe's answer crossed its threshold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Container id.
    pub id: String,
    pub container: String,
    pub kind: ProbeKind,
    pub healthy: bool,
}

/// Whose answer it was, and what it said.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Answered {
    pub uid: String,
    pub namespace: String,
    pub pod: String,
    pub container: String,
    pub kind: &'static str,
    /// `successful` or `failed`.
    pub result: &'static str,
}

/// How often probes gave which answer, for `/metrics/probes`.
#[derive(Clone, Debug, Default)]
pub struct Answers(Arc<Mutex<BTreeMap<Answered, u64>>>);

impl Answers {
    fn add(&self, pod: &Pod, container: &str, kind: ProbeKind, healthy: bool) {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let answered = Answered {
            uid: text(&pod.metadata.uid),
            namespace: text(&pod.metadata.namespace),
            pod: text(&pod.metadata.name),
            container: container.to_owned(),
            kind: kind.name(),
            result: if healthy { "successful" } else { "failed" },
        };
        *self.lock().entry(answered).or_default() += 1;
    }

    /// The Pod is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().retain(|answered, _| answered.uid != uid);
    }

    pub fn all(&self) -> BTreeMap<Answered, u64> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Answered, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts answers against the thresholds; what it says is `Some` only when the verdict changes.
#[derive(Debug)]
struct Counter {
    success: u32,
    failure: u32,
    run: u32,
    last: Option<bool>,
    verdict: Option<bool>,
}

impl Counter {
    fn new(probe: &Probe) -> Self {
        let at_least_one = |value: Option<i32>, default: u32| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|value| *value > 0).unwrap_or(default)
        };
        Self {
            success: at_least_one(probe.success_threshold, 1),
            failure: at_least_one(probe.failure_threshold, 3),
            run: 0,
            last: None,
            verdict: None,
        }
    }

    fn count(&mut self, answer: bool) -> Option<bool> {
        self.run = if self.last == Some(answer) { self.run + 1 } else { 1 };
        self.last = Some(answer);
        let needed = if answer { self.success } else { self.failure };
        if self.run >= needed && self.verdict != Some(answer) {
            self.verdict = Some(answer);
            return Some(answer);
        }
        None
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    let seconds = value.and_then(|value| u64::try_from(value).ok()).filter(|value| *value > 0);
    Duration::from_secs(seconds.unwrap_or(default))
}

/// Asks until the container is replaced (the task is dropped then) or nothing more can change.
pub async fn run(
    pod: Arc<Pod>,
    target: Target,
    kind: ProbeKind,
    probe: Probe,
    (events, answers): (Recorder, Answers),
    verdicts: mpsc::UnboundedSender<Verdict>,
) {
    let period = seconds(probe.period_seconds, 10);
    let mut counter = Counter::new(&probe);
    tokio::time::sleep(Duration::from_secs(
        probe.initial_delay_seconds.and_then(|delay| u64::try_from(delay).ok()).unwrap_or(0),
    ))
    .await;
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = ask(&target, &probe).await;
        answers.add(&pod, &target.container.name, kind, answer.is_ok());
        let about = || reference(&pod, Some(&target.container.name));
        match &answer {
            Ok(None) => {}
            Ok(Some(what)) => {
                events.warning(about(), "ProbeWarning", format!("{} probe warning: {what}", kind.name()));
            }
            Err(why) => events.warning(about(), "Unhealthy", format!("{} probe failed: {why}", kind.name())),
        }
        let Some(healthy) = counter.count(answer.is_ok()) else { continue };
        let verdict =
            Verdict { id: target.id.clone(), container: target.container.name.clone(), kind, healthy };
        // A startup probe is done when it has passed; a failed liveness or startup probe ends the container.
        let last = kind == ProbeKind::Startup || (kind == ProbeKind::Liveness && !healthy);
        if verdicts.send(verdict).is_err() || last {
            return;
        }
    }
}

/// Asks once; success may come with a warning.
async fn ask(target: &Target, probe: &Probe) -> Result<Option<String>, String> {
    let limit = seconds(probe.timeout_seconds, 1);
    let asked = async {
        if let Some(exec) = &probe.exec {
            return target.exec(exec, limit).await.map(|()| None);
        }
        if let Some(http) = &probe.http_get {
            return target.http(http, "kube-probe/1.36").await;
        }
        if let Some(tcp) = &probe.tcp_socket {
            return target.tcp(tcp).await.map(|()| None);
        }
        if let Some(grpc) = &probe.grpc {
            return target.grpc(grpc).await.map(|()| None);
        }
        Ok(None)
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("command timed out: context deadline exceeded (limit {}s)", limit.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_until_the_pod_is_gone() {
        let pod = crate::kubelet::testing::pod(serde_json::json!({"metadata": {"name": "p", "uid": "u"}}));
        let answers = Answers::default();
        for healthy in [true, true, false] {
            answers.add(&pod, "c", ProbeKind::Liveness, healthy);
        }
        let counts: Vec<_> =
            answers.all().into_iter().map(|(of, count)| (of.kind, of.result, count)).collect();
        assert_eq!(counts, [("Liveness", "failed", 1), ("Liveness", "successful", 2)]);
        answers.forget("u");
        assert!(answers.all().is_empty());
    }

    #[test]
    fn thresholds_decide() {
        let probe = Probe { success_threshold: Some(2), failure_threshold: Some(3), ..Default::default() };
        let mut counter = Counter::new(&probe);
        let answers = [true, true, true, false, false, true, false, false, false, false, true, true];
        let verdicts: Vec<_> = answers.iter().map(|answer| counter.count(*answer)).collect();
        let mut expect = vec![None; answers.len()];
        expect[1] = Some(true);
        expect[8] = Some(false);
        expect[11] = Some(true);
        assert_eq!(verdicts, expect);
    }
}
