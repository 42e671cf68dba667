//! What is found out inside of the engine about one request, for who tells of it afterwards, though the client does not hear of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::policy::Level;

/// Annotations of one request's audit event, and how long other servers were waited for.
#[derive(Debug, Default)]
pub struct Notes {
    annotations: Mutex<BTreeMap<String, (Level, String)>>,
    /// In microseconds.
    waited: AtomicU64,
}

impl Notes {
    /// Adds an annotation. What was said first stands: a write that is tried again says the same again.
    pub fn add(&self, key: impl Into<String>, value: impl Into<String>) {
        self.insert(Level::Metadata, key.into(), value.into());
    }

    /// Adds an annotation that tells of the request's body: where that is not wanted, it is not told either.
    pub fn add_of_body(&self, key: impl Into<String>, value: impl Into<String>) {
        self.insert(Level::Request, key.into(), value.into());
    }

    fn insert(&self, level: Level, key: String, value: String) {
        let mut all = self.annotations.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(key).or_insert((level, value));
    }

    /// Returns the annotations that belong into an event of this level, once.
    pub fn take(&self, level: Level) -> BTreeMap<String, String> {
        let all = std::mem::take(&mut *self.annotations.lock().unwrap_or_else(PoisonError::into_inner));
        all.into_iter()
            .filter(|(_, (from, _))| *from <= level)
            .map(|(key, (_, value))| (key, value))
            .collect()
    }

    /// A webhook was waited for.
    pub fn waited(&self, time: Duration) {
        self.waited.fetch_add(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// How long webhooks were waited for, in all.
    pub fn waited_for(&self) -> Duration {
        Duration::from_micros(self.waited.load(Ordering::Relaxed))
    }
}
