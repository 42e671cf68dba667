//! Follows etcd's watch into the cache, and begins again with another member when it breaks off.

use std::sync::Arc;
use std::time::Duration;

use super::client::Changes;
use super::{Shared, entry, rpc};
use crate::{Event, EventKind, StorageError};
use rt::Backoff;

const AGAIN: Backoff = Backoff { first: Duration::from_millis(50), max: Duration::from_secs(2) };

/// Why a watch ended.
enum Ended {
    /// Another one goes on where it stopped.
    Broken(String),
    /// There is no going on.
    Lost(StorageError),
}

/// Follows until it is dropped; fails the cache when changes have been missed for good.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut failures = 0;
    loop {
        let Ended::Broken(why) = watch(&shared, &mut failures).await else { return };
        tracing::debug!(why, "etcd's watch broke off");
        failures += 1;
        tokio::time::sleep(AGAIN.delay(failures)).await;
    }
}

async fn watch(shared: &Shared, failures: &mut u32) -> Ended {
    let from = *shared.shown.borrow();
    let mut changes = match shared.client.watch(from).await {
        Ok(changes) => changes,
        Err(error) => return Ended::Broken(error.status().message().to_owned()),
    };
    let ended = follow(shared, &mut changes, failures).await;
    shared.client.broken(&changes);
    if let Ended::Lost(error) = &ended {
        tracing::error!(%error, "the cache cannot follow etcd any more");
        shared.cache.fail(error.reason());
    }
    ended
}

async fn follow(shared: &Shared, changes: &mut Changes, failures: &mut u32) -> Ended {
    loop {
        let response = match changes.next().await {
            Ok(response) => response,
            Err(status) => return Ended::Broken(status.message().to_owned()),
        };
        if response.compact_revision > 0 {
            let why = format!("etcd has compacted up to {} meanwhile", response.compact_revision);
            return Ended::Lost(StorageError::unavailable(why));
        }
        if response.canceled {
            return Ended::Broken(response.cancel_reason);
        }
        *failures = 0;
        if let Err(error) = take(shared, &response.events) {
            return Ended::Lost(error);
        }
    }
}

/// Shows changes to readers.
fn take(shared: &Shared, changes: &[rpc::Event]) -> Result<(), StorageError> {
    let Some(newest) = changes.last().and_then(|change| change.kv.as_ref()).map(|kv| kv.mod_revision as u64)
    else {
        return Ok(());
    };
    let mut events: Vec<Arc<Event>> = Vec::with_capacity(changes.len());
    for change in changes {
        let ours = |key: &[u8]| key.starts_with(shared.prefix.as_bytes()) && !shared.is_name(key);
        let Some(kv) = change.kv.as_ref().filter(|kv| ours(&kv.key)) else { continue };
        // What stood before is the cache's own state or, if it changed in this very batch, that of the event.
        let standing = |key: &str| {
            let earlier = events.iter().rev().find(|event| &*event.entry.key == key);
            match earlier {
                Some(event) => (event.kind == EventKind::Put).then(|| event.entry.clone()),
                None => shared.cache.read().get(key).cloned(),
            }
        };
        let event = if change.r#type == i32::from(rpc::event::EventType::Put) {
            let entry = entry(kv)?;
            let before = standing(&entry.key);
            Event::new(EventKind::Put, Arc::new(entry), before)
        } else {
            let Some(before) = change.prev_kv.as_ref() else {
                return Err(StorageError::unavailable("etcd did not say what was deleted"));
            };
            let before = entry(before)?;
            let last = Arc::new(before.stamped(kv.mod_revision as u64));
            let before = standing(&before.key).unwrap_or_else(|| Arc::new(before));
            Event::new(EventKind::Delete, last, Some(before))
        };
        events.push(Arc::new(event));
    }
    shared.expiries.track(&events);
    shared.cache.publish(&events, shared.clock.now());
    shared.shown.send_replace(newest);
    shared.cache.announce(&events);
    Ok(())
}
