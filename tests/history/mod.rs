//! What clients of a store saw, held against what one store could have shown them.
//!
//! Revisions put all writes in one order, so no order has to be searched for: the watches say which writes there were, and every answer
//! must fit into that order at a moment between its question and its answer.

pub mod load;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

/// A state of a key: the revision of the write that made it, and its value.
pub type Version = (u64, String);

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// At this revision; that of a delete is not told.
    Done(Option<u64>),
    /// It was not made.
    Refused,
    /// It may have been made.
    Unknown,
}

/// What a client did, and what it was told.
#[derive(Clone, Debug)]
pub enum Did {
    /// Put a value, which nobody else ever puts, or none: a delete. Over the state of that revision, or over nothing.
    Wrote {
        over: Option<u64>,
        value: Option<String>,
        outcome: Outcome,
    },
    Read(Option<Version>),
    /// All keys as they stood at a revision.
    Listed {
        revision: u64,
        found: BTreeMap<String, Version>,
    },
}

/// One question and its answer. Times count from the beginning of all.
#[derive(Clone, Debug)]
pub struct Op {
    pub key: String,
    pub begun: Duration,
    pub ended: Duration,
    pub did: Did,
}

/// What a watcher was told; `None`: the key was deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub revision: u64,
    pub key: String,
    pub value: Option<String>,
}

/// What one watcher was told of everything behind `from`, up to and with `until`.
#[derive(Clone, Debug, Default)]
pub struct Watched {
    pub from: u64,
    pub until: u64,
    pub told: Vec<Told>,
}

/// The states of one key in order; `None`: it is not there.
type States = Vec<(u64, Option<String>)>;

/// All writes there were.
#[derive(Default)]
struct Truth<'a> {
    all: BTreeMap<u64, &'a Told>,
    keys: BTreeMap<&'a str, States>,
}

impl<'a> Truth<'a> {
    fn of(watches: &'a [Watched], flaws: &mut Vec<String>) -> Self {
        let mut truth = Self::default();
        for told in watches.iter().flat_map(|watch| &watch.told) {
            let known = *truth.all.entry(told.revision).or_insert(told);
            if known != told {
                flaws.push(format!("revision twice: {known:?}, {told:?}"));
            }
        }
        for (revision, told) in &truth.all {
            truth.keys.entry(&told.key).or_default().push((*revision, told.value.clone()));
        }
        truth
    }

    fn states(&self, key: &str) -> &[(u64, Option<String>)] {
        self.keys.get(key).map_or(&[], Vec::as_slice)
    }

    /// How a key stood at a revision.
    fn at(&self, key: &str, revision: u64) -> Option<Version> {
        let states = self.states(key);
        let (at, value) = states[..states.partition_point(|state| state.0 <= revision)].last()?;
        Some((*at, value.clone()?))
    }

    /// The revision of the state before that of `revision`, if the key was there.
    fn before(&self, key: &str, revision: u64) -> Option<u64> {
        self.at(key, revision - 1).map(|version| version.0)
    }
}

/// What was known for sure at a time: the newest revision that any answer had told by then.
struct Floor(Vec<(Duration, u64)>);

impl Floor {
    fn of(ops: &[Op]) -> Self {
        let told = |op: &Op| match &op.did {
            Did::Wrote { outcome: Outcome::Done(revision), .. } => *revision,
            Did::Read(found) => found.as_ref().map(|version| version.0),
            Did::Listed { revision, .. } => Some(*revision),
            Did::Wrote { .. } => None,
        };
        let mut known: Vec<(Duration, u64)> =
            ops.iter().filter_map(|op| Some((op.ended, told(op)?))).collect();
        known.sort_unstable();
        let mut newest = 0;
        for (_, revision) in &mut known {
            newest = newest.max(*revision);
            *revision = newest;
        }
        Self(known)
    }

    fn at(&self, time: Duration) -> u64 {
        let earlier = self.0.partition_point(|(ended, _)| *ended < time);
        self.0[..earlier].last().map_or(0, |(_, revision)| *revision)
    }
}

