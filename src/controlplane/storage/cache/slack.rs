//! When the memory that a burst of writes leaves behind goes back to the kernel.

use std::time::{Duration, Instant};

/// So many bytes are to be written before it is worth the while.
const ENOUGH: usize = 16 << 20;
/// Without a write for so long, a burst is over.
const PAUSE: Duration = Duration::from_secs(1);

/// What was written since memory was given back.
#[derive(Debug, Default)]
pub(super) struct Slack {
    written: usize,
    last: Option<Instant>,
}

impl Slack {
    /// Counts a write, and says whether memory is to be given back: much was written before it, and then nothing for a moment.
    pub(super) fn is_due(&mut self, bytes: usize, now: Instant) -> bool {
        let paused = self.last.replace(now).is_some_and(|last| now.duration_since(last) >= PAUSE);
        let due = paused && self.written >= ENOUGH;
        self.written = if due { bytes } else { self.written.saturating_add(bytes) };
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_at_the_first_write_after_a_burst() {
        let (mut slack, start) = (Slack::default(), Instant::now());
        let mut check = |millis: u64, bytes: usize, expect: bool| {
            let due = slack.is_due(bytes, start + Duration::from_millis(millis));
            assert_eq!(due, expect, "{millis} ms, {bytes} bytes");
        };
        check(0, 1000, false);
        check(5000, ENOUGH, false);
        check(5010, 1000, false);
        check(5500, 1000, false);
        check(7000, 1000, true);
        check(9000, 1000, false);
        check(9001, ENOUGH, false);
        check(20_000, 1000, true);
    }
}
