//! The bounded queue of proposals.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

use super::plan::Write;
use super::{StorageError, Written};

/// How much may wait for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Writes.
    pub writes: usize,
    /// Bytes of what they would write.
    pub bytes: usize,
    /// How long a caller waits for its write.
    pub patience: Duration,
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self { writes: 4096, bytes: 64 << 20, patience: Duration::from_secs(30) }
    }
}

const WAITING: u8 = 0;
const TAKEN: u8 = 1;
const WITHDRAWN: u8 = 2;

/// Whose a proposal is: its caller's, until the writer takes it or the caller withdraws it; whichever comes first.
#[derive(Clone, Debug, Default)]
struct Claim(Arc<AtomicU8>);

impl Claim {
    fn settle(&self, to: u8) -> bool {
        self.0.compare_exchange(WAITING, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Withdraws a proposal that still waits when its caller goes away.
struct Caller(Claim);

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.settle(WITHDRAWN);
    }
}

/// A write that waits for its turn.
pub(super) struct Proposal {
    pub(super) key: String,
    pub(super) write: Write,
    pub(super) answer: oneshot::Sender<Written>,
    claim: Claim,
    size: usize,
}

/// The proposers' end of a bounded queue.
pub(super) struct Queue {
    limits: QueueLimits,
    bytes: Arc<AtomicUsize>,
    proposals: SyncSender<Proposal>,
}

/// The writer's end.
pub(super) struct Waiting {
    bytes: Arc<AtomicUsize>,
    proposals: Receiver<Proposal>,
}

/// Nobody can propose any more.
pub(super) struct Closed;

/// A queue with both its ends.
pub(super) fn queue(limits: QueueLimits) -> (Queue, Waiting) {
    let (sender, proposals) = sync_channel(limits.writes);
    let bytes = Arc::new(AtomicUsize::new(0));
    (Queue { limits, bytes: bytes.clone(), proposals: sender }, Waiting { bytes, proposals })
}

impl Queue {
    /// Waits for the outcome of a write. `Overloaded` if there is no room for it or its turn does not come in time: then
    /// it is not written. `Undecided` if the disk has it and does not answer in time.
    pub(super) async fn propose(&self, key: String, write: Write) -> Written {
        let (answer, mut answered) = oneshot::channel();
        let claim = Claim::default();
        let size = key.len() + write.size();
        if self.bytes.fetch_add(size, Ordering::AcqRel) + size > self.limits.bytes.max(size) {
            self.bytes.fetch_sub(size, Ordering::AcqRel);
            return Err(StorageError::Overloaded);
        }
        let caller = Caller(claim.clone());
        let proposal = Proposal { key, write, answer, claim, size };
        if let Err(refused) = self.proposals.try_send(proposal) {
            self.bytes.fetch_sub(size, Ordering::AcqRel);
            return Err(match refused {
                TrySendError::Full(_) => StorageError::Overloaded,
                TrySendError::Disconnected(_) => StorageError::stopped(),
            });
        }
        match tokio::time::timeout(self.limits.patience, &mut answered).await {
            Ok(outcome) => outcome.unwrap_or_else(|_| Err(StorageError::stopped())),
            Err(_) if caller.0.settle(WITHDRAWN) => Err(StorageError::Overloaded),
            Err(_) => Err(StorageError::Undecided { waited: self.limits.patience }),
        }
    }
}

impl Waiting {
    /// Up to `most` proposals that wait, at least one unless `until` passes first; those whose callers went away are left out.
    pub(super) fn take(&self, until: Option<Duration>, most: usize) -> Result<Vec<Proposal>, Closed> {
        let first = match until {
            None => Some(self.proposals.recv().map_err(|_| Closed)?),
            Some(left) => match self.proposals.recv_timeout(left) {
                Ok(proposal) => Some(proposal),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Err(Closed),
            },
        };
        let all = first.into_iter().chain(self.proposals.try_iter()).take(most);
        Ok(all
            .inspect(|proposal| self.left(proposal))
            .filter(|proposal| proposal.claim.settle(TAKEN))
            .collect())
    }

    fn left(&self, proposal: &Proposal) {
        self.bytes.fetch_sub(proposal.size, Ordering::AcqRel);
    }

    /// Refuses everything that waits and will ever come, until nobody can propose any more.
    pub(super) fn refuse(self, error: &StorageError) {
        for proposal in &self.proposals {
            self.left(&proposal);
            // A caller that has gone needs no answer.
            let _ = proposal.answer.send(Err(error.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Payload;

    fn limits(writes: usize, bytes: usize) -> QueueLimits {
        QueueLimits { writes, bytes, patience: Duration::from_millis(20) }
    }

    fn write(size: usize) -> Write {
        Write::Create(Payload { data: vec![b'x'; size].into(), ..Payload::default() })
    }

    #[tokio::test]
    async fn what_waits_is_bounded_by_number_and_by_bytes() {
        let (queue, waiting) = queue(limits(2, 100));
        let (first, second) = (queue.propose("/a".into(), write(10)), queue.propose("/b".into(), write(10)));
        let (third, fourth) = (queue.propose("/c".into(), write(10)), queue.propose("/d".into(), write(200)));
        let (first, second, third, fourth) = tokio::join!(first, second, third, fourth);
        for refused in [first, second, third, fourth] {
            assert!(matches!(refused, Err(StorageError::Overloaded)), "{refused:?}");
        }
        assert!(waiting.take(Some(Duration::ZERO), 9).is_ok_and(|taken| taken.is_empty()), "all went away");
        assert_eq!(queue.bytes.load(Ordering::Acquire), 0);
        // A write that is larger than the bound by itself still gets its turn.
        let alone = queue.propose("/e".into(), write(200));
        let taken = async { waiting.take(None, 9).map(|taken| taken.len()) };
        let (alone, taken) = tokio::join!(alone, taken);
        assert_eq!(taken.unwrap_or_default(), 1);
        assert!(alone.is_err(), "the proposal was dropped unanswered");
    }

    #[tokio::test]
    async fn a_write_that_the_writer_has_taken_is_undecided_and_one_that_waits_is_withdrawn() {
        let (queue, waiting) = queue(limits(8, 1000));
        let taken = queue.propose("/a".into(), write(1));
        let take = async { waiting.take(None, 1) };
        let (taken, held) = tokio::join!(taken, take);
        assert!(matches!(taken, Err(StorageError::Undecided { .. })), "{taken:?}");
        assert_eq!(held.map(|held| held.len()).unwrap_or_default(), 1);
        assert!(futures::poll!(std::pin::pin!(queue.propose("/b".into(), write(1)))).is_pending());
        assert!(
            waiting.take(Some(Duration::ZERO), 9).is_ok_and(|left| left.is_empty()),
            "its caller went away"
        );
    }
}
