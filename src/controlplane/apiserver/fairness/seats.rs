//! The seats of all levels, who has them and who waits for one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::classify::Flow;
use super::counts::{FlowCounts, Served};
use super::level::{Level, Refusal, Settings, Waiting};

/// The seats of the server.
pub struct Seats {
    state: Mutex<State>,
}

struct State {
    total: u32,
    levels: BTreeMap<Arc<str>, Level>,
    /// The sum of what every level has reserved.
    reserved: u32,
    waiting: usize,
    numbers: u64,
}

/// What a level has, and how many wait for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LevelCount {
    pub name: Arc<str>,
    pub nominal: u32,
    /// Never lent.
    pub guaranteed: u32,
    /// Never exceeded.
    pub most: u32,
    /// What it could use as things stand.
    pub available: u32,
    pub waiting: usize,
}

/// A seat, free again when it is dropped.
pub struct Seat {
    seats: Arc<Seats>,
    _served: Served,
    /// `None`: of a level that needs none.
    taken: Option<Taken>,
}

struct Taken {
    level: Arc<str>,
    /// The queue it came from, if it had to wait.
    queue: Option<usize>,
    since: Instant,
}

/// One who waits: whoever stops waiting is taken out again.
struct Place {
    seats: Arc<Seats>,
    level: Arc<str>,
    queue: usize,
    number: u64,
    granted: oneshot::Receiver<Option<usize>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.seats.state();
        // A seat that was given and never taken goes back.
        if matches!(self.granted.try_recv(), Ok(Some(_))) {
            state.release(&self.level, None);
            return;
        }
        if let Some(level) = state.levels.get_mut(&self.level) {
            let before = level.waiting;
            level.leave(self.queue, self.number);
            let left = before - level.waiting;
            state.waiting -= left;
        }
    }
}

impl Seats {
    pub fn new(total: u32) -> Arc<Self> {
        let state = State { total, levels: BTreeMap::new(), reserved: 0, waiting: 0, numbers: 0 };
        Arc::new(Self { state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the levels as they are now. One that is gone stays until nobody is on its seats.
    pub fn configure(&self, levels: Vec<Settings>) {
        let mut state = self.state();
        let all_shares = levels.iter().map(|level| level.shares).sum();
        let present: Vec<Arc<str>> = levels.iter().map(|level| level.name.clone()).collect();
        let seats = state.total;
        for settings in levels {
            let name = settings.name.clone();
            let level = state.levels.entry(name).or_insert_with(|| Level::new(settings.clone()));
            level.settings = settings;
            level.share(seats, all_shares);
        }
        state.levels.retain(|name, level| present.contains(name) || level.in_use > 0 || level.waiting > 0);
        state.reserved =
            state.levels.values().filter(|level| !level.settings.exempt).map(Level::reserved).sum();
        state.dispatch();
    }

    /// A seat of a level that needs none.
    pub fn exempt(self: &Arc<Self>, served: Served) -> Seat {
        Seat { seats: self.clone(), _served: served, taken: None }
    }

    /// Waits for a seat of a level.
    pub async fn take(
        self: &Arc<Self>,
        flow: &Flow<'_>,
        watch: bool,
        patience: Duration,
    ) -> Result<Seat, Refusal> {
        let (level, counts) = (&flow.level.name, &flow.schema.counts);
        let Some(mut place) = self.try_take(level, flow.hash)? else {
            return Ok(self.seat(level, counts, watch, None));
        };
        let _waiting = counts.wait();
        match tokio::time::timeout(patience, &mut place.granted).await {
            Ok(Ok(queue)) => Ok(self.seat(level, counts, watch, queue)),
            _ => {
                let (schema, level) = (&*flow.schema.name, &**level);
                tracing::debug!(schema, level, "a request has waited too long");
                Err(Refusal::TimeOut)
            }
        }
    }

    fn seat(
        self: &Arc<Self>,
        level: &Arc<str>,
        counts: &Arc<FlowCounts>,
        watch: bool,
        queue: Option<usize>,
    ) -> Seat {
        let taken = Taken { level: level.clone(), queue, since: Instant::now() };
        Seat { seats: self.clone(), _served: counts.serve(watch), taken: Some(taken) }
    }

    /// Takes a seat (`None`), or a place in a queue.
    fn try_take(self: &Arc<Self>, name: &Arc<str>, flow: u64) -> Result<Option<Place>, Refusal> {
        let mut state = self.state();
        let free = state.free(name);
        state.numbers += 1;
        let number = state.numbers;
        // A level that has just gone holds nobody up.
        let Some(level) = state.levels.get_mut(name) else { return Err(Refusal::Concurrency) };
        if free && level.waiting == 0 {
            state.occupy(name);
            return Ok(None);
        }
        let (granted, receiver) = oneshot::channel();
        let queue = level.wait(flow, Waiting { granted, number })?;
        state.waiting += 1;
        drop(state);
        Ok(Some(Place { seats: self.clone(), level: name.clone(), queue, number, granted: receiver }))
    }

    /// What the levels have.
    pub fn counts(&self) -> Vec<LevelCount> {
        let state = self.state();
        let free = state.total.saturating_sub(state.reserved);
        let count = |level: &Level| LevelCount {
            name: level.settings.name.clone(),
            nominal: level.nominal,
            guaranteed: level.guaranteed,
            most: level.most,
            available: level.most.min(level.reserved().saturating_add(free)),
            waiting: level.waiting,
        };
        state.levels.values().map(count).collect()
    }
}

impl State {
    /// Whether a level may use one seat more: one of its own that is never lent, else one that nobody has reserved.
    fn free(&self, name: &str) -> bool {
        self.levels.get(name).is_some_and(|level| {
            level.in_use < level.guaranteed || (level.in_use < level.most && self.reserved < self.total)
        })
    }

    fn occupy(&mut self, name: &str) {
        let Some(level) = self.levels.get_mut(name) else { return };
        let before = level.reserved();
        level.in_use += 1;
        self.reserved += level.reserved() - before;
    }

    fn release(&mut self, name: &str, from: Option<(usize, Instant)>) {
        let Some(level) = self.levels.get_mut(name) else { return };
        let before = level.reserved();
        level.in_use = level.in_use.saturating_sub(1);
        self.reserved -= before - level.reserved();
        if let Some((queue, since)) = from {
            level.had(queue, since);
        }
        if self.waiting > 0 {
            self.dispatch();
        }
    }

    /// Gives free seats to who waits: level by level, those first that have the least of what is theirs.
    fn dispatch(&mut self) {
        loop {
            let waiting = self.levels.iter().filter(|(name, level)| level.waiting > 0 && self.free(name));
            let next = waiting
                .min_by_key(|(_, level)| u64::from(level.in_use) * 1000 / u64::from(level.nominal.max(1)));
            let Some(name) = next.map(|(name, _)| name.clone()) else { return };
            let Some((queue, waiting)) = self.levels.get_mut(&name).and_then(Level::next) else { return };
            self.waiting -= 1;
            // Whoever has gone away meanwhile does not need it.
            if waiting.granted.send(Some(queue)).is_ok() {
                self.occupy(&name);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(taken) = self.taken.take() {
            let from = taken.queue.map(|queue| (queue, taken.since));
            self.seats.state().release(&taken.level, from);
        }
    }
}
