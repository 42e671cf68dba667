//! What the controllers' queues have done, under upstream's metric names.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ::metrics::{Histogram, Kind, Text};
use client::queue::{Asked, BOUNDS, Load};

type Measure = Box<dyn Fn() -> Load + Send + Sync>;

/// The counters of one controller.
#[derive(Default)]
pub(super) struct Counters {
    work: Histogram<10>,
    retries: AtomicU64,
    panics: AtomicU64,
    queue: OnceLock<(Arc<Asked>, Measure)>,
}

impl Counters {
    /// What is asked of the queue, and how it is found out what it holds.
    pub(super) fn measure(&self, asked: Arc<Asked>, load: impl Fn() -> Load + Send + Sync + 'static) {
        // A controller is put together once; a second queue of the same name is not counted.
        let _ = self.queue.set((asked, Box::new(load)));
    }

    fn load(&self) -> Load {
        self.queue.get().map(|(_, load)| load()).unwrap_or_default()
    }

    /// A key was worked on for so long.
    pub(super) fn worked(&self, took: Duration) {
        self.work.observe(&BOUNDS, took);
    }

    /// A key failed and is tried again.
    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// A reconciler panicked.
    pub(super) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }
}

/// The counters of all controllers, by name. Cloning shares them.
#[derive(Clone, Default)]
pub struct Metrics(Arc<Mutex<BTreeMap<&'static str, Arc<Counters>>>>);

impl Metrics {
    pub(super) fn counters(&self, name: &'static str) -> Arc<Counters> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(name).or_default())
    }

    /// Returns everything in Prometheus' text form.
    pub fn render(&self) -> String {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut text = Text::default();
        let mut family = |name: &str, kind: Kind, about: &str, value: &dyn Fn(&Counters) -> f64| {
            text.family(name, kind, about);
            for (controller, counters) in &all {
                text.sample(name, &[("name", controller)], value(counters));
            }
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed) as f64;
        let about = "Keys that wait in a controller's queue.";
        family("workqueue_depth", Kind::Gauge, about, &|c| c.load().depth as f64);
        let about = "For how long a controller has been working on keys that it has not finished.";
        let name = "workqueue_unfinished_work_seconds";
        family(name, Kind::Gauge, about, &|c| c.load().unfinished.as_secs_f64());
        let about = "For how long a controller has been working on the key that takes it longest.";
        let name = "workqueue_longest_running_processor_seconds";
        family(name, Kind::Gauge, about, &|c| c.load().longest.as_secs_f64());
        family("workqueue_adds_total", Kind::Counter, "Keys that a controller was asked to work on.", &|c| {
            c.queue.get().map_or(0.0, |(asked, _)| asked.adds.get() as f64)
        });
        let about = "Keys that a controller tries again because they failed.";
        family("workqueue_retries_total", Kind::Counter, about, &|c| count(&c.retries));
        let about = "Reconcilers that panicked.";
        family("minik_controller_panics_total", Kind::Counter, about, &|c| count(&c.panics));
        let work = "workqueue_work_duration_seconds";
        text.family(work, Kind::Histogram, "How long a controller works on a key.");
        for (controller, counters) in &all {
            counters.work.tell(&mut text, work, &BOUNDS, &[("name", controller)]);
        }
        let wait = "workqueue_queue_duration_seconds";
        text.family(wait, Kind::Histogram, "How long a key waits for its controller.");
        for (controller, counters) in &all {
            if let Some((asked, _)) = counters.queue.get() {
                asked.waits.tell(&mut text, wait, &BOUNDS, &[("name", controller)]);
            }
        }
        text.finish()
    }
}
