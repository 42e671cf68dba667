//! One of several: whoever holds a Lease leads, and what must be one runs only there.
//!
//! ```text
//! follow: watch the Lease, wake when it ends --taken--> lead: renew it
//!    ^                                                    | stopped: what led ends, the Lease is given back
//!    '------ what led has ended before the lease does <---' not renewed in time, or somebody else has it
//! ```

mod decide;

use std::pin::pin;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client};
use tokio::time::Instant;

use self::decide::{Seen, Step};
use rt::{DrainError, Stop, Tasks};

pub use self::decide::Terms;

/// Where the Leases of a cluster's own parts are.
const NAMESPACE: &str = "kube-system";

/// One candidate for one Lease.
pub struct Election {
    /// Reads and writes the Lease.
    pub client: Client,
    /// The Lease's name, in `kube-system`.
    pub lease: &'static str,
    /// Who the candidate is. A process may take over from a former life of itself at once, so an identity must never be
    /// used by two processes that live.
    pub identity: String,
    pub terms: Terms,
}

/// Why the candidate leads no more.
enum Ended {
    Stopped,
    Lost,
}

impl Election {
    /// Calls `lead` each time that the Lease has been won, with tasks for everything that is to run while it is held. They
    /// stop when it is lost, and when `tasks` stop; then it is given back. Fails if what led does not end before the lease does:
    /// somebody else may lead from then on, so the process must not live on.
    pub async fn run(self, tasks: Tasks, lead: impl Fn(&Tasks) + Send) -> Result<(), DrainError> {
        let stop = tasks.stop();
        let mut seen = None;
        loop {
            if stop.run_until_cancelled(self.follow(&mut seen)).await.is_none() {
                return Ok(());
            }
            tracing::info!(lease = self.lease, identity = self.identity, "this process leads");
            let term = tasks.child();
            lead(&term);
            let (ended, renewed) = self.keep(&mut seen, &stop).await;
            // After a pause of the whole process nothing is left; what led ends in a moment all the same.
            let left = (renewed + self.terms.lease).saturating_duration_since(Instant::now());
            term.drain(left.max(self.terms.retry)).await?;
            tracing::info!(lease = self.lease, identity = self.identity, "this process leads no more");
            if matches!(ended, Ended::Stopped) {
                self.release().await;
                return Ok(());
            }
        }
    }

    fn api(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Waits until the Lease is this process's.
    async fn follow(&self, seen: &mut Option<Seen>) {
        let mut changes = pin!(watch_object(self.api(), self.lease).default_backoff());
        loop {
            let wake = match decide::step(seen.as_ref(), &self.identity, Instant::now()) {
                Step::WaitUntil(until) => until,
                // What a former life of this process holds is taken by renewing it.
                Step::Take | Step::Hold => {
                    let taken = tokio::time::timeout(self.terms.renew, self.take(seen)).await;
                    if taken.unwrap_or(false) {
                        return;
                    }
                    Instant::now() + self.terms.retry
                }
            };
            tokio::select! {
                Some(change) = changes.next() => {
                    // A watch that fails comes again by itself; until then the lease's end is what wakes.
                    if let Ok(lease) = change {
                        decide::observe(seen, lease, Instant::now());
                    }
                }
                () = tokio::time::sleep_until(wake) => {}
            }
        }
    }

    /// Writes the Lease as this process's, over what was seen of it. If somebody else was first, sees what they wrote.
    async fn take(&self, seen: &mut Option<Seen>) -> bool {
        let (api, begun) = (self.api(), Instant::now());
        let before = seen.as_ref().map(|seen| &seen.lease);
        let wanted = decide::held(before, self.lease, &self.identity, &self.terms, Timestamp::now());
        let write = async {
            match before {
                None => api.create(&PostParams::default(), &wanted).await,
                Some(_) => api.replace(self.lease, &PostParams::default(), &wanted).await,
            }
        };
        match write.await {
            Ok(lease) => {
                *seen = Some(Seen { lease, since: begun });
                return true;
            }
            Err(error) => tracing::debug!(lease = self.lease, %error, "the lease was not taken"),
        }
        match api.get_opt(self.lease).await {
            Ok(lease) => decide::observe(seen, lease, Instant::now()),
            Err(error) => tracing::debug!(lease = self.lease, %error, "the lease cannot be read"),
        }
        false
    }

    /// Renews the Lease until it is lost or `stop` says so. Answers also when it was last renewed.
    async fn keep(&self, seen: &mut Option<Seen>, stop: &Stop) -> (Ended, Instant) {
        let mut renewed = seen.as_ref().map_or_else(Instant::now, |seen| seen.since);
        loop {
            let deadline = renewed + self.terms.renew;
            let next = async {
                tokio::time::sleep(self.terms.retry).await;
                self.take(seen).await
            };
            let taken = stop.run_until_cancelled(tokio::time::timeout_at(deadline, next)).await;
            match taken {
                None => return (Ended::Stopped, renewed),
                Some(Err(_)) => return (Ended::Lost, renewed),
                Some(Ok(true)) => renewed = seen.as_ref().map_or(renewed, |seen| seen.since),
                Some(Ok(false)) => {
                    let mine = seen.as_ref().is_some_and(|seen| decide::holder(&seen.lease) == self.identity);
                    if !mine {
                        return (Ended::Lost, renewed);
                    }
                }
            }
        }
    }

    /// Gives the Lease back, if it is still this process's. Where that fails it ends by itself.
    async fn release(&self) {
        let api = self.api();
        let give = async {
            let lease = api.get(self.lease).await?;
            if decide::holder(&lease) == self.identity {
                let free = decide::released(&lease, Timestamp::now());
                api.replace(self.lease, &PostParams::default(), &free).await?;
            }
            Ok::<_, kube::Error>(())
        };
        match tokio::time::timeout(self.terms.retry, give).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(lease = self.lease, %error, "the lease is not given back"),
            Err(_) => tracing::debug!(lease = self.lease, "the lease is not given back in time"),
        }
    }
}

#[cfg(test)]
mod tests;
