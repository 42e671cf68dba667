//! Tells our own transactions from others': what is ours is watched over.

use std::time::Duration;

use super::monitor::{Monitor, Seen, Transaction};

/// Where the kernel tells nothing of others' changes, all is written again this often, as kube-proxy does.
const BLIND: Duration = Duration::from_secs(30);

/// Watches over what was applied.
#[derive(Debug)]
pub struct Guard {
    monitor: Option<Monitor>,
    /// Something was deleted while our own change was under way.
    again: bool,
}

impl Guard {
    /// Starts to watch, where the kernel lets us.
    pub fn open() -> Self {
        let monitor = Monitor::open()
            .map_err(|error| tracing::info!(%error, "the kernel does not tell of others' rules"))
            .ok();
        Self { monitor, again: false }
    }

    /// To be called after a change of our own: `by` made so many transactions. What the kernel tells beyond them is
    /// somebody else's.
    pub fn settle(&mut self, by: &str, mut transactions: usize, concerns: impl Fn(&Transaction) -> bool) {
        for seen in self.monitor.iter_mut().flat_map(Monitor::drain) {
            match seen {
                Seen::Transaction(own) if own.by == by && transactions > 0 => transactions -= 1,
                Seen::Transaction(other) => self.again |= concerns(&other),
                // More rules than the kernel keeps messages for: ours.
                Seen::Lost => {}
            }
        }
    }

    /// Returns once somebody else has deleted something that `concerns` us: all of it is to be written again.
    pub async fn tampered(&mut self, concerns: impl Fn(&Transaction) -> bool) {
        while !std::mem::take(&mut self.again) {
            let Some(monitor) = &mut self.monitor else { return tokio::time::sleep(BLIND).await };
            self.again = match monitor.next().await {
                Seen::Transaction(other) => concerns(&other),
                Seen::Lost => true,
            };
        }
    }
}
