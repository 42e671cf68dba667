//! The loop that keeps the kernel as the plan says.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::backend::{Applied, Backend};
use super::conntrack::{Flows, stale};
use super::health::HealthServers;
use super::plan::{Plan, Settings};
use super::planner::Planner;
use crate::network::{Changed, Feed};
use rt::{Backoff, Tasks};
use sys::conntrack::forget_udp;
use sys::exec::ExecError;
use sys::nftables::Guard;

/// A Service and its endpoints come as several changes, one after the other: so many are applied without a pause.
const AT_ONCE: u32 = 4;
const RETRY: Backoff = Backoff { first: Duration::from_millis(100), max: Duration::from_secs(30) };

/// What the proxy works with.
pub struct Proxy {
    pub feed: Feed,
    pub settings: Settings,
    pub backend: Box<dyn Backend>,
}

/// Keeps rules, health check ports and UDP flows as the feed says, until `tasks` stops. The receiver tells the
/// generation of the feed that was last applied; 0 before the first.
///
/// The first changes after a pause are applied at once, and what comes while they are being applied goes together into
/// the next. When that does not end, there is a pause before each that is as long as the last one took: under a storm of
/// changes at most half of the time is spent on rules. Rules that somebody else deletes are written again at once.
pub fn run(proxy: Proxy, tasks: &Tasks) -> watch::Receiver<u64> {
    let (applied, seen) = watch::channel(0);
    let health = HealthServers::new(tasks.clone());
    tasks.spawn_until_stop(follow(proxy, health, applied, tasks.clone()));
    seen
}

async fn follow(mut proxy: Proxy, mut health: HealthServers, applied: watch::Sender<u64>, tasks: Tasks) {
    let mut changes = proxy.feed.services();
    let mut guard = Guard::open();
    let mut planner = Planner::new(proxy.settings.clone());
    let mut failures = 0;
    let mut in_a_row = 0;
    if changes.wait_for(|generation| *generation > 0).await.is_err() {
        return;
    }
    loop {
        let generation = *changes.borrow_and_update();
        let start = Instant::now();
        planner.follow(&proxy.feed.read());
        match apply(proxy.backend.as_mut(), &mut guard, planner.wanted()).await {
            Ok(()) => {
                failures = 0;
                let (before, after) = planner.applied();
                health.update(&planner.wanted().0.health()).await;
                forget_stale(proxy.settings.node_ip, before, after, &tasks).await;
                applied.send_replace(generation);
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, failures, "service rules not applied; trying again");
            }
        }
        tracing::debug!(generation, took = ?start.elapsed(), "service rules synced");
        if failures > 0 {
            // A new change may be the cure: it does not wait for the back-off.
            tokio::select! {
                () = tokio::time::sleep(RETRY.delay(failures)) => {}
                Ok(()) = changes.changed() => {}
            }
            continue;
        }
        let took = start.elapsed();
        in_a_row += 1;
        if in_a_row >= AT_ONCE {
            tokio::time::sleep(took).await;
        }
        let idle = Instant::now();
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return std::future::pending().await },
            () = guard.tampered(|other| proxy.backend.concerns(other)) => {
                tracing::warn!("service rules were deleted by somebody else; writing them again");
                proxy.backend.forget();
            }
        }
        if idle.elapsed() > took {
            in_a_row = 0;
        }
    }
}

/// Applies the plan. What the kernel tells meanwhile is our own doing, except where it is more than that.
async fn apply(
    backend: &mut dyn Backend,
    guard: &mut Guard,
    (plan, changed): (&Plan, &Changed),
) -> Result<(), ExecError> {
    let Applied { by, transactions } = backend.apply(plan, changed).await?;
    guard.settle(by, transactions, |other| backend.concerns(other));
    Ok(())
}

/// Once the rules hold, the kernel forgets the flows that began under other ones.
async fn forget_stale(node_ip: Ipv4Addr, before: Flows, after: Flows, tasks: &Tasks) {
    if before == after {
        return;
    }
    // Listing the kernel's flows takes as long as there are flows.
    let forgotten =
        tasks.spawn_blocking(move || forget_udp(|flow| stale(&before, &after, node_ip, flow))).await;
    match forgotten {
        Ok(Ok(0)) => {}
        Ok(Ok(count)) => tracing::debug!(count, "stale UDP flows forgotten"),
        Ok(Err(error)) => tracing::warn!(%error, "stale UDP flows not forgotten"),
        Err(error) => tracing::error!(%error, "stale UDP flows not forgotten"),
    }
}
