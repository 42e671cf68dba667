//! What the controllers' queues have done, under upstream's metric names.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

type Depth = Box<dyn Fn() -> usize + Send + Sync>;

/// The counters of one controller.
#[derive(Default)]
pub(super) struct Counters {
    attempts: AtomicU64,
    nanoseconds: AtomicU64,
    retries: AtomicU64,
    panics: AtomicU64,
    depth: OnceLock<Depth>,
}

impl Counters {
    /// How the number of keys that wait is found out.
    pub(super) fn measure_depth(&self, depth: impl Fn() -> usize + Send + Sync + 'static) {
        // A controller is put together once; a second queue of the same name is not counted.
        let _ = self.depth.set(Box::new(depth));
    }

    /// A key was worked on for so long.
    pub(super) fn worked(&self, took: Duration) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
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
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, series: &str, value: &dyn Fn(&Counters) -> String| {
            if !kind.is_empty() {
                let _ = writeln!(text, "# TYPE {name} {kind}");
            }
            for (controller, counters) in &all {
                let _ = writeln!(text, "{series}{{name=\"{controller}\"}} {}", value(counters));
            }
        };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed).to_string();
        family("workqueue_depth", "gauge", "workqueue_depth", &|c| {
            c.depth.get().map_or(0, |depth| depth()).to_string()
        });
        let retries = "workqueue_retries_total";
        family(retries, "counter", retries, &|c| count(&c.retries));
        let panics = "minik_controller_panics_total";
        family(panics, "counter", panics, &|c| count(&c.panics));
        let work = "workqueue_work_duration_seconds";
        family(work, "summary", "workqueue_work_duration_seconds_sum", &|c| {
            Duration::from_nanos(c.nanoseconds.load(Ordering::Relaxed)).as_secs_f64().to_string()
        });
        family(work, "", "workqueue_work_duration_seconds_count", &|c| count(&c.attempts));
        text
    }
}
