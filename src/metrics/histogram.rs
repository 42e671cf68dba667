//! How measurements are spread over ranges.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Text;

/// Counts of durations below each bound.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    counts: [AtomicU64; N],
    above: AtomicU64,
    microseconds: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            above: AtomicU64::new(0),
            microseconds: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Histogram<N> {
    /// Counts a duration; `bounds` (seconds, ascending) are the same at every call.
    pub fn observe(&self, bounds: &[f64; N], took: Duration) {
        let seconds = took.as_secs_f64();
        let at = bounds.iter().position(|bound| seconds <= *bound);
        at.map_or(&self.above, |at| &self.counts[at]).fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(microseconds, Ordering::Relaxed);
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
        let seconds = self.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        text.sample(&format!("{name}_sum"), labels, seconds);
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
    }
}
