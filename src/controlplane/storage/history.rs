use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;

use super::{Event, StorageError};

/// How much history is kept; whichever bound is met first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events.
    pub events: usize,
    /// Bytes of memory that the events hold, estimated.
    pub bytes: usize,
}

/// The events of one scope (the first two segments of the keys, as `/apps/deployments/`), oldest first.
///
/// Watchers read and wait at the lane of their prefix, so what happens in one scope costs the watchers of
/// another nothing: not a wake-up, and not their place in history.
#[derive(Debug)]
pub(super) struct Lane {
    events: VecDeque<Arc<Event>>,
    /// The newest revision that this lane has forgotten; what lies behind it is complete.
    forgotten: u64,
    /// Tells waiting watchers that the lane has grown; its value has no meaning.
    grown: watch::Sender<()>,
}

impl Lane {
    fn new(forgotten: u64) -> Self {
        Self { events: VecDeque::new(), forgotten, grown: watch::Sender::new(()) }
    }

    /// Events behind `revision`, or `Compacted` if some of them are forgotten.
    pub(super) fn behind(
        &self,
        revision: u64,
    ) -> Result<impl DoubleEndedIterator<Item = &Arc<Event>>, StorageError> {
        if revision < self.forgotten {
            return Err(StorageError::Compacted { asked: revision, oldest: self.forgotten });
        }
        let start = self.events.partition_point(|event| event.revision <= revision);
        Ok(self.events.range(start..))
    }

    /// Resolves when the lane grows after this call.
    pub(super) fn subscribe(&self) -> watch::Receiver<()> {
        self.grown.subscribe()
    }

    fn wake(&self) {
        self.grown.send_replace(());
    }
}

/// The bounded history of all keys: one ring over everything, and one lane per scope beside it.
#[derive(Debug)]
pub(super) struct History {
    all: Lane,
    scopes: HashMap<Box<str>, Lane>,
    limits: Limits,
    bytes: usize,
    /// Nothing is known up to here: where this process began, or what `compact` was told.
    compacted: u64,
}

impl History {
    /// An empty history that begins behind `revision`.
    pub(super) fn new(limits: Limits, revision: u64) -> Self {
        let all = Lane::new(revision);
        Self { all, scopes: HashMap::new(), limits, bytes: 0, compacted: revision }
    }

    /// Adds the newest event, and forgets the oldest ones that no longer fit.
    pub(super) fn push(&mut self, event: Arc<Event>) {
        self.bytes += weight(&event);
        if let Some(scope) = scope_of(&event.entry.key) {
            self.scope_mut(scope).events.push_back(event.clone());
        }
        self.all.events.push_back(event);
        while self.all.events.len() > self.limits.events || self.bytes > self.limits.bytes {
            if !self.forget_oldest() {
                break;
            }
        }
    }

    /// Forgets everything up to and including `revision`.
    pub(super) fn compact(&mut self, revision: u64) {
        while self.all.events.front().is_some_and(|event| event.revision <= revision) {
            self.forget_oldest();
        }
        self.compacted = self.compacted.max(revision);
    }

    fn forget_oldest(&mut self) -> bool {
        let Some(event) = self.all.events.pop_front() else { return false };
        self.bytes -= weight(&event);
        self.all.forgotten = event.revision;
        if let Some(lane) = scope_of(&event.entry.key).and_then(|scope| self.scopes.get_mut(scope)) {
            // The oldest event of all is the oldest of its scope too.
            lane.events.pop_front();
            lane.forgotten = event.revision;
        }
        true
    }

    fn scope_mut(&mut self, scope: &str) -> &mut Lane {
        if !self.scopes.contains_key(scope) {
            self.scopes.insert(scope.into(), Lane::new(self.compacted));
        }
        self.scopes.get_mut(scope).expect("it was inserted above")
    }

    /// Where the events of `prefix` stand: the lane of its scope, or, for a prefix wider than a scope, the
    /// ring over everything. `None`: nothing has happened in that scope, and nobody asked for it.
    pub(super) fn lane(&self, prefix: &str) -> Option<&Lane> {
        match scope_of(prefix) {
            Some(scope) => self.scopes.get(scope),
            None => Some(&self.all),
        }
    }

    /// The lane of `prefix`, made if need be.
    pub(super) fn open_lane(&mut self, prefix: &str) -> &Lane {
        match scope_of(prefix) {
            Some(scope) => self.scope_mut(scope),
            None => &self.all,
        }
    }

