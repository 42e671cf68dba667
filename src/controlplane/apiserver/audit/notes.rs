//! What admission finds and the audit log is to tell, though the client does not hear of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Annotations of one request's audit event.
#[derive(Debug, Default)]
pub struct Notes(Mutex<BTreeMap<String, String>>);

impl Notes {
    /// Adds an annotation. What was said first stands: a write that is tried again says the same again.
    pub fn add(&self, key: impl Into<String>, value: impl Into<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(key.into()).or_insert_with(|| value.into());
    }

    /// Returns what there is, once.
    pub fn take(&self) -> BTreeMap<String, String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
