//! How much is told, and how much of it was lost: upstream's `apiserver_audit_*`.

use metrics::{Counter, Kind, Text};

use super::policy::Level;

#[derive(Default)]
pub(super) struct Counts {
    pub events: Counter,
    lost: Counter,
    /// Requests, by what the policy wants of them.
    levels: [Counter; Level::ALL.len()],
}

impl Counts {
    pub(super) fn level(&self, level: Level) {
        self.levels[level as usize].add(1);
    }

    pub(super) fn lost(&self, events: usize) {
        self.lost.add(events as u64);
    }

    pub(super) fn tell(&self, text: &mut Text) {
        let about = "Audit events that were made and given to the log.";
        text.single("apiserver_audit_event_total", Kind::Counter, about, self.events.get() as f64);
        let errors = "apiserver_audit_error_total";
        text.family(errors, Kind::Counter, "Audit events that could not be written.");
        text.sample(errors, &[("plugin", "log")], self.lost.get() as f64);
        let levels = "apiserver_audit_level_total";
        text.family(levels, Kind::Counter, "Requests by what the audit policy wants to be told of them.");
        for ((word, _), count) in Level::ALL.iter().zip(&self.levels) {
            text.sample(levels, &[("level", word)], count.get() as f64);
        }
    }
}
