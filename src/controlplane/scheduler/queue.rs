//! Pods that wait for a node, by priority and age.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use client::informer::Key;
use rt::Backoff;

/// Between attempts for one Pod, as upstream's `podInitialBackoffSeconds` and `podMaxBackoffSeconds`.
const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(10) };
/// An unschedulable Pod is tried again after this long even if nothing was seen to change.
const FLUSH: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// With the priority it stands under.
    Active(i32),
    Backoff(Instant),
    Unschedulable(Instant),
    InFlight,
}

#[derive(Debug)]
struct Entry {
    priority: i32,
    /// The order of arrival.
    sequence: u64,
    attempts: u32,
    failed: Instant,
    standing: Standing,
    /// How many cluster events there had been when the attempt began.
    events: u64,
}

#[derive(Default)]
struct State {
    entries: HashMap<Key, Entry>,
    active: BTreeSet<(Reverse<i32>, u64, Key)>,
    timers: BTreeSet<(Instant, Key)>,
    /// Those that fitted nowhere, for the next event.
    unschedulable: BTreeSet<Key>,
    sequence: u64,
    events: u64,
}

/// The queue. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct Queue(Arc<(Mutex<State>, Notify)>);

impl Queue {
    /// A Pod that waits is new, or changed in a way that may matter.
    pub(super) fn add(&self, key: Key, priority: i32) {
        let mut state = self.state();
        state.sequence += 1;
        let sequence = state.sequence;
        let now = Instant::now();
        let fresh = || Entry {
            priority,
            sequence,
            attempts: 0,
            failed: now,
            standing: Standing::InFlight,
            events: 0,
        };
        let known = state.entries.contains_key(&key);
        let entry = state.entries.entry(key.clone()).or_insert_with(fresh);
        if known {
            entry.priority = priority;
            state.reconsider(&key, now);
        } else {
            state.put(&key, Standing::Active(priority));
        }
        drop(state);
        self.0.1.notify_one();
    }

    /// The Pod waits no longer.
    pub(super) fn remove(&self, key: &Key) {
        let mut state = self.state();
        state.leave(key);
        state.entries.remove(key);
    }

    /// Something changed by which Pods that fit nowhere may fit now.
    pub(super) fn cluster_changed(&self) {
        let mut state = self.state();
        state.events += 1;
        let now = Instant::now();
        let waiting: Vec<Key> = state.unschedulable.iter().cloned().collect();
        for key in waiting {
            state.reconsider(&key, now);
        }
        drop(state);
        self.0.1.notify_one();
    }

    /// Waits for the Pod whose turn it is. It ends with [`Queue::remove`] or [`Queue::failed`].
    pub(super) async fn pop(&self) -> Key {
        loop {
            let woken = self.0.1.notified();
            let next = {
                let mut state = self.state();
                state.promote(Instant::now());
                if let Some((_, _, key)) = state.active.first().cloned() {
                    state.put(&key, Standing::InFlight);
                    let events = state.events;
                    if let Some(entry) = state.entries.get_mut(&key) {
                        entry.events = events;
                    }
                    return key;
                }
                state.timers.first().map(|(at, _)| *at)
            };
            match next {
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

    /// The attempt failed. With `soon` the cluster is not the reason, and only the back-off is waited for.
    pub(super) fn failed(&self, key: &Key, soon: bool) {
        let mut state = self.state();
        let (now, events) = (Instant::now(), state.events);
        let Some(entry) = state.entries.get_mut(key) else { return };
        entry.attempts = entry.attempts.saturating_add(1);
        entry.failed = now;
        let missed = entry.events != events;
        let standing = if soon || missed {
            Standing::Backoff(now + BACKOFF.delay(entry.attempts))
        } else {
            Standing::Unschedulable(now + FLUSH)
        };
        state.put(key, standing);
        drop(state);
        self.0.1.notify_one();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn leave(&mut self, key: &Key) {
        let Some(entry) = self.entries.get(key) else { return };
        match entry.standing {
            Standing::Active(priority) => {
                self.active.remove(&(Reverse(priority), entry.sequence, key.clone()));
            }
            Standing::Backoff(at) | Standing::Unschedulable(at) => {
                self.timers.remove(&(at, key.clone()));
                self.unschedulable.remove(key);
            }
            Standing::InFlight => {}
        }
    }

    fn put(&mut self, key: &Key, standing: Standing) {
        self.leave(key);
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.standing = standing;
        match standing {
            Standing::Active(priority) => {
                self.active.insert((Reverse(priority), entry.sequence, key.clone()));
            }
            Standing::Backoff(at) => {
                self.timers.insert((at, key.clone()));
            }
            Standing::Unschedulable(at) => {
                self.timers.insert((at, key.clone()));
                self.unschedulable.insert(key.clone());
            }
            Standing::InFlight => {}
        }
    }

    /// Back to the active ones, after what is left of the back-off.
    fn reconsider(&mut self, key: &Key, now: Instant) {
        let Some(entry) = self.entries.get(key) else { return };
        if entry.standing == Standing::InFlight {
            return;
        }
        let until = entry.failed + BACKOFF.delay(entry.attempts);
        let active = Standing::Active(entry.priority);
        self.put(key, if until <= now { active } else { Standing::Backoff(until) });
    }

    fn promote(&mut self, now: Instant) {
        while let Some((at, key)) = self.timers.first().cloned() {
            if at > now {
                return;
            }
            let priority = self.entries.get(&key).map_or(0, |entry| entry.priority);
            self.put(&key, Standing::Active(priority));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    #[tokio::test]
    async fn priority_first_then_age() {
        let queue = Queue::default();
        for (name, priority) in [("a", 0), ("b", 10), ("c", 0)] {
            queue.add(key(name), priority);
        }
        queue.remove(&key("c"));
        queue.add(key("d"), 0);
        let mut order = Vec::new();
        for _ in 0..3 {
            order.push(queue.pop().await.name);
        }
        assert_eq!(order, ["b", "a", "d"]);
    }

    #[tokio::test]
    async fn a_new_priority_is_a_new_turn() {
        let queue = Queue::default();
        for (name, priority) in [("a", 1), ("b", 2)] {
            queue.add(key(name), priority);
        }
        queue.add(key("a"), 3);
        assert_eq!(queue.pop().await.name, "a");
        queue.remove(&key("b"));
        assert!(queue.state().active.is_empty());
    }

    #[tokio::test]
    async fn a_failed_pod_waits_for_an_event() {
        let queue = Queue::default();
        queue.add(key("a"), 0);
        let a = queue.pop().await;
        queue.failed(&a, false);
        assert!(matches!(queue.state().entries[&a].standing, Standing::Unschedulable(_)));
        queue.cluster_changed();
        assert!(matches!(queue.state().entries[&a].standing, Standing::Backoff(_)));
        queue.add(key("b"), 0);
        let b = queue.pop().await;
        queue.cluster_changed();
        queue.failed(&b, false);
        assert!(
            matches!(queue.state().entries[&b].standing, Standing::Backoff(_)),
            "the event came meanwhile"
        );
    }
}
