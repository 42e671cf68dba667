//! What is told of levels and of the requests that come under their flow schemas: upstream's `apiserver_flowcontrol_*`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics::{Counter, Family, Gauge, Held, Histogram, Kind, Text};

use super::level::Refusal;
use super::seats::LevelCount;

/// Upstream's bounds of waiting and of being served, in seconds.
const BOUNDS: [f64; 13] = [0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0];
const EXECUTING: &str = "apiserver_flowcontrol_current_executing_requests";
const SEATS: &str = "apiserver_flowcontrol_current_executing_seats";
const WAITING: &str = "apiserver_flowcontrol_current_inqueue_requests";
const DISPATCHED: &str = "apiserver_flowcontrol_dispatched_requests_total";
const REJECTED: &str = "apiserver_flowcontrol_rejected_requests_total";
const WAITED: &str = "apiserver_flowcontrol_request_wait_duration_seconds";
const EXECUTED: &str = "apiserver_flowcontrol_request_execution_seconds";

/// What the requests of one flow schema did, at one level.
#[derive(Default)]
pub struct FlowCounts {
    dispatched: Counter,
    refused: [Counter; Refusal::ALL.len()],
    waiting: Arc<Gauge>,
    executing: Arc<Gauge>,
    /// Of those that were refused, and of those that were served.
    waited: [Histogram<13>; 2],
    /// Of watches, and of all others.
    executed: [Histogram<13>; 2],
}

/// A request that is being served.
pub struct Served {
    counts: Arc<FlowCounts>,
    since: Instant,
    watch: bool,
    _held: Held,
}

impl FlowCounts {
    /// A request waits, until the guard is dropped.
    pub fn wait(&self) -> Held {
        self.waiting.hold()
    }

    /// A request that may have had to wait was refused a seat, or has got one.
    pub fn decided(&self, waited: Duration, refusal: Option<Refusal>) {
        self.waited[usize::from(refusal.is_none())].observe(&BOUNDS, waited);
        if let Some(refusal) = refusal {
            self.refused[refusal as usize].add(1);
        }
    }

    /// A request is served, until the guard is dropped.
    pub fn serve(self: &Arc<Self>, watch: bool) -> Served {
        self.dispatched.add(1);
        Served { counts: self.clone(), since: Instant::now(), watch, _held: self.executing.hold() }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.counts.executed[usize::from(!self.watch)].observe(&BOUNDS, self.since.elapsed());
    }
}

/// Tells of levels and flow schemas.
pub fn tell(levels: &[LevelCount], flows: &Family<FlowCounts>, text: &mut Text) {
    let mut of_levels = |name: &str, about: &str, value: fn(&LevelCount) -> u32| {
        text.family(name, Kind::Gauge, about);
        for level in levels {
            text.sample(name, &[("priority_level", &level.name)], value(level).into());
        }
    };
    let about = "Seats that a priority level has of its own.";
    of_levels("apiserver_flowcontrol_nominal_limit_seats", about, |level| level.nominal);
    let about = "Seats of a priority level that are never lent.";
    of_levels("apiserver_flowcontrol_lower_limit_seats", about, |level| level.guaranteed);
    let about = "Seats that a priority level can have at most.";
    of_levels("apiserver_flowcontrol_upper_limit_seats", about, |level| level.most);
    let about = "Seats that a priority level can have now.";
    of_levels("apiserver_flowcontrol_current_limit_seats", about, |level| level.available);
    let flows = flows.all();
    let mut family =
        |name: &str, kind: Kind, about: &str, tell: &dyn Fn(&mut Text, &FlowCounts, &[Label])| {
            text.family(name, kind, about);
            for (values, counts) in &flows {
                tell(text, counts, &[("flow_schema", &values[1]), ("priority_level", &values[0])]);
            }
        };
    let executing = |name: &'static str| {
        move |text: &mut Text, counts: &FlowCounts, labels: &[Label]| {
            text.sample(name, labels, counts.executing.get() as f64);
        }
    };
    family(EXECUTING, Kind::Gauge, "Requests that are being served.", &executing(EXECUTING));
    family(SEATS, Kind::Gauge, "Seats of requests that are being served.", &executing(SEATS));
    family(WAITING, Kind::Gauge, "Requests that wait.", &|text, counts, labels| {
        text.sample(WAITING, labels, counts.waiting.get() as f64);
    });
    family(DISPATCHED, Kind::Counter, "Requests that were let on.", &|text, counts, labels| {
        text.sample(DISPATCHED, labels, counts.dispatched.get() as f64);
    });
    family(REJECTED, Kind::Counter, "Requests that were refused.", &|text, counts, labels| {
        for (refusal, count) in Refusal::ALL.iter().zip(&counts.refused) {
            let labels = [labels, &[("reason", refusal.word())]].concat();
            text.sample(REJECTED, &labels, count.get() as f64);
        }
    });
    let about = "How long requests waited for a seat.";
    family(WAITED, Kind::Histogram, about, &|text, counts, labels| {
        let waits = ["false", "true"].iter().zip(&counts.waited).filter(|(_, waited)| waited.total() > 0);
        for (execute, waited) in waits {
            waited.tell(text, WAITED, &BOUNDS, &[&[("execute", *execute)], labels].concat());
        }
    });
    let about = "How long requests had their seat.";
    family(EXECUTED, Kind::Histogram, about, &|text, counts, labels| {
        let all = ["watch", "regular"].iter().zip(&counts.executed);
        for (of, executed) in all.filter(|(_, executed)| executed.total() > 0) {
            executed.tell(text, EXECUTED, &BOUNDS, &[labels, &[("type", *of)]].concat());
        }
    });
}

type Label<'a> = (&'a str, &'a str);
