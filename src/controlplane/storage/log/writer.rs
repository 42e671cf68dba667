//! The one writer: takes what waits into one transaction and one fsync.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::local::Journal;
use super::plan::Plan;
use super::queue::{Proposal, Waiting};
use super::{StorageError, Written};
use crate::cache::WatchCache;
use crate::{Event, EventKind};
use rt::Clock;

/// Writes in one transaction, at most; it bounds the memory and the time of one commit.
const BATCH: usize = 512;

/// The one writer. It takes all proposals that wait, makes them durable together, shows them to readers, and
/// only then answers.
///
/// ```text
/// waiting --proposal or expiry--> planning --commit--> publishing --> waiting
///                                              `--disk error--> failed: refuses everything
/// ```
pub(super) struct Writer<J> {
    cache: Arc<WatchCache>,
    journal: J,
    clock: Arc<dyn Clock>,
    waiting: Waiting,
    /// When which key expires; a key whose entry says otherwise has been written since.
    expiries: BTreeSet<(Timestamp, Arc<str>)>,
}

impl<J: Journal> Writer<J> {
    pub(super) fn new(cache: Arc<WatchCache>, journal: J, clock: Arc<dyn Clock>, waiting: Waiting) -> Self {
        let expiries = cache
            .read()
            .entries()
            .filter_map(|entry| entry.expires.map(|at| (at, entry.key.clone())))
            .collect();
        Self { cache, journal, clock, waiting, expiries }
    }

    /// Works until nobody can propose any more, or the journal fails. However it ends, a panic included, nobody is left
    /// waiting for it.
    pub(super) fn run(mut self) {
        let _ended = Ended(self.cache.clone());
        while let Ok(batch) = self.waiting.take(self.until_expiry(), BATCH) {
            if let Err(error) = self.carry_out(batch) {
                tracing::error!(%error, "storage refuses all writes from now on");
                self.cache.fail(error.reason());
                return self.waiting.refuse(&error);
            }
        }
    }

    /// Time to the next expiry, zero if it has passed.
    fn until_expiry(&self) -> Option<Duration> {
        let (at, _) = self.expiries.first()?;
        Some(Duration::try_from(at.duration_since(self.clock.now())).unwrap_or(Duration::ZERO))
    }

    fn carry_out(&mut self, batch: Vec<Proposal>) -> Result<(), StorageError> {
        let now = self.clock.now();
        let (events, answers) = {
            let state = self.cache.read();
            let mut plan = Plan::new(&state, now);
            for (_, key) in self.expiries.iter().take_while(|(at, _)| *at <= now) {
                plan.expire(key);
            }
            let answers: Vec<_> = batch
                .into_iter()
                .map(|proposal| (proposal.answer, plan.add(proposal.key, proposal.write)))
                .collect();
            (plan.into_events(), answers)
        };
        if !events.is_empty()
            && let Err(error) = self.journal.commit(&events)
        {
            answer(answers.into_iter().map(|(to, _)| (to, Err(error.clone()))));
            return Err(error);
        }
        self.cache.publish(&events, now);
        answer(answers);
        self.cache.announce(&events);
        self.track_expiries(&events);
        Ok(())
    }

    fn track_expiries(&mut self, events: &[Arc<Event>]) {
        for event in events {
            if let Some((at, prev)) = event.prev.as_ref().and_then(|prev| Some((prev.expires?, prev))) {
                self.expiries.remove(&(at, prev.key.clone()));
            }
            if let (EventKind::Put, Some(at)) = (event.kind, event.entry.expires) {
                self.expiries.insert((at, event.entry.key.clone()));
            }
        }
    }
}

/// Says that the writer has ended, by whatever way its scope was left.
struct Ended(Arc<WatchCache>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.fail(StorageError::stopped().reason());
    }
}

fn answer(answers: impl IntoIterator<Item = (oneshot::Sender<Written>, Written)>) {
    for (to, what) in answers {
        // A caller that has gone needs no answer; its write stands.
        let _ = to.send(what);
    }
}
