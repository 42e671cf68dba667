//! Which proposals of a batch can be written: a pure function of the state.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::{StorageError, Written};
use crate::cache::State;
use crate::{Entry, Event, EventKind, Payload, Turn};

/// A write and its precondition.
#[derive(Debug)]
pub(crate) enum Write {
    Create(Payload),
    UpdateIf(u64, Payload),
    DeleteIf(u64),
}

impl Write {
    /// How many bytes it holds until it is written.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Create(payload) | Self::UpdateIf(_, payload) => payload.data.len(),
            Self::DeleteIf(_) => 0,
        }
    }

    /// The turn that it is made in.
    pub(super) fn turn(&self) -> Option<&Turn> {
        match self {
            Self::Create(payload) | Self::UpdateIf(_, payload) => payload.turn.as_ref(),
            Self::DeleteIf(_) => None,
        }
    }
}

/// What one transaction will do, built write by write: each sees the ones before it. Nothing of it is
/// visible to readers until it is durable.
pub(super) struct Plan<'a> {
    state: &'a State,
    now: Timestamp,
    touched: HashMap<Arc<str>, Option<Arc<Entry>>>,
    revision: u64,
    events: Vec<Arc<Event>>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(state: &'a State, now: Timestamp) -> Self {
        Self { state, now, touched: HashMap::new(), revision: state.revision, events: Vec::new() }
    }

    /// Checks the precondition and, if it holds, takes the write in. Returns what the writer will be told
    /// once the plan is durable.
    pub(super) fn add(&mut self, key: String, write: Write) -> Written {
        let current = self.current(&key);
        match (write, current) {
            (Write::Create(_), Some(_)) => Err(StorageError::Exists(key)),
            (Write::Create(payload), None) => Ok(self.put(key.into(), payload, None)),
            (Write::UpdateIf(expected, payload), Some(prev)) if prev.revision == expected => {
                Ok(self.put(prev.key.clone(), payload, Some(prev)))
            }
            (Write::DeleteIf(expected), Some(prev)) if prev.revision == expected => Ok(self.delete(prev)),
            (Write::UpdateIf(..) | Write::DeleteIf(_), current) => Err(StorageError::Conflict(current)),
        }
    }

    /// Deletes `key` if its time to live has passed.
    pub(super) fn expire(&mut self, key: &str) {
        if let Some(prev) = self.current(key)
            && prev.expires.is_some_and(|at| at <= self.now)
        {
            self.delete(prev);
        }
    }

    /// The changes, in revision order.
    pub(super) fn into_events(self) -> Vec<Arc<Event>> {
        self.events
    }

    fn current(&self, key: &str) -> Option<Arc<Entry>> {
        match self.touched.get(key) {
            Some(entry) => entry.clone(),
            None => self.state.get(key).cloned(),
        }
    }

    fn put(&mut self, key: Arc<str>, payload: Payload, prev: Option<Arc<Entry>>) -> Arc<Entry> {
        self.revision += 1;
        let created = prev.as_ref().map_or(self.revision, |prev| prev.created);
        let entry = Arc::new(Entry::written(key.clone(), payload, self.revision, created, self.now));
        self.touched.insert(key, Some(entry.clone()));
        self.events.push(Arc::new(Event::new(EventKind::Put, entry.clone(), prev)));
        entry
    }

    fn delete(&mut self, prev: Arc<Entry>) -> Arc<Entry> {
        self.revision += 1;
        let last = Arc::new(prev.stamped(self.revision));
        self.touched.insert(prev.key.clone(), None);
        self.events.push(Arc::new(Event::new(EventKind::Delete, last.clone(), Some(prev))));
        last
    }
}
