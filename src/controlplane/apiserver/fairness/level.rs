//! One priority level: its seats, and its queues.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// A request is taken to need this long until it is known how long it took.
const GUESS: Duration = Duration::from_millis(3);

/// Why a request got no seat, in upstream's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The level does not let wait.
    Concurrency,
    QueueFull,
    TimeOut,
}

impl Refusal {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Concurrency, Self::QueueFull, Self::TimeOut];

    pub fn word(self) -> &'static str {
        match self {
            Self::Concurrency => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
        }
    }
}

/// How a level lets requests wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    pub queues: usize,
    /// How many queues a flow is dealt.
    pub hand: usize,
    /// How many requests wait in one queue.
    pub length: usize,
}

/// What a PriorityLevelConfiguration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub name: Arc<str>,
    pub exempt: bool,
    pub shares: u64,
    pub lendable_percent: u64,
    /// `None`: without limit.
    pub borrowing_percent: Option<u64>,
    /// `None`: who finds no seat is refused.
    pub queuing: Option<Queuing>,
}

/// Somebody who waits; dropping the receiver takes it back.
pub struct Waiting {
    pub granted: oneshot::Sender<Option<usize>>,
    pub number: u64,
}

/// One queue, and how much its flows have had: the one that had least is next.
#[derive(Default)]
pub struct Queue {
    pub waiting: VecDeque<Waiting>,
    /// In seconds of a seat.
    had: f64,
}

/// A level's state.
pub struct Level {
    pub settings: Settings,
    pub nominal: u32,
    /// Never lent.
    pub guaranteed: u32,
    /// Never exceeded.
    pub most: u32,
    pub in_use: u32,
    pub queues: Vec<Queue>,
    pub waiting: usize,
    /// What a queue that begins to wait is taken to have had.
    now: f64,
}

impl Level {
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            nominal: 0,
            guaranteed: 0,
            most: 0,
            in_use: 0,
            queues: Vec::new(),
            waiting: 0,
            now: 0.0,
        }
    }

    /// Takes what its settings give it of all seats.
    pub fn share(&mut self, seats: u32, all_shares: u64) {
        let part = |of: u64, number: u64, total: u64| (of * number).div_ceil(total.max(1));
        let nominal = part(u64::from(seats), self.settings.shares, all_shares);
        let lent = nominal * self.settings.lendable_percent / 100;
        let most = self
            .settings
            .borrowing_percent
            .map_or(u64::from(seats), |percent| nominal + nominal * percent / 100);
        let number = |seats: u64| u32::try_from(seats).unwrap_or(u32::MAX);
        self.nominal = number(nominal);
        self.guaranteed = number(nominal - lent.min(nominal));
        self.most = number(most.max(nominal));
        let wanted = self.settings.queuing.map_or(0, |queuing| queuing.queues);
        // Queues in which somebody waits stay until they are empty.
        while self.queues.len() > wanted && self.queues.last().is_some_and(|queue| queue.waiting.is_empty()) {
            self.queues.pop();
        }
        while self.queues.len() < wanted {
            self.queues.push(Queue::default());
        }
    }

    /// How many seats nobody else can have.
    pub fn reserved(&self) -> u32 {
        self.in_use.max(self.guaranteed)
    }

    /// The queue of a flow: of those that it is dealt, the one with the fewest before it.
    fn deal(&self, flow: u64, queuing: Queuing) -> usize {
        let (mut rest, mut dealt) = (flow, Vec::<usize>::with_capacity(queuing.hand));
        let mut best = 0;
        for taken in 0..queuing.hand.min(queuing.queues) {
            let left = queuing.queues - taken;
            let mut card = usize::try_from(rest % left as u64).unwrap_or(0);
            rest /= left as u64;
            // The card is counted among those that are left.
            for before in &dealt {
                if card >= *before {
                    card += 1;
                }
            }
            if taken == 0 || self.queues[card].waiting.len() < self.queues[best].waiting.len() {
                best = card;
            }
            let at = dealt.partition_point(|before| *before < card);
            dealt.insert(at, card);
        }
        best
    }

    /// Lets a request wait; returns which queue it is in.
    pub fn wait(&mut self, flow: u64, waiting: Waiting) -> Result<usize, Refusal> {
        let queuing = self.settings.queuing.filter(|queuing| queuing.queues <= self.queues.len());
        let Some(queuing) = queuing else { return Err(Refusal::Concurrency) };
        let at = self.deal(flow, queuing);
        if self.queues[at].waiting.len() >= queuing.length {
            return Err(Refusal::QueueFull);
        }
        let now = self.now;
        let queue = &mut self.queues[at];
        if queue.waiting.is_empty() {
            queue.had = queue.had.max(now);
        }
        queue.waiting.push_back(waiting);
        self.waiting += 1;
        Ok(at)
    }

    /// Takes the next who waits: of the queue that has had least.
    pub fn next(&mut self) -> Option<(usize, Waiting)> {
        let queues = self.queues.iter().enumerate().filter(|(_, queue)| !queue.waiting.is_empty());
        let (at, _) = queues.min_by(|(_, a), (_, b)| a.had.total_cmp(&b.had))?;
        let queue = &mut self.queues[at];
        let waiting = queue.waiting.pop_front()?;
        self.waiting -= 1;
        self.now = self.now.max(queue.had);
        queue.had += GUESS.as_secs_f64();
        Some((at, waiting))
    }

    /// Takes one out that will wait no longer.
    pub fn leave(&mut self, queue: usize, number: u64) {
        let Some(queue) = self.queues.get_mut(queue) else { return };
        let before = queue.waiting.len();
        queue.waiting.retain(|waiting| waiting.number != number);
        self.waiting -= before - queue.waiting.len();
    }

    /// A request out of a queue has had its seat for so long.
    pub fn had(&mut self, queue: usize, since: Instant) {
        if let Some(queue) = self.queues.get_mut(queue) {
            queue.had += since.elapsed().as_secs_f64() - GUESS.as_secs_f64();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(queues: usize, hand: usize, length: usize) -> Level {
        let queuing = Queuing { queues, hand, length };
        let mut level = Level::new(Settings {
            name: "l".into(),
            exempt: false,
            shares: 10,
            lendable_percent: 50,
            borrowing_percent: Some(10),
            queuing: Some(queuing),
        });
        level.share(100, 40);
        level
    }

    #[test]
    fn seats_follow_shares() {
        let level = level(4, 2, 1);
        assert_eq!((level.nominal, level.guaranteed, level.most), (25, 13, 27));
    }

    #[test]
    fn a_flow_is_dealt_different_queues_and_fills_only_those() {
        let mut level = level(16, 4, 2);
        let mut placed = std::collections::BTreeMap::<usize, usize>::new();
        let (mut number, mut first) = (0, None);
        let refused = loop {
            number += 1;
            let (granted, _) = oneshot::channel();
            match level.wait(0xdead_beef, Waiting { granted, number }) {
                Ok(at) => {
                    first = first.or(Some(at));
                    *placed.entry(at).or_default() += 1;
                }
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(refused, Refusal::QueueFull);
        assert_eq!(placed.len(), 4, "{placed:?}");
        assert!(placed.values().all(|count| *count == 2), "{placed:?}");
        level.leave(first.unwrap(), 1);
        assert_eq!(level.waiting, 7);
    }
}
