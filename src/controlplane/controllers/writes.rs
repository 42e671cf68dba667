//! What a controller wrote under names that the API server chose: until its cache has it, writing again
//! would make a second one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use client::informer::Key;

/// After this long the cache is trusted anyway: what was written may be gone again, unseen.
const TIMEOUT: SignedDuration = SignedDuration::from_secs(30);

/// A resourceVersion as a number. This server's are; anything else counts as old.
fn version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// The latest version written, by owner and name. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub(super) struct Writes(Arc<Mutex<HashMap<Key, Versions>>>);

/// By name: the version written, and when.
type Versions = HashMap<Key, (u64, Timestamp)>;

impl Writes {
    /// Something was written for an owner.
    pub(super) fn note(&self, owner: &Key, written: &ObjectMeta, now: Timestamp) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(owner.clone()).or_default().insert(Key::of(written), (version(written), now));
    }

    /// Something of an owner is gone.
    pub(super) fn gone(&self, owner: &Key, key: &Key) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(names) = all.get_mut(owner) {
            names.remove(key);
        }
    }

    /// Whether what was written for an owner is `cached`, or newer.
    pub(super) fn settled<'a>(
        &self,
        owner: &Key,
        cached: impl Iterator<Item = &'a ObjectMeta>,
        now: Timestamp,
    ) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(names) = all.get_mut(owner) else { return true };
        for meta in cached {
            let key = Key::of(meta);
            if names.get(&key).is_some_and(|(written, _)| *written <= version(meta)) {
                names.remove(&key);
            }
        }
        names.retain(|_, (_, at)| now.duration_since(*at) < TIMEOUT);
        if names.is_empty() {
            all.remove(owner);
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settled_when_the_cache_has_the_version() {
        let meta = |name: &str, version: &str| ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: Some(version.to_owned()),
            ..ObjectMeta::default()
        };
        let (writes, owner, now) = (Writes::default(), Key::new("ns", "web"), Timestamp::UNIX_EPOCH);
        assert!(writes.settled(&owner, [].into_iter(), now));
        writes.note(&owner, &meta("a", "10"), now);
        assert!(!writes.settled(&owner, [&meta("a", "9")].into_iter(), now));
        assert!(writes.settled(&owner, [&meta("a", "11")].into_iter(), now));
        writes.note(&owner, &meta("a", "12"), now);
        writes.gone(&owner, &Key::cluster("a"));
        assert!(writes.settled(&owner, [].into_iter(), now));
        writes.note(&owner, &meta("a", "13"), now);
        assert!(writes.settled(&owner, [].into_iter(), now + SignedDuration::from_mins(1)));
    }
}
