//! What is told of hooks that were asked: metrics under upstream's names, and annotations of the audit event.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::Attributes;
use super::super::matching::word;
use super::Hook;
use metrics::{Counter, Family, Histogram, Kind, Text};

/// Upstream's bounds, in seconds.
const BOUNDS: [f64; 8] = [0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
/// What says why a hook's refusal counts.
pub(super) const REFUSED: &str = "no_error";
pub(super) const NOT_ASKED: &str = "calling_webhook_error";
pub(super) const NOT_APPLIED: &str = "apiserver_internal_error";

/// Where in a request a hook is asked.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    pub mutating: bool,
    /// 1 if it is asked again.
    pub round: usize,
    /// Among all hooks if they mutate, among those that are asked if they validate.
    pub index: usize,
}

impl Turn {
    /// Upstream's word for the step.
    fn step(self) -> &'static str {
        if self.mutating { "admit" } else { "validating" }
    }

    fn key(self, prefix: &str) -> String {
        format!("{prefix}round_{}_index_{}", self.round, self.index)
    }

    /// Tells whether a hook has changed the object, and how.
    pub(super) fn note_change(self, hook: &Hook, patch: Option<&Value>, attributes: &Attributes<'_>) {
        let (configuration, webhook) = (&hook.configuration, hook.name());
        let mutated = json!({"configuration": configuration, "webhook": webhook, "mutated": patch.is_some()});
        attributes.notes.add(self.key("mutation.webhook.admission.k8s.io/"), mutated.to_string());
        if let Some(patch) = patch {
            let patched = json!({"configuration": configuration, "webhook": webhook, "patch": patch,
                "patchType": "JSONPatch"});
            attributes.notes.add_of_body(self.key("patch.webhook.admission.k8s.io/"), patched.to_string());
        }
    }
}

/// How a call of a hook went.
pub(super) struct Call {
    pub turn: Turn,
    pub took: Duration,
    /// What it was answered with; 0 if that says nothing.
    pub code: u16,
    /// Why the write is refused for it, if it is.
    pub rejected: Option<&'static str>,
}

/// What is counted of calls.
#[derive(Default)]
pub(super) struct Calls {
    took: Family<Histogram<8>>,
    requests: Family<Counter>,
    rejected: Family<Counter>,
    passed_over: Family<Counter>,
}

impl Calls {
    /// A hook was asked.
    pub(super) fn count(&self, name: &str, attributes: &Attributes<'_>, call: &Call) {
        let (operation, step) = (word(attributes.operation), call.turn.step());
        let code = call.code.min(600).to_string();
        let rejected = if call.rejected.is_some() { "true" } else { "false" };
        attributes.notes.waited(call.took);
        self.took.of(&[name, operation, rejected, step]).observe(&BOUNDS, call.took);
        self.requests.of(&[&code, name, operation, rejected, step]).add(1);
        if let Some(why) = call.rejected {
            self.refuse(name, attributes, call.turn, why, &code);
        }
    }

    /// A write is refused for a hook.
    pub(super) fn refuse(&self, name: &str, attributes: &Attributes<'_>, turn: Turn, why: &str, code: &str) {
        self.rejected.of(&[why, name, word(attributes.operation), code, turn.step()]).add(1);
    }

    /// A hook could not be asked, and that does not matter.
    pub(super) fn pass_over(&self, name: &str, attributes: &Attributes<'_>, turn: Turn) {
        self.passed_over.of(&[name, turn.step()]).add(1);
        let of = if turn.mutating { "mutation" } else { "validating" };
        let key = turn.key(&format!("failed-open.{of}.webhook.admission.k8s.io/"));
        attributes.notes.add(key, name);
    }

    /// Tells what was counted.
    pub(super) fn tell(&self, text: &mut Text) {
        fn labels<'a, const N: usize>(names: [&'a str; N], values: &'a [String]) -> [(&'a str, &'a str); N] {
            std::array::from_fn(|at| (names[at], values[at].as_str()))
        }
        let took = "apiserver_admission_webhook_admission_duration_seconds";
        text.family(took, Kind::Histogram, "How long admission webhooks took.");
        for (values, histogram) in self.took.all() {
            histogram.tell(text, took, &BOUNDS, &labels(["name", "operation", "rejected", "type"], &values));
        }
        let mut counters = |name: &str, about: &str, family: &Family<Counter>, of: &[&str]| {
            text.family(name, Kind::Counter, about);
            for (values, count) in family.all() {
                let labels: Vec<_> = of.iter().copied().zip(values.iter().map(String::as_str)).collect();
                text.sample(name, &labels, count.get() as f64);
            }
        };
        let of = ["code", "name", "operation", "rejected", "type"];
        let about = "Admission webhooks that were asked, by what they answered.";
        counters("apiserver_admission_webhook_request_total", about, &self.requests, &of);
        let of = ["error_type", "name", "operation", "rejection_code", "type"];
        let about = "Writes that were refused for an admission webhook, and why.";
        counters("apiserver_admission_webhook_rejection_count", about, &self.rejected, &of);
        let about = "Admission webhooks that could not be asked and were passed over.";
        let of = ["name", "type"];
        counters("apiserver_admission_webhook_fail_open_count", about, &self.passed_over, &of);
    }
}
