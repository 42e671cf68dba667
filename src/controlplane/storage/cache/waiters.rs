//! Who waits for events under which prefix.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::Event;

/// Who waits for events under which prefix: a write wakes the watchers of its own key and of the folders above it, and
/// nobody else, so that a thousand watchers of single objects cost a write to one of them one wake-up.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<HashMap<Box<str>, watch::Sender<()>>>);

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes when something has happened under `prefix` after this call.
    pub(super) fn subscribe(&self, prefix: &str) -> watch::Receiver<()> {
        let mut waiting = self.lock();
        if let Some(sender) = waiting.get(prefix) {
            return sender.subscribe();
        }
        let (sender, receiver) = watch::channel(());
        waiting.insert(prefix.into(), sender);
        receiver
    }

    /// Forgets a prefix whose last subscriber is about to go.
    pub(super) fn unsubscribe(&self, prefix: &str) {
        let mut waiting = self.lock();
        if waiting.get(prefix).is_some_and(|sender| sender.receiver_count() <= 1) {
            waiting.remove(prefix);
        }
    }

    /// Wakes whom one of `events` concerns, each prefix once.
    pub(super) fn wake(&self, events: &[Arc<Event>]) {
        let prefixes: HashSet<&str> = events.iter().flat_map(|event| prefixes_of(&event.entry.key)).collect();
        let waiting = self.lock();
        for sender in prefixes.into_iter().filter_map(|prefix| waiting.get(prefix)) {
            sender.send_replace(());
        }
    }

    /// Wakes everybody.
    pub(super) fn wake_all(&self) {
        self.lock().values().for_each(|sender| sender.send_replace(()));
    }
}

/// Every prefix that covers `key`: the empty one, the folders above it, and itself.
fn prefixes_of(key: &str) -> impl Iterator<Item = &str> {
    let folders = key.match_indices('/').map(|(at, _)| &key[..=at]);
    std::iter::once("").chain(folders).chain((!key.ends_with('/')).then_some(key))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, EventKind, Payload};

    #[test]
    fn a_write_wakes_those_it_concerns_and_no_more() {
        let waiters = Waiters::default();
        let prefixes =
            ["", "/core/pods/", "/core/pods/a/", "/core/pods/a/web", "/core/pods/a/we", "/core/pods/b/"];
        let mut waiting: Vec<_> = prefixes.iter().map(|prefix| waiters.subscribe(prefix)).collect();
        let now = jiff::Timestamp::UNIX_EPOCH;
        let entry = Entry::written("/core/pods/a/web".into(), Payload::default(), 1, 1, now);
        waiters.wake(&[Arc::new(Event::new(EventKind::Put, Arc::new(entry), None))]);
        let mut woken = Vec::new();
        for (prefix, receiver) in prefixes.iter().zip(&mut waiting) {
            if receiver.has_changed().expect("a sender") {
                woken.push(*prefix);
            }
        }
        assert_eq!(woken, ["", "/core/pods/", "/core/pods/a/", "/core/pods/a/web"]);
        prefixes.iter().for_each(|prefix| waiters.unsubscribe(prefix));
        assert!(waiters.lock().is_empty());
    }
}
