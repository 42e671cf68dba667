//! What is counted and measured, and how it is told: Prometheus' text form.
//!
//! Counting is an atomic addition; everything else happens when somebody reads.

mod histogram;
mod process;
mod text;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

pub use histogram::{Amounts, Histogram};
pub use process::process;
pub use text::{Kind, Text};

/// What is told of one part of the process.
type Source = Box<dyn Fn(&mut Text) + Send + Sync>;

/// All that is told at one place. Cloning shares it.
#[derive(Clone, Default)]
pub struct Registry(Arc<Mutex<Vec<Source>>>);

impl Registry {
    /// Adds a source that writes whole families in Prometheus' text form itself, whenever somebody reads.
    pub fn add(&self, render: impl Fn() -> String + Send + Sync + 'static) {
        self.tell(move |text| text.raw(&render()));
    }

    /// Adds what a part of the process tells; it is asked whenever somebody reads.
    pub fn tell(&self, source: impl Fn(&mut Text) + Send + Sync + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(source));
    }

    /// Everything, in Prometheus' text form.
    pub fn render(&self) -> String {
        let mut text = Text::default();
        for source in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            source(&mut text);
        }
        text.finish()
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, number: u64) {
        self.0.fetch_add(number, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Counts one until the guard is dropped.
    pub fn hold(self: &Arc<Self>) -> Held {
        self.0.fetch_add(1, Ordering::Relaxed);
        Held(self.clone())
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// One that a gauge counts.
#[derive(Debug)]
pub struct Held(Arc<Gauge>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The labels' values, and what is counted under them.
type Series<M> = (Vec<String>, Arc<M>);

/// Series of one metric, told apart by their labels' values. Finding one that is there allocates nothing.
#[derive(Debug, Default)]
pub struct Family<M> {
    hasher: RandomState,
    series: RwLock<HashMap<u64, Series<M>>>,
}

impl<M: Default> Family<M> {
    /// The series with these values of the labels.
    pub fn of(&self, values: &[&str]) -> Arc<M> {
        let mut hash = self.hasher.hash_one(values.len());
        for value in values {
            hash = hash.rotate_left(5) ^ self.hasher.hash_one(Part(value));
        }
        if let Some((_, series)) = self.series.read().unwrap_or_else(PoisonError::into_inner).get(&hash) {
            return series.clone();
        }
        let mut all = self.series.write().unwrap_or_else(PoisonError::into_inner);
        let made = || (values.iter().map(|value| (*value).to_owned()).collect(), Arc::default());
        all.entry(hash).or_insert_with(made).1.clone()
    }

    /// Every series with its labels' values, in their order.
    pub fn all(&self) -> Vec<Series<M>> {
        let all = self.series.read().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = all.values().cloned().collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }
}

#[derive(Hash)]
struct Part<'a>(&'a str);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_by_their_labels() {
        let family = Family::<Counter>::default();
        family.of(&["a", "b"]).add(1);
        family.of(&["a", "b"]).add(2);
        family.of(&["ab", ""]).add(5);
        let all: Vec<(Vec<String>, u64)> =
            family.all().into_iter().map(|(labels, counter)| (labels, counter.get())).collect();
        let expect = [(vec!["a", "b"], 3), (vec!["ab", ""], 5)];
        let expect: Vec<(Vec<String>, u64)> =
            expect.map(|(labels, count)| (labels.into_iter().map(str::to_owned).collect(), count)).into();
        assert_eq!(all, expect);
    }

    #[test]
    fn everybody_who_is_added_is_asked() {
        let (registry, gauge) = (Registry::default(), Arc::<Gauge>::default());
        let told = gauge.clone();
        registry.tell(move |text| {
            text.family("things", Kind::Gauge, "What there is.");
            text.sample("things", &[("of", "a\"b")], told.get() as f64);
        });
        let held = gauge.hold();
        assert_eq!(
            registry.render(),
            "# HELP things What there is.\n# TYPE things gauge\nthings{of=\"a\\\"b\"} 1\n"
        );
        drop(held);
        assert!(registry.render().ends_with("things{of=\"a\\\"b\"} 0\n"));
    }
}
