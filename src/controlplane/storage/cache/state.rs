//! Everything readers see: durable state and recent history, at one revision.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use jiff::Timestamp;

use super::history::{History, Limits};
use crate::{Entry, Event, EventKind, ListQuery, Listing, StorageError, covers};

/// Everything readers see: durable state and its recent history, at one revision.
#[derive(Debug)]
pub(crate) struct State {
    entries: BTreeMap<Arc<str>, Arc<Entry>>,
    pub(crate) history: History,
    pub(crate) revision: u64,
}

impl State {
    pub(super) fn new(entries: BTreeMap<Arc<str>, Arc<Entry>>, revision: u64, limits: Limits) -> Self {
        Self { entries, history: History::new(limits, revision), revision }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
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
    pub(crate) fn reached(&self, revision: u64) -> Result<(), StorageError> {
        if revision > self.revision {
            return Err(StorageError::Future { asked: revision, current: self.revision });
        }
        Ok(())
    }

    pub(crate) fn list(&self, query: &ListQuery) -> Result<Listing, StorageError> {
        let Some(at) = query.at.filter(|at| *at != self.revision) else {
            return Ok(page(self.range(query), query, self.revision, |last| self.standing(query, last)));
        };
        self.reached(at)?;
        self.history.reaches(&query.prefix, at)?;
        let undone = self.undone_since(query, at)?;
        if undone.is_empty() {
            return Ok(page(self.range(query), query, at, |last| self.standing(query, last)));
        }
        // Keys that changed since are taken from what stood there then; all others still stand. Both come in key order, and
        // no more of them is looked at than the page takes.
        let standing = self.range(query).filter(|entry| !undone.contains_key(&*entry.key)).peekable();
        let then = undone.values().filter_map(|entry| *entry).peekable();
        let rest = |last: &str| self.standing_then(query, &undone, last);
        Ok(page(Merged { standing, then }, query, at, rest))
    }

    /// How many entries stand behind the key `last`.
    fn standing(&self, query: &ListQuery, last: &str) -> usize {
        let after = Some(last.to_owned());
        self.range(&ListQuery { after, prefix: query.prefix.clone(), ..Default::default() }).count()
    }

    /// How many entries stood behind the key `last`: those that stand now, and the difference to then.
    fn standing_then(&self, query: &ListQuery, undone: &Undone<'_>, last: &str) -> usize {
        let changed = undone.range::<str, _>((Bound::Excluded(last), Bound::Unbounded));
        let (mut came, mut went) = (0, 0);
        for (key, then) in changed {
            came += usize::from(then.is_none() && self.entries.contains_key(*key));
            went += usize::from(then.is_some() && !self.entries.contains_key(*key));
        }
        self.standing(query, last) + went - came
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
    fn undone_since(&self, query: &ListQuery, at: u64) -> Result<Undone<'_>, StorageError> {
        let Some(log) = self.history.log(&query.prefix) else { return Ok(BTreeMap::new()) };
        let in_range =
            |key: &str| covers(&query.prefix, key) && query.after.as_deref().is_none_or(|after| key > after);
        // Newest first, so that the oldest change of a key has the last word.
        let changed = log.behind(at)?.rev().filter(|event| in_range(&event.entry.key));
        Ok(changed.map(|event| (&*event.entry.key, event.prev.as_ref())).collect())
    }
}

/// What stood under keys that have changed since.
type Undone<'a> = BTreeMap<&'a str, Option<&'a Arc<Entry>>>;

/// Two runs of entries in key order as one.
struct Merged<A: Iterator, B: Iterator> {
    standing: Peekable<A>,
    then: Peekable<B>,
}

impl<'a, A, B> Iterator for Merged<A, B>
where
    A: Iterator<Item = &'a Arc<Entry>>,
    B: Iterator<Item = &'a Arc<Entry>>,
{
    type Item = &'a Arc<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        match (self.standing.peek(), self.then.peek()) {
            (Some(standing), Some(then)) if then.key < standing.key => self.then.next(),
            (Some(_), _) => self.standing.next(),
            (None, _) => self.then.next(),
        }
    }
}

/// One page of `entries`, which come in key order; `rest` counts what lies behind a key.
fn page<'a>(
    entries: impl Iterator<Item = &'a Arc<Entry>>,
    query: &ListQuery,
    revision: u64,
    rest: impl Fn(&str) -> usize,
) -> Listing {
    let mut entries = entries.filter(|entry| query.filter.as_ref().is_none_or(|filter| filter(entry)));
    let limit = if query.limit == 0 { usize::MAX } else { query.limit };
    let page: Vec<Arc<Entry>> = entries.by_ref().take(limit).cloned().collect();
    let more = page.len() == limit && entries.next().is_some();
    let remaining = match (page.last(), &query.filter) {
        _ if !more => Some(0),
        (Some(last), None) => Some(rest(&last.key) as u64),
        _ => None,
    };
    Listing { entries: page, revision, more, remaining }
}
