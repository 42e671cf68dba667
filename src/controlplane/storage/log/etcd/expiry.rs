//! Times to live. Servers delete what has expired, to the moment; a lease of etcd's stands behind, for entries that expire
//! while no server runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{Mutex as Turn, Notify};

use super::Shared;
use super::client::{CallError, Client};
use crate::log::Write;
use crate::{Entry, Event, EventKind};

/// Entries written within this share a lease.
const SHARED: Duration = Duration::from_secs(60);
/// Leases end so much later than the entries, so that servers come first.
const LATER: Duration = Duration::from_secs(60);

/// A lease that was granted.
struct Granted {
    id: i64,
    at: Instant,
}

/// When which key expires.
pub(super) struct Expiries {
    due: Mutex<BTreeSet<(Timestamp, Arc<str>)>>,
    earlier: Notify,
    /// By time to live.
    leases: Turn<BTreeMap<Duration, Granted>>,
}

impl Expiries {
    pub(super) fn of<'a>(entries: impl Iterator<Item = &'a Arc<Entry>>) -> Self {
        let due = entries.filter_map(|entry| Some((entry.expires?, entry.key.clone()))).collect();
        Self { due: Mutex::new(due), earlier: Notify::new(), leases: Turn::default() }
    }

    fn due(&self) -> MutexGuard<'_, BTreeSet<(Timestamp, Arc<str>)>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn track(&self, events: &[Arc<Event>]) {
        let mut due = self.due();
        let first = due.first().cloned();
        for event in events {
            if let Some((at, prev)) = event.prev.as_ref().and_then(|prev| Some((prev.expires?, prev))) {
                due.remove(&(at, prev.key.clone()));
            }
            if let (EventKind::Put, Some(at)) = (event.kind, event.entry.expires) {
                due.insert((at, event.entry.key.clone()));
            }
        }
        if due.first() != first.as_ref() {
            self.earlier.notify_one();
        }
    }

    /// A lease for an entry that lives so long.
    pub(super) async fn lease(&self, client: &Client, ttl: Duration) -> Result<i64, CallError> {
        let mut leases = self.leases.lock().await;
        leases.retain(|_, granted| granted.at.elapsed() < SHARED);
        if let Some(granted) = leases.get(&ttl) {
            return Ok(granted.id);
        }
        let whole = ttl.saturating_add(SHARED + LATER).as_secs();
        let at = Instant::now();
        let id = client.lease(i64::try_from(whole).unwrap_or(i64::MAX)).await?;
        leases.insert(ttl, Granted { id, at });
        Ok(id)
    }
}

impl Shared {
    /// Deletes what has expired.
    pub(super) async fn expire_due(&self) {
        let now = self.clock.now();
        let due: Vec<Arc<str>> =
            self.expiries.due().iter().take_while(|(at, _)| *at <= now).map(|(_, key)| key.clone()).collect();
        for key in due {
            let Some(entry) = self.cache.read().get(&key).cloned() else { continue };
            // Another server may have been first, or it was written again meanwhile: both are well.
            if let Err(error) = self.write(key.to_string(), Write::DeleteIf(entry.revision)).await {
                tracing::debug!(%error, key = %key, "deleting what has expired");
            }
        }
    }
}

/// Deletes each entry when its time has come.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        let next = shared.expiries.due().first().map(|(at, _)| *at);
        let changed = shared.expiries.earlier.notified();
        let Some(at) = next else {
            changed.await;
            continue;
        };
        let left = Duration::try_from(at.duration_since(shared.clock.now())).unwrap_or(Duration::ZERO);
        if tokio::time::timeout(left, changed).await.is_err() {
            shared.expire_due().await;
            // Nothing could be deleted while etcd does not answer: it is asked again when it does.
            let still = shared.expiries.due().first().is_some_and(|(first, _)| *first == at);
            if still {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
