//! What a controller did and has not yet seen come back through its watch. Until it has, its cache is
//! too old to count replicas by, and it neither creates nor deletes.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};

use client::informer::Key;

/// After this long the watch is trusted anyway (upstream's ExpectationsTimeout).
const TIMEOUT: SignedDuration = SignedDuration::from_mins(5);

#[derive(Debug, Default)]
struct Pending {
    creations: usize,
    /// uids of what was deleted.
    deletions: HashSet<String>,
    since: Timestamp,
}

/// By the key of the owner. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct Expectations(Arc<Mutex<HashMap<Key, Pending>>>);

impl Expectations {
    /// Before so many objects are created.
    pub(super) fn expect_creations(&self, key: &Key, count: usize, now: Timestamp) {
        let mut all = self.all();
        let pending = all.entry(key.clone()).or_default();
        pending.creations += count;
        pending.since = now;
    }

    /// Before these objects are deleted.
    pub(super) fn expect_deletions(&self, key: &Key, uids: impl IntoIterator<Item = String>, now: Timestamp) {
        let mut all = self.all();
        let pending = all.entry(key.clone()).or_default();
        pending.deletions.extend(uids);
        pending.since = now;
    }

    /// An object appeared, or its creation failed.
    pub(super) fn created(&self, key: &Key, count: usize) {
        if let Some(pending) = self.all().get_mut(key) {
            pending.creations = pending.creations.saturating_sub(count);
        }
    }

    /// An object is gone or going, or its deletion failed.
    pub(super) fn deleted(&self, key: &Key, uid: &str) {
        if let Some(pending) = self.all().get_mut(key) {
            pending.deletions.remove(uid);
        }
    }

    /// The owner is gone.
    pub(super) fn forget(&self, key: &Key) {
        self.all().remove(key);
    }

    /// Whether everything that was done has been seen, or has been waited for long enough.
    pub(super) fn satisfied(&self, key: &Key, now: Timestamp) -> bool {
        self.all().get(key).is_none_or(|pending| {
            pending.creations == 0 && pending.deletions.is_empty()
                || now.duration_since(pending.since) > TIMEOUT
        })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Key, Pending>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn satisfied_when_all_was_seen_or_time_is_up() {
        let (all, key, now) = (Expectations::default(), Key::new("ns", "web"), Timestamp::UNIX_EPOCH);
        assert!(all.satisfied(&key, now));
        all.expect_creations(&key, 2, now);
        all.expect_deletions(&key, ["u".to_owned()], now);
        all.created(&key, 1);
        all.deleted(&key, "other");
        assert!(!all.satisfied(&key, now));
        assert!(all.satisfied(&key, now + SignedDuration::from_mins(6)));
        all.created(&key, 1);
        assert!(!all.satisfied(&key, now));
        all.deleted(&key, "u");
        assert!(all.satisfied(&key, now));
    }
}
