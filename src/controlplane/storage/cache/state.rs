//! Everything readers see: durable state and recent history, at one revision.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;

use super::history::{History, Limits};
use crate::controlplane::storage::{Entry, Event, EventKind, ListQuery, Listing, StorageError, covers};

/// Everything readers see: durable state and its recent history, at one revision.
#[derive(Debug)]
pub(in crate::controlplane::storage) struct State {
    entries: BTreeMap<Arc<str>, Arc<Entry>>,
    pub(in crate::controlplane::storage) history: History,
    pub(in crate::controlplane::storage) revision: u64,
}

impl State {
    pub(super) fn new(entries: BTreeMap<Arc<str>, Arc<Entry>>, revision: u64, limits: Limits) -> Self {
        Self { entries, history: History::new(limits, revision), revision }
    }

    pub(in crate::controlplane::storage) fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    pub(in crate::controlplane::storage) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.values()
    }

    /// Makes durable events visible, at `now`.
    pub(super) fn apply(&mut self, events: &[Arc<Event>], now: Timestamp) {
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
        self.history.mark(self.revision, now);
    }

    /// `Future` unless `revision` has been reached.
    pub(in crate::controlplane::storage) fn reached(&self, revision: u64) -> Result<(), StorageError> {
        if revision > self.revision {
            return Err(StorageError::Future { asked: revision, current: self.revision });
        }
        Ok(())
    }

    pub(in crate::controlplane::storage) fn list(&self, query: &ListQuery) -> Result<Listing, StorageError> {
        let Some(at) = query.at.filter(|at| *at != self.revision) else {
            return Ok(collect(self.range(query), query, self.revision));
        };
        self.reached(at)?;
        self.history.reaches(&query.prefix, at)?;
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
            .take_while(|(key, _)| covers(&query.prefix, key))
            .map(|(_, entry)| entry)
    }

    /// What stood at `at` under every key of the query's range that has changed since; `None`: nothing did.
    fn undone_since(
        &self,
        query: &ListQuery,
        at: u64,
    ) -> Result<HashMap<&Arc<str>, Option<&Arc<Entry>>>, StorageError> {
        let Some(log) = self.history.log(&query.prefix) else { return Ok(HashMap::new()) };
        let in_range =
            |key: &str| covers(&query.prefix, key) && query.after.as_deref().is_none_or(|after| key > after);
        // Newest first, so that the oldest change of a key has the last word.
        let changed = log.behind(at)?.rev().filter(|event| in_range(&event.entry.key));
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
