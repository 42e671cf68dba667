//! The work-queue of a control loop: every key once, none twice at a time, retries with back-off.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use metrics::{Counter, Histogram};
use rt::Backoff;

/// Between retries of one key, as upstream's controllers wait.
const RETRY: Backoff = Backoff { first: Duration::from_millis(5), max: Duration::from_secs(60) };

/// Upstream's bounds of durations in work-queues, in seconds.
pub const BOUNDS: [f64; 10] = [1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0];

/// What was asked of a queue.
#[derive(Default)]
pub struct Asked {
    /// Wishes for work on a key that was not wished for already.
    pub adds: Counter,
    /// From such a wish until a worker took the key; over [`BOUNDS`].
    pub waits: Histogram<10>,
}

/// What a queue holds at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Keys that are ready to be worked on.
    pub depth: usize,
    /// For how long those that are worked on have been, together.
    pub unfinished: Duration,
    /// And the one of them that has been longest.
    pub longest: Duration,
}

struct State<T> {
    ready: VecDeque<T>,
    /// Keys that need work: those in `ready`, and those that were added while they were worked on.
    dirty: HashSet<T>,
    /// What is worked on, and since when.
    busy: HashMap<T, Instant>,
    waiting: BTreeSet<(Instant, T)>,
    due: HashMap<T, Instant>,
    failures: HashMap<T, u32>,
    /// Since when the dirty keys are.
    since: HashMap<T, Instant>,
    asked: Arc<Asked>,
}

struct Inner<T> {
    state: Mutex<State<T>>,
    wake: Notify,
}

/// A queue of keys. Cloning shares it.
///
/// ```text
/// add -> ready --next()--> busy --done()--> gone, or ready again if it was added meanwhile
/// ```
pub struct Queue<T>(Arc<Inner<T>>);

impl<T> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            busy: HashMap::new(),
            waiting: BTreeSet::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            since: HashMap::new(),
            asked: Arc::default(),
        };
        Self(Arc::new(Inner { state: Mutex::new(state), wake: Notify::new() }))
    }
}

impl<T: Clone + Eq + Hash + Ord> Queue<T> {
    /// Asks for work on a key, now.
    pub fn add(&self, key: T) {
        if self.state().add(key) {
            self.0.wake.notify_one();
        }
    }

    /// Asks for work on a key after a delay; the earliest of several such wishes counts.
    pub fn add_after(&self, key: T, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let at = Instant::now() + delay;
        let mut state = self.state();
        match state.due.get(&key) {
            Some(due) if *due <= at => return,
            Some(due) => {
                let old = (*due, key.clone());
                state.waiting.remove(&old);
            }
            None => {}
        }
        state.due.insert(key.clone(), at);
        state.waiting.insert((at, key));
        drop(state);
        self.0.wake.notify_one();
    }

    /// Asks for work on a key that failed, later with every failure in a row.
    pub fn retry(&self, key: T) {
        let failures = {
            let mut state = self.state();
            let failures = state.failures.entry(key.clone()).or_default();
            *failures = failures.saturating_add(1);
            *failures
        };
        self.add_after(key, RETRY.delay(failures));
    }

    /// Forgets a key's failures.
    pub fn forget(&self, key: &T) {
        self.state().failures.remove(key);
    }

    /// Waits for a key. Whoever takes it gives it back with [`Queue::done`].
    pub async fn next(&self) -> T {
        loop {
            let woken = self.0.wake.notified();
            let due = {
                let mut state = self.state();
                state.promote(Instant::now());
                if let Some(key) = state.take() {
                    let more = !state.ready.is_empty() || !state.waiting.is_empty();
                    drop(state);
                    if more {
                        // Another worker takes over the rest, timers included.
                        self.0.wake.notify_one();
                    }
                    return key;
                }
                state.waiting.first().map(|(at, _)| *at)
            };
            match due {
                Some(at) => {
                    tokio::select! {
                        () = woken => {}
                        () = tokio::time::sleep_until(at) => {}
                    }
                }
                None => woken.await,
            }
        }
    }

    /// Gives a key back; if it was added meanwhile it is ready again.
    pub fn done(&self, key: &T) {
        let mut state = self.state();
        state.busy.remove(key);
        if state.dirty.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.0.wake.notify_one();
        }
    }

    /// What the queue holds now.
    pub fn load(&self) -> Load {
        let state = self.state();
        let mut load = Load { depth: state.ready.len(), ..Load::default() };
        for since in state.busy.values() {
            let worked = since.elapsed();
            load.unfinished += worked;
            load.longest = load.longest.max(worked);
        }
        load
    }

    /// What was asked of it.
    pub fn asked(&self) -> Arc<Asked> {
        Arc::clone(&self.state().asked)
    }

    /// How many keys are ready or wait for their time.
    pub fn len(&self) -> usize {
        let state = self.state();
        state.ready.len() + state.waiting.len()
    }

    /// True when no key is ready or waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone + Eq + Hash + Ord> State<T> {
    /// True when a worker should wake.
    fn add(&mut self, key: T) -> bool {
        if !self.dirty.insert(key.clone()) {
            return false;
        }
        self.asked.adds.add(1);
        self.since.insert(key.clone(), Instant::now());
        if self.busy.contains_key(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn promote(&mut self, now: Instant) {
        while self.waiting.first().is_some_and(|(at, _)| *at <= now) {
            if let Some((_, key)) = self.waiting.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn take(&mut self) -> Option<T> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        let now = Instant::now();
        if let Some(since) = self.since.remove(&key) {
            self.asked.waits.observe(&BOUNDS, now - since);
        }
        self.busy.insert(key.clone(), now);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_there_once_and_comes_back_if_added_while_busy() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        assert!(queue.is_empty());
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test]
    async fn wishes_are_counted_once_and_timed() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        queue.add_after("b", Duration::from_secs(900));
        assert_eq!((queue.load().depth, queue.len(), queue.asked().adds.get()), (1, 2, 1));
        assert_eq!(queue.load().longest, Duration::ZERO);
        queue.next().await;
        let load = queue.load();
        assert!(load.longest > Duration::ZERO && load.unfinished == load.longest, "{load:?}");
        queue.add("a");
        queue.done(&"a");
        queue.next().await;
        assert_eq!((queue.load().depth, queue.asked().adds.get()), (0, 2));
        let mut text = metrics::Text::default();
        queue.asked().waits.tell(&mut text, "waits", &BOUNDS, &[]);
        assert!(text.finish().ends_with("waits_count 2\n"));
    }

    #[tokio::test]
    async fn the_earliest_timer_counts_and_failures_wait_longer() {
        let queue = Queue::default();
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(900));
        queue.add_after("a", Duration::from_millis(3));
        queue.add_after("a", Duration::from_secs(500));
        assert_eq!(queue.next().await, "a");
        assert!(start.elapsed() < Duration::from_secs(100));
        queue.done(&"a");
        assert!(queue.is_empty());
        for expect in [5, 10, 20] {
            let start = Instant::now();
            queue.retry("b");
            assert_eq!(queue.next().await, "b");
            assert!(start.elapsed() >= Duration::from_millis(expect), "{expect}");
            queue.done(&"b");
        }
    }
}