    /// Whether the state of `prefix` at `revision` can still be told.
    pub(super) fn covers(&self, prefix: &str, revision: u64) -> Result<(), StorageError> {
        let forgotten = self.lane(prefix).map_or(0, |lane| lane.forgotten);
        let oldest = forgotten.max(self.compacted);
        if revision < oldest {
            return Err(StorageError::Compacted { asked: revision, oldest });
        }
        Ok(())
    }

    /// Wakes the watchers of everything in `events`, each lane once.
    pub(super) fn wake(&self, events: &[Arc<Event>]) {
        let mut woken: Vec<&str> = Vec::new();
        for scope in events.iter().filter_map(|event| scope_of(&event.entry.key)) {
            if !woken.contains(&scope) {
                woken.push(scope);
                self.scopes.get(scope).inspect(|lane| lane.wake());
            }
        }
        self.all.wake();
    }

    /// Wakes every watcher.
    pub(super) fn wake_all(&self) {
        self.all.wake();
        self.scopes.values().for_each(Lane::wake);
    }
}

/// The first two segments of a path with all their slashes: `/apps/deployments/` of
/// `/apps/deployments/default/web`. `None` if it is shorter.
fn scope_of(path: &str) -> Option<&str> {
    let (third, _) = path.match_indices('/').nth(2)?;
    path.starts_with('/').then(|| &path[..=third])
}

/// What an event costs in memory, about: its bytes, an encoding of them that readers share, the state before.
fn weight(event: &Event) -> usize {
    let prev = event.prev.as_ref().map_or(0, |prev| prev.data.len());
    256 + event.entry.key.len() + 2 * event.entry.data.len() + prev
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controlplane::storage::{Entry, EventKind, Payload};

    fn put(key: &str, revision: u64) -> Arc<Event> {
        let entry =
            Entry::written(key.into(), Payload::default(), revision, revision, jiff::Timestamp::UNIX_EPOCH);
        Arc::new(Event::new(EventKind::Put, Arc::new(entry), None))
    }

    fn revisions(history: &History, prefix: &str, from: u64) -> Result<Vec<u64>, u64> {
        let lane = history.lane(prefix).expect("a lane");
        match lane.behind(from) {
            Ok(events) => Ok(events.map(|e| e.revision).collect()),
            Err(StorageError::Compacted { oldest, .. }) => Err(oldest),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn scopes_are_the_first_two_segments() {
        let check = |path: &str, expect: Option<&str>| assert_eq!(scope_of(path), expect, "{path}");
        check("/core/pods/default/web", Some("/core/pods/"));
        check("/core/nodes/", Some("/core/nodes/"));
        check("/core/nodes", None);
        check("/", None);
        check("", None);
        check("core/nodes/a/b", None);
    }

    #[test]
    fn a_quiet_scope_keeps_its_place_when_others_are_forgotten() {
        let mut history = History::new(Limits { events: 3, bytes: usize::MAX }, 10);
        history.push(put("/core/nodes/a", 11));
        for revision in 12..20 {
            history.push(put("/core/pods/x", revision));
        }
        assert_eq!(revisions(&history, "/core/pods/", 16), Ok(vec![17, 18, 19]));
        assert_eq!(revisions(&history, "/core/pods/", 15), Err(16));
        assert_eq!(revisions(&history, "/core/nodes/", 10), Err(11));
        assert_eq!(revisions(&history, "/core/nodes/", 11), Ok(vec![]));
        assert_eq!(revisions(&history, "/", 16), Ok(vec![17, 18, 19]));
        assert!(history.covers("/core/nodes/", 11).is_ok());
        assert!(history.covers("/never/seen/", 9).is_err());
    }

    #[test]
    fn bytes_bound_the_history_too() {
        let one = weight(&put("/core/pods/x", 1));
        let mut history = History::new(Limits { events: 100, bytes: 2 * one }, 0);
        (1..=5).for_each(|revision| history.push(put("/core/pods/x", revision)));
        assert_eq!(revisions(&history, "/core/pods/", 3), Ok(vec![4, 5]));
        assert_eq!(history.bytes, 2 * one);
    }

    #[test]
    fn compacting_forgets_up_to_and_including() {
        let mut history = History::new(Limits { events: 100, bytes: usize::MAX }, 0);
        (1..=5).for_each(|revision| history.push(put("/core/pods/x", revision)));
        history.compact(3);
        assert_eq!(revisions(&history, "/core/pods/", 3), Ok(vec![4, 5]));
        assert!(matches!(history.covers("/core/pods/", 2), Err(StorageError::Compacted { oldest: 3, .. })));
        history.compact(1);
        assert!(history.covers("/core/pods/", 3).is_ok());
    }
}
