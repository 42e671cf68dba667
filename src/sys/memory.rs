//! The allocator's memory: what it may keep of what the program has freed.

use std::time::Duration;

use rt::Tasks;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(10);
/// So many bytes more than after the last time must lie idle before it is worth the while.
const ENOUGH: usize = 8 << 20;
/// Threads share so many heaps. Each heap keeps its own gaps, and two threads do most of the work.
#[cfg(target_env = "gnu")]
const HEAPS: i32 = 2;
/// What is as large as this has pages of its own, which go back at once. Said, so that the bound does not grow by itself: a
/// document of some MiB would leave a gap of some MiB in a heap.
#[cfg(target_env = "gnu")]
const OWN_PAGES: i32 = 1 << 20;

/// What lies free at the end of a heap goes back at once beyond this.
#[cfg(target_env = "gnu")]
const AT_THE_END: i32 = 4 << 20;

/// Bounds how much the allocator keeps for later. To be called before there are threads.
pub fn bound() {
    #[cfg(target_env = "gnu")]
    // SAFETY: all are known parameters with values in their range; no other thread allocates yet.
    unsafe {
        nix::libc::mallopt(nix::libc::M_ARENA_MAX, HEAPS);
        nix::libc::mallopt(nix::libc::M_MMAP_THRESHOLD, OWN_PAGES);
        // Saying one of the two fixes the other as well, where it is so small that busy heaps would grow and shrink all the time.
        nix::libc::mallopt(nix::libc::M_TRIM_THRESHOLD, AT_THE_END);
    }
}

/// Gives memory back to the kernel, as long as the tasks run, whenever much of it lies idle: the allocator keeps it otherwise, for
/// a next time that may never come.
pub fn keep_slim(tasks: &Tasks) {
    tasks.spawn_until_stop(async {
        let mut idle = Idle::default();
        let mut every = tokio::time::interval(EVERY);
        loop {
            every.tick().await;
            if slack().is_some_and(|now| idle.is_due(now)) {
                give_back();
                idle.left(slack().unwrap_or_default());
            }
        }
    });
}

/// How much lay idle when memory was given back: gaps that are smaller than a page stay.
#[derive(Debug, Default)]
struct Idle(usize);

impl Idle {
    /// Whether so much lies idle now that some is to go back.
    fn is_due(&mut self, now: usize) -> bool {
        self.0 = self.0.min(now);
        now - self.0 >= ENOUGH
    }

    fn left(&mut self, now: usize) {
        self.0 = now;
    }
}

/// Bytes of memory that the process has and the program does not use: what is resident and no file's, without what is handed out.
/// `None` where that cannot be told.
#[cfg(target_env = "gnu")]
fn slack() -> Option<usize> {
    const PAGE: usize = 4096;
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split(' ').skip(1).map(str::parse::<usize>);
    let (resident, shared) = (pages.next()?.ok()?, pages.next()?.ok()?);
    // SAFETY: it has no precondition.
    let info = unsafe { nix::libc::mallinfo2() };
    Some((resident.saturating_sub(shared) * PAGE).saturating_sub(info.uordblks + info.hblkhd))
}

#[cfg(not(target_env = "gnu"))]
fn slack() -> Option<usize> {
    None
}

/// Takes some milliseconds for a hundred MiB, in which others' allocations wait.
fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it has no precondition and may be called at any time from any thread.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_back_when_much_more_lies_idle_than_after_the_last_time() {
        let mut idle = Idle::default();
        assert!(idle.is_due(ENOUGH));
        idle.left(ENOUGH);
        assert!(!idle.is_due(2 * ENOUGH - 1), "gaps that cannot go back are not tried again");
        assert!(!idle.is_due(ENOUGH / 2), "gaps were filled");
        assert!(idle.is_due(ENOUGH / 2 + ENOUGH));
    }

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_was_freed_is_seen_and_goes_back() {
        const PIECE: usize = 1000;
        let pieces: Vec<Vec<u8>> = (0..64 * 1024).map(|_| vec![1; PIECE]).collect();
        // One in a hundred stays, so that nothing goes back by itself.
        let kept: Vec<Vec<u8>> = pieces.into_iter().step_by(100).collect();
        let before = slack().expect("a kernel that tells");
        assert!(before > 48 << 20, "{before}");
        give_back();
        let after = slack().expect("a kernel that tells");
        assert!(after < before / 2, "{before} {after}");
        assert_eq!(kept.len(), 656);
    }
}
