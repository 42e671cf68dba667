use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::disk::Journal;
use super::plan::{Plan, Write};
use super::state::Shared;
use super::{Entry, Event, EventKind, StorageError};
use crate::rt::Clock;

/// Writes in one transaction, at most; it bounds the memory and the time of one commit.
const BATCH: usize = 512;

type Answer = Result<Arc<Entry>, StorageError>;

/// A write that waits for its turn.
pub(super) struct Proposal {
    pub(super) key: String,
    pub(super) write: Write,
    pub(super) answer: oneshot::Sender<Answer>,
}

/// The one writer. It takes all proposals that wait, makes them durable together, shows them to readers, and
/// only then answers.
///
/// ```text
/// waiting --proposal or expiry--> planning --commit--> publishing --> waiting
///                                              `--disk error--> failed: refuses everything
/// ```
pub(super) struct Writer<J> {
    shared: Arc<Shared>,
    journal: J,
    clock: Arc<dyn Clock>,
    proposals: Receiver<Proposal>,
    /// When which key expires; a key whose entry says otherwise has been written since.
    expiries: BTreeSet<(Timestamp, Arc<str>)>,
}

impl<J: Journal> Writer<J> {
    pub(super) fn new(
        shared: Arc<Shared>,
        journal: J,
        clock: Arc<dyn Clock>,
        proposals: Receiver<Proposal>,
    ) -> Self {
        let expiries = shared
            .read()
            .entries()
            .filter_map(|entry| entry.expires.map(|at| (at, entry.key.clone())))
            .collect();
        Self { shared, journal, clock, proposals, expiries }
    }

    /// Works until nobody can propose any more, or the journal fails.
    pub(super) fn run(mut self) {
        loop {
            let batch = match self.wait() {
                Ok(batch) => batch,
                Err(Closed) => break,
            };
            if let Err(error) = self.carry_out(batch) {
                self.refuse(error);
                return;
            }
        }
        self.shared.fail("the engine has stopped".into());
    }

    /// All proposals that wait; none if something has expired first.
    fn wait(&self) -> Result<Vec<Proposal>, Closed> {
        let first = match self.until_expiry() {
            None => Some(self.proposals.recv().map_err(|_| Closed)?),
            Some(left) => match self.proposals.recv_timeout(left) {
                Ok(proposal) => Some(proposal),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Err(Closed),
            },
        };
        Ok(first.into_iter().chain(self.proposals.try_iter()).take(BATCH).collect())
    }

    /// Time to the next expiry, zero if it has passed.
    fn until_expiry(&self) -> Option<Duration> {
        let (at, _) = self.expiries.first()?;
        Some(Duration::try_from(at.duration_since(self.clock.now())).unwrap_or(Duration::ZERO))
    }

    fn carry_out(&mut self, batch: Vec<Proposal>) -> Result<(), StorageError> {
        let now = self.clock.now();
        let (events, answers) = {
            let state = self.shared.read();
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
        self.shared.write().apply(&events);
        answer(answers);
        self.shared.read().history.wake(&events);
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

    /// What was written so far stays readable; nothing more can be.
    fn refuse(self, error: StorageError) {
        tracing::error!(%error, "storage refuses all writes from now on");
        let reason = match &error {
            StorageError::Unavailable(reason) => reason.clone(),
            other => other.to_string().into(),
        };
        self.shared.fail(reason);
        for proposal in self.proposals {
            // A caller that has gone needs no answer.
            let _ = proposal.answer.send(Err(error.clone()));
        }
    }
}

struct Closed;

fn answer(answers: impl IntoIterator<Item = (oneshot::Sender<Answer>, Answer)>) {
    for (to, what) in answers {
        // A caller that has gone needs no answer; its write stands.
        let _ = to.send(what);
    }
}
