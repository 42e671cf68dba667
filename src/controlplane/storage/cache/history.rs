//! The bounded history of events.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::{Event, StorageError};

/// How much history is kept; whichever bound is met first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Events.
    pub events: usize,
    /// Bytes of memory that the events hold, estimated.
    pub bytes: usize,
    /// Time since the event.
    pub age: Duration,
    /// How long an event is fresh: readers that are slow, and lists that are read in pages, come back for it.
    pub fresh: Duration,
    /// Bytes that events may hold together once the oldest is no longer fresh: a burst is forgotten when everybody has seen it.
    pub settled: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // Upstream compacts every five minutes; a reader may then be up to ten behind.
        let (age, fresh) = (Duration::from_secs(600), Duration::from_secs(30));
        Self { events: 100_000, bytes: 64 << 20, age, fresh, settled: 16 << 20 }
    }
}

/// The events of one scope (the first two segments of the keys, as `/apps/deployments/`), oldest first.
///
/// Watchers read the log of their prefix, so what happens in one scope does not cost the watchers of another their place
/// in history.
#[derive(Debug)]
pub(super) struct EventLog {
    events: VecDeque<Arc<Event>>,
    /// The newest revision that this log has forgotten; what lies behind it is complete.
    forgotten: u64,
}

impl EventLog {
    fn new(forgotten: u64) -> Self {
        Self { events: VecDeque::new(), forgotten }
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
}

/// The bounded history of all keys: one log over everything, and one per scope beside it.
#[derive(Debug)]
pub(crate) struct History {
    all: EventLog,
    scopes: HashMap<Box<str>, EventLog>,
    limits: Limits,
    bytes: usize,
    /// Nothing is known up to here: where this process began, or what `compact` was told.
    compacted: u64,
    /// When which revision had been reached, oldest first: of what is no longer fresh, and of what is.
    marks: VecDeque<(Timestamp, u64)>,
    fresh: VecDeque<(Timestamp, u64)>,
}

impl History {
    /// An empty history that begins behind `revision`.
    pub(super) fn new(limits: Limits, revision: u64) -> Self {
        let (marks, fresh) = (VecDeque::new(), VecDeque::new());
        let all = EventLog::new(revision);
        Self { all, scopes: HashMap::new(), limits, bytes: 0, compacted: revision, marks, fresh }
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

    /// Notes that `revision` has been reached at `now`, and forgets what has become too old.
    pub(super) fn mark(&mut self, revision: u64, now: Timestamp) {
        let since = |at: Timestamp, age: Duration| at < now && now.duration_since(at).unsigned_abs() > age;
        match self.fresh.back_mut() {
            // A mark a second is enough.
            Some((at, reached)) if !since(*at, Duration::from_secs(1)) => *reached = revision,
            _ => self.fresh.push_back((now, revision)),
        }
        let Limits { age, fresh, settled, .. } = self.limits;
        while let Some(mark) = self.fresh.pop_front_if(|(at, _)| since(*at, fresh)) {
            self.marks.push_back(mark);
        }
        while let Some((_, reached)) = self.marks.pop_front_if(|(at, _)| since(*at, age)) {
            while self.forget_up_to(reached) {}
        }
        if let Some((_, reached)) = self.marks.back() {
            let reached = *reached;
            while self.bytes > settled && self.forget_up_to(reached) {}
        }
    }

    /// Forgets the oldest event, if it is not newer than `revision`; says whether it did.
    fn forget_up_to(&mut self, revision: u64) -> bool {
        self.all.events.front().is_some_and(|event| event.revision <= revision) && self.forget_oldest()
    }

    /// Forgets everything up to and including `revision`.
    pub(crate) fn compact(&mut self, revision: u64) {
        while self.forget_up_to(revision) {}
        self.compacted = self.compacted.max(revision);
    }

    fn forget_oldest(&mut self) -> bool {
        let Some(event) = self.all.events.pop_front() else { return false };
        self.bytes -= weight(&event);
        self.all.forgotten = event.revision;
        if let Some(log) = scope_of(&event.entry.key).and_then(|scope| self.scopes.get_mut(scope)) {
            // The oldest event of all is the oldest of its scope too.
            log.events.pop_front();
            log.forgotten = event.revision;
        }
        true
    }

    fn scope_mut(&mut self, scope: &str) -> &mut EventLog {
        if !self.scopes.contains_key(scope) {
            self.scopes.insert(scope.into(), EventLog::new(self.compacted));
        }
        self.scopes.get_mut(scope).expect("it was inserted above")
    }

    /// Where the events of `prefix` stand: the log of its scope, or, for a prefix wider than a scope, the
    /// one over everything. `None`: nothing has happened in that scope.
    pub(super) fn log(&self, prefix: &str) -> Option<&EventLog> {
        match scope_of(prefix) {
            Some(scope) => self.scopes.get(scope),
            None => Some(&self.all),
        }
    }

    /// Whether the state of `prefix` at `revision` can still be told; `Compacted` if not.
    pub(super) fn reaches(&self, prefix: &str, revision: u64) -> Result<(), StorageError> {
        let forgotten = self.log(prefix).map_or(0, |log| log.forgotten);
        let oldest = forgotten.max(self.compacted);
        if revision < oldest {
            return Err(StorageError::Compacted { asked: revision, oldest });
        }
        Ok(())
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
    use crate::{Entry, EventKind, Payload};

    fn put(key: &str, revision: u64) -> Arc<Event> {
        let entry =
            Entry::written(key.into(), Payload::default(), revision, revision, jiff::Timestamp::UNIX_EPOCH);
        Arc::new(Event::new(EventKind::Put, Arc::new(entry), None))
    }

    fn revisions(history: &History, prefix: &str, from: u64) -> Result<Vec<u64>, u64> {
        let log = history.log(prefix).expect("an event log");
        match log.behind(from) {
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
        let mut history = History::new(Limits { events: 3, ..Limits::default() }, 10);
        history.push(put("/core/nodes/a", 11));
        for revision in 12..20 {
            history.push(put("/core/pods/x", revision));
        }
        assert_eq!(revisions(&history, "/core/pods/", 16), Ok(vec![17, 18, 19]));
        assert_eq!(revisions(&history, "/core/pods/", 15), Err(16));
        assert_eq!(revisions(&history, "/core/nodes/", 10), Err(11));
        assert_eq!(revisions(&history, "/core/nodes/", 11), Ok(vec![]));
        assert_eq!(revisions(&history, "/", 16), Ok(vec![17, 18, 19]));
        assert!(history.reaches("/core/nodes/", 11).is_ok());
        assert!(history.reaches("/never/seen/", 9).is_err());
    }

    #[test]
    fn bytes_bound_the_history_too() {
        let one = weight(&put("/core/pods/x", 1));
        let mut history = History::new(Limits { events: 100, bytes: 2 * one, ..Limits::default() }, 0);
        (1..=5).for_each(|revision| history.push(put("/core/pods/x", revision)));
        assert_eq!(revisions(&history, "/core/pods/", 3), Ok(vec![4, 5]));
        assert_eq!(history.bytes, 2 * one);
    }

    #[test]
    fn compacting_forgets_up_to_and_including() {
        let mut history = History::new(Limits { events: 100, ..Limits::default() }, 0);
        (1..=5).for_each(|revision| history.push(put("/core/pods/x", revision)));
        history.compact(3);
        assert_eq!(revisions(&history, "/core/pods/", 3), Ok(vec![4, 5]));
        assert!(matches!(history.reaches("/core/pods/", 2), Err(StorageError::Compacted { oldest: 3, .. })));
        history.compact(1);
        assert!(history.reaches("/core/pods/", 3).is_ok());
    }
    #[test]
    fn what_is_too_old_is_forgotten_and_quiet_scopes_keep_their_place() {
        let mut history = History::new(Limits { age: Duration::from_secs(60), ..Limits::default() }, 0);
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        for revision in 1..=5 {
            history.push(put(if revision == 2 { "/core/nodes/a" } else { "/core/pods/x" }, revision));
            history.mark(revision, at(30 * revision as i64));
        }
        // The last one came at 150 s: older than 90 s are the first two.
        assert_eq!(revisions(&history, "/core/pods/", 2), Ok(vec![3, 4, 5]));
        assert_eq!(revisions(&history, "/core/pods/", 0), Err(1));
        assert_eq!(revisions(&history, "/core/nodes/", 2), Ok(vec![]));
        assert_eq!(revisions(&history, "/", 1), Err(2));
        // A clock that was set back forgets nothing.
        history.push(put("/core/pods/x", 6));
        history.mark(6, at(0));
        assert_eq!(revisions(&history, "/", 2), Ok(vec![3, 4, 5, 6]));
    }

    #[test]
    fn of_a_burst_little_stays_once_everybody_has_seen_it() {
        let one = weight(&put("/core/pods/x", 1));
        let fresh = Duration::from_secs(30);
        let mut history = History::new(Limits { fresh, settled: 3 * one, ..Limits::default() }, 0);
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        for revision in 1..=10 {
            history.push(put("/core/pods/x", revision));
            history.mark(revision, at(0));
        }
        history.mark(10, at(30));
        assert_eq!(revisions(&history, "/", 0).map(|all| all.len()), Ok(10), "readers may come back");
        history.push(put("/core/pods/x", 11));
        history.mark(11, at(31));
        assert_eq!(revisions(&history, "/", 8), Ok(vec![9, 10, 11]));
        assert_eq!(revisions(&history, "/", 7), Err(8));
    }
}
