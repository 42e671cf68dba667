//! A pool of values, each with at most one owner.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// Who has a value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner {
    /// A write that is not durable yet.
    Pending(u64),
    /// The stored Service with this uid.
    Service(String),
}

/// Values of which each has at most one owner.
pub(super) struct Pool<T> {
    candidates: Candidates<T>,
    reserved: Vec<T>,
    taken: HashMap<T, Owner>,
    /// The same by owner: what happens to one Service costs as much as that one has.
    held: HashMap<Owner, HashSet<T>>,
}

/// What may be given out unasked: preferably from `upper`, and from `lower` when that is used up. Who asks for a value of
/// their own choice is told (upstream: KEP-3070) to choose from the lower band, so that the two rarely meet.
pub(super) struct Candidates<T> {
    lower: Vec<T>,
    upper: Vec<T>,
    start: usize,
}

/// Splits values: the lower band is a `divisor`th of them, at least `min` and at most `max`.
pub(super) fn banded<T>(mut values: Vec<T>, min: usize, max: usize, divisor: usize) -> Candidates<T> {
    let size = (values.len() / divisor).clamp(min, max);
    let size = if values.len() <= min { 0 } else { size.min(values.len()) };
    let upper = values.split_off(size);
    let start = if upper.is_empty() { 0 } else { rand::random::<u32>() as usize % upper.len() };
    Candidates { lower: values, upper, start }
}

/// The addresses of a network without its first and last: at most 65,534 of them, which is what upstream gives out, too.
pub(super) fn address_candidates(network: Ipv4Net) -> Candidates<Ipv4Addr> {
    banded(network.hosts().take(65_534).collect(), 16, 256, 16)
}

impl<T: Copy + Eq + Hash> Pool<T> {
    pub(super) fn new(candidates: Candidates<T>, reserved: Vec<T>) -> Self {
        Self { candidates, reserved, taken: HashMap::new(), held: HashMap::new() }
    }

    /// Takes a particular value. It may already be the same owner's, or the Service's whose uid is given.
    pub(super) fn claim(&mut self, value: T, owner: &Owner, uid: Option<&str>) -> bool {
        match self.taken.get(&value) {
            None => {
                self.own(value, owner);
                true
            }
            Some(Owner::Service(other)) => Some(other.as_str()) == uid,
            Some(other) => other == owner,
        }
    }

    /// Takes any free value: upwards from where the last one was found, which began somewhere at random.
    pub(super) fn any(&mut self, owner: &Owner) -> Option<T> {
        let Candidates { lower, upper, start } = &self.candidates;
        let free = |value: &&T| !self.taken.contains_key(*value) && !self.reserved.contains(*value);
        let in_upper = (0..upper.len()).map(|step| (start + step) % upper.len());
        let found = in_upper.map(|at| (at + 1, &upper[at])).find(|(_, value)| free(value));
        let (next, value) = match found {
            Some((next, value)) => (next, *value),
            None => (*start, *lower.iter().find(free)?),
        };
        self.candidates.start = next;
        self.own(value, owner);
        Some(value)
    }

    /// Writes down that a stored Service has the value, whoever was on the way to it.
    pub(super) fn own(&mut self, value: T, owner: &Owner) {
        match self.taken.insert(value, owner.clone()) {
            Some(before) if before == *owner => return,
            Some(before) => self.forget_held(&before, &value),
            None => {}
        }
        self.held.entry(owner.clone()).or_default().insert(value);
    }

    fn forget_held(&mut self, owner: &Owner, value: &T) {
        if let Some(held) = self.held.get_mut(owner) {
            held.remove(value);
            if held.is_empty() {
                self.held.remove(owner);
            }
        }
    }

    pub(super) fn release(&mut self, owner: &Owner) {
        for value in self.held.remove(owner).into_iter().flatten() {
            self.taken.remove(&value);
        }
    }

    pub(super) fn release_except(&mut self, owner: &Owner, kept: &HashSet<T>) {
        let held = self.held.get(owner).into_iter().flatten();
        let gone: Vec<T> = held.filter(|value| !kept.contains(*value)).copied().collect();
        for value in gone {
            self.taken.remove(&value);
            self.forget_held(owner, &value);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(
            self.taken.len(),
            self.held.values().map(HashSet::len).sum::<usize>(),
            "both say the same"
        );
        self.taken.len()
    }
}