/// Everything about a history that no store could have shown; empty if all is well. Revisions that nobody has watched are a flaw, too:
/// then nothing was proven.
pub fn flaws(ops: &[Op], watches: &[Watched]) -> Vec<String> {
    let mut flaws = Vec::new();
    let truth = Truth::of(watches, &mut flaws);
    check_watches(&truth, watches, &mut flaws);
    let floor = Floor::of(ops);
    check_writes(&truth, &floor, ops, &mut flaws);
    for op in ops {
        let known = floor.at(op.begun);
        match &op.did {
            Did::Wrote { .. } => {}
            Did::Read(found) => {
                if let Some(why) = misread(truth.states(&op.key), found.as_ref(), known) {
                    flaws.push(format!("{why}, though {known} was known: {op:?}"));
                }
            }
            Did::Listed { revision, .. } if *revision < known => {
                flaws.push(format!("an old list, though {known} was known: {op:?}"));
            }
            Did::Listed { revision, found } => {
                let keys = truth.keys.keys();
                let stood: BTreeMap<String, Version> =
                    keys.filter_map(|key| Some(((*key).to_owned(), truth.at(key, *revision)?))).collect();
                if *found != stood {
                    flaws
                        .push(format!("a list of other than what stood at {revision}: {found:?}, {stood:?}"));
                }
            }
        }
    }
    flaws
}

/// Each watcher is told everything, once, in order; and all revisions have been watched by somebody.
fn check_watches(truth: &Truth<'_>, watches: &[Watched], flaws: &mut Vec<String>) {
    for watch in watches {
        if !watch.told.is_sorted_by(|a, b| a.revision < b.revision) {
            flaws.push(format!("a watch from {} is out of order", watch.from));
        }
        let told: BTreeSet<u64> = watch.told.iter().map(|told| told.revision).collect();
        let missed = truth.all.range(watch.from + 1..=watch.until.max(watch.from));
        let missed: Vec<&&Told> =
            missed.filter(|(revision, _)| !told.contains(revision)).map(|(_, told)| told).collect();
        if !missed.is_empty() {
            flaws.push(format!("a watch from {} to {} was not told {missed:?}", watch.from, watch.until));
        }
    }
    let mut spans: Vec<(u64, u64)> = watches.iter().map(|watch| (watch.from, watch.until)).collect();
    spans.sort_unstable();
    let mut reached = spans.first().map_or(0, |span| span.0);
    for (from, until) in spans {
        if from > reached {
            flaws.push(format!("nobody watched from {reached} to {from}"));
        }
        reached = reached.max(until);
    }
}

/// A key, what is put there, and the revision of what it is put over.
type Change<'a> = (&'a str, Option<&'a str>, Option<u64>);

/// Every write that is there was asked for, made once, over what its client had seen, and not before it was asked for; and every one
/// that was acknowledged is there.
fn check_writes(truth: &Truth<'_>, floor: &Floor, ops: &[Op], flaws: &mut Vec<String>) {
    let mut asked: HashMap<Change<'_>, Vec<(&Op, &Outcome)>> = HashMap::new();
    for op in ops {
        if let Did::Wrote { over, value, outcome } = &op.did {
            asked.entry((&op.key, value.as_deref(), *over)).or_default().push((op, outcome));
        }
    }
    let mut made = BTreeMap::new();
    for (revision, told) in &truth.all {
        let over = truth.before(&told.key, *revision);
        let of = asked.get(&(told.key.as_str(), told.value.as_deref(), over));
        let possible = |(op, outcome): &&(&Op, &Outcome)| {
            floor.at(op.begun) < *revision
                && match outcome {
                    Outcome::Done(at) => at.is_none_or(|at| at == *revision),
                    Outcome::Unknown => true,
                    Outcome::Refused => false,
                }
        };
        if of.into_iter().flatten().find(possible).is_none() {
            flaws.push(format!("nobody wrote {told:?} over {over:?} then; asked for: {of:?}"));
        }
        if let Some(before) = made.insert((told.key.as_str(), told.value.as_deref(), over), *revision) {
            flaws.push(format!("made twice, at {before} and {revision}: {told:?}"));
        }
    }
    for (what, asked) in asked {
        let found = made.get(&what);
        for (op, outcome) in asked {
            let Outcome::Done(at) = outcome else { continue };
            if found.is_none_or(|found| at.is_some_and(|at| at != *found)) {
                flaws.push(format!("lost: {op:?}, found at {found:?}"));
            }
        }
    }
}

/// Why a read answered what did not stand at any moment since `known` was known.
fn misread(states: &[(u64, Option<String>)], found: Option<&Version>, known: u64) -> Option<&'static str> {
    let until = |at: usize| states.get(at + 1).map_or(u64::MAX, |next| next.0);
    match found {
        Some((revision, value)) => {
            let at = states.iter().position(|state| state.0 == *revision);
            match at {
                Some(at) if states[at].1.as_ref() != Some(value) => Some("another value"),
                Some(at) if until(at) <= known => Some("an old state"),
                Some(_) => None,
                None => Some("a state that never was"),
            }
        }
        None => {
            let at_first = states.first().is_none_or(|state| state.0 > known);
            let later = (0..states.len()).any(|at| states[at].1.is_none() && until(at) > known);
            (!at_first && !later).then_some("nothing")
        }
    }
}
