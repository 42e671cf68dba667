use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::history::{History, Limits};
use super::{Entry, Event, EventKind, ListQuery, Listing, StorageError};

/// Everything readers see: durable state and its recent history, at one revision.
#[derive(Debug)]
pub(super) struct State {
    entries: BTreeMap<Arc<str>, Arc<Entry>>,
    pub(super) history: History,
    pub(super) revision: u64,
    /// Why no write can succeed any more; readers may go on, watchers have nothing to wait for.
    pub(super) failed: Option<Arc<str>>,
}

impl State {
    pub(super) fn new(entries: BTreeMap<Arc<str>, Arc<Entry>>, revision: u64, limits: Limits) -> Self {
        Self { entries, history: History::new(limits, revision), revision, failed: None }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// Makes durable events visible.
    pub(super) fn apply(&mut self, events: &[Arc<Event>]) {
        for event in events {
            match event.kind {
                EventKind::Put => {
                    self.entries.insert(event.entry.key.clone(), event.entry.clone());
                }
                EventKind::Delete => {
                    self.entries.remove(&event.entry.key);
                }
            }
            self.revision = event.revision;
            self.history.push(event.clone());
        }
    }

    /// `Future` unless `revision` has been reached.
    pub(super) fn reached(&self, revision: u64) -> Result<(), StorageError> {
        if revision > self.revision {
            return Err(StorageError::Future { asked: revision, current: self.revision });
        }
        Ok(())
    }

    pub(super) fn list(&self, query: &ListQuery) -> Result<Listing, StorageError> {
        let Some(at) = query.at.filter(|at| *at != self.revision) else {
            return Ok(collect(self.range(query), query, self.revision));
        };
        self.reached(at)?;
        self.history.covers(&query.prefix, at)?;
        let undone = self.undone_since(query, at)?;
        if undone.is_empty() {
            return Ok(collect(self.range(query), query, at));
        }
        // Keys that changed since are taken from what stood there then; all others still stand.
        let mut then: BTreeMap<&Arc<str>, &Arc<Entry>> = self
            .range(query)
            .filter(|entry| !undone.contains_key(&entry.key))
            .map(|entry| (&entry.key, entry))
            .collect();
        then.extend(undone.iter().filter_map(|(key, entry)| entry.map(|entry| (*key, entry))));
        Ok(collect(then.into_values(), query, at))
    }

    /// The entries of the query's key range as they stand.
    fn range(&self, query: &ListQuery) -> impl Iterator<Item = &Arc<Entry>> {
        let start: Bound<&str> = match &query.after {
            Some(after) if after.as_str() >= query.prefix.as_str() => Bound::Excluded(after),
            _ => Bound::Included(&query.prefix),
        };
        self.entries
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&query.prefix))
            .map(|(_, entry)| entry)
    }

    /// What stood at `at` under every key of the query's range that has changed since; `None`: nothing did.
    fn undone_since(
        &self,
        query: &ListQuery,
        at: u64,
    ) -> Result<HashMap<&Arc<str>, Option<&Arc<Entry>>>, StorageError> {
        let Some(lane) = self.history.lane(&query.prefix) else { return Ok(HashMap::new()) };
        let in_range = |key: &str| {
            key.starts_with(&query.prefix) && query.after.as_deref().is_none_or(|after| key > after)
        };
        // Newest first, so that the oldest change of a key has the last word.
        let changed = lane.behind(at)?.rev().filter(|event| in_range(&event.entry.key));
        Ok(changed.map(|event| (&event.entry.key, event.prev.as_ref())).collect())
    }
}

/// One page of `entries`, which come in key order.
fn collect<'a>(
    mut entries: impl Iterator<Item = &'a Arc<Entry>>,
    query: &ListQuery,
    revision: u64,
) -> Listing {
    let wanted = |entry: &&Arc<Entry>| query.filter.as_ref().is_none_or(|filter| filter(entry));
    let limit = if query.limit == 0 { usize::MAX } else { query.limit };
    let page: Vec<Arc<Entry>> = entries.by_ref().filter(wanted).take(limit).cloned().collect();
    let mut rest = entries.filter(wanted);
    let next = if page.len() < limit { None } else { rest.next() };
    let remaining = match (&next, &query.filter) {
        (None, _) => Some(0),
        (Some(_), None) => Some(1 + rest.count() as u64),
        (Some(_), Some(_)) => None,
    };
    Listing { entries: page, revision, more: next.is_some(), remaining }
}

/// The state, shared by the writer and all readers.
#[derive(Debug)]
pub(super) struct Shared(RwLock<State>);

impl Shared {
    pub(super) fn new(state: State) -> Self {
        Self(RwLock::new(state))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on there are no more events: waiting watchers are told.
    pub(super) fn fail(&self, reason: Arc<str>) {
        let mut state = self.write();
        state.failed.get_or_insert(reason);
        state.history.wake_all();
    }
}
