//! How measurements are spread over ranges.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Text;

/// Counts of amounts below each bound. They are summed up in parts, of which `PARTS` are one of what is told: durations in
/// microseconds, sizes in bytes, ages in seconds.
#[derive(Debug)]
pub struct Histogram<const N: usize, const PARTS: u64 = 1_000_000> {
    counts: [AtomicU64; N],
    above: AtomicU64,
    parts: AtomicU64,
}

/// Counts of whole amounts (bytes, seconds) below each bound.
pub type Amounts<const N: usize> = Histogram<N, 1>;

impl<const N: usize, const PARTS: u64> Default for Histogram<N, PARTS> {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            above: AtomicU64::new(0),
            parts: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Histogram<N> {
    /// Counts a duration; `bounds` (seconds, ascending) are the same at every call.
    pub fn observe(&self, bounds: &[f64; N], took: Duration) {
        self.count(bounds, took.as_secs_f64(), u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }
}

impl<const N: usize> Amounts<N> {
    /// Counts an amount; `bounds` (ascending) are the same at every call.
    pub fn observe_amount(&self, bounds: &[f64; N], amount: u64) {
        self.count(bounds, amount as f64, amount);
    }
}

impl<const N: usize, const PARTS: u64> Histogram<N, PARTS> {
    fn count(&self, bounds: &[f64; N], amount: f64, parts: u64) {
        let at = bounds.iter().position(|bound| amount <= *bound);
        at.map_or(&self.above, |at| &self.counts[at]).fetch_add(1, Ordering::Relaxed);
        self.parts.fetch_add(parts, Ordering::Relaxed);
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().chain([&self.above]).map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Tells it as one series of a histogram.
    pub fn tell(&self, text: &mut Text, name: &str, bounds: &[f64; N], labels: &[(&str, &str)]) {
        let mut total = 0;
        let mut bucket = |total: u64, bound: &str| {
            let labels = [labels, &[("le", bound)]].concat();
            text.sample(&format!("{name}_bucket"), &labels, total as f64);
        };
        for (count, bound) in self.counts.iter().zip(bounds) {
            total += count.load(Ordering::Relaxed);
            bucket(total, &bound.to_string());
        }
        total += self.above.load(Ordering::Relaxed);
        bucket(total, "+Inf");
        let sum = self.parts.load(Ordering::Relaxed) as f64 / PARTS as f64;
        text.sample(&format!("{name}_sum"), labels, sum);
        text.sample(&format!("{name}_count"), labels, total as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up() {
        let (histogram, bounds) = (Histogram::<2>::default(), [0.1, 1.0]);
        for milliseconds in [50, 100, 500, 2000] {
            histogram.observe(&bounds, Duration::from_millis(milliseconds));
        }
        let mut text = Text::default();
        histogram.tell(&mut text, "t", &bounds, &[("a", "b")]);
        let expect = "t_bucket{a=\"b\",le=\"0.1\"} 2\nt_bucket{a=\"b\",le=\"1\"} 3\n\
            t_bucket{a=\"b\",le=\"+Inf\"} 4\nt_sum{a=\"b\"} 2.65\nt_count{a=\"b\"} 4\n";
        assert_eq!(text.finish(), expect);

        let (sizes, bounds) = (Amounts::<1>::default(), [1000.0]);
        assert_eq!(sizes.total(), 0);
        sizes.observe_amount(&bounds, 1000);
        sizes.observe_amount(&bounds, 1001);
        let mut text = Text::default();
        sizes.tell(&mut text, "t", &bounds, &[]);
        let expect = "t_bucket{le=\"1000\"} 1\nt_bucket{le=\"+Inf\"} 2\nt_sum 2001\nt_count 2\n";
        assert_eq!((text.finish().as_str(), sizes.total()), (expect, 2));
    }
}
