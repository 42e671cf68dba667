//! The checker of histories finds what cannot have been, and nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::history::{Did, Op, Outcome, Told, Watched, flaws};

fn op(begun: u64, ended: u64, did: Did) -> Op {
    let [begun, ended] = [begun, ended].map(Duration::from_secs);
    Op { key: "k".to_owned(), begun, ended, did }
}

fn wrote(over: Option<u64>, value: &str, outcome: Outcome) -> Did {
    Did::Wrote { over, value: Some(value.to_owned()).filter(|value| value != "gone"), outcome }
}

fn done(over: Option<u64>, value: &str, at: u64) -> Did {
    wrote(over, value, Outcome::Done(Some(at)))
}

fn told(revision: u64, value: &str) -> Told {
    Told { revision, key: "k".to_owned(), value: Some(value.to_owned()).filter(|value| value != "gone") }
}

fn watched(until: u64, told: &[Told]) -> Watched {
    Watched { from: 0, until, told: told.to_vec() }
}

fn all() -> [Told; 4] {
    [told(1, "a"), told(3, "b"), told(5, "gone"), told(6, "c")]
}

/// A history with all that may be: an outcome that is not known, a delete, and reads and lists in between.
fn sound() -> Vec<Op> {
    let list = |revision, version: Option<(u64, &str)>| Did::Listed {
        revision,
        found: version.into_iter().map(|(at, value)| ("k".to_owned(), (at, value.to_owned()))).collect(),
    };
    vec![
        op(0, 1, done(None, "a", 1)),
        op(2, 9, wrote(Some(1), "b", Outcome::Unknown)),
        op(3, 4, Did::Read(Some((1, "a".to_owned())))),
        op(5, 6, list(4, Some((3, "b")))),
        op(6, 7, wrote(Some(1), "x", Outcome::Refused)),
        op(7, 8, wrote(Some(3), "gone", Outcome::Done(None))),
        op(8, 9, Did::Read(None)),
        op(9, 10, done(None, "c", 6)),
        op(9, 11, Did::Read(None)),
        op(12, 13, list(6, Some((6, "c")))),
    ]
}

#[track_caller]
fn flawed(ops: Vec<Op>, told: &[Told], expect: &str) {
    let flaws = flaws(&ops, &[watched(6, &all()), watched(6, told)]);
    assert!(flaws.iter().any(|flaw| flaw.contains(expect)), "{expect}: {flaws:#?}");
}

fn with(more: Op) -> Vec<Op> {
    sound().into_iter().chain([more]).collect()
}

#[test]
fn what_can_have_been_is_no_flaw() {
    assert_eq!(flaws(&sound(), &[watched(6, &all()), watched(3, &all()[..2])]), Vec::<String>::new());
}

#[test]
fn watches_tell_everything_once_in_order() {
    let [a, b, gone, c] = all();
    flawed(sound(), &[a.clone(), gone.clone(), c.clone()], "was not told");
    flawed(sound(), &[b.clone(), a.clone(), gone.clone(), c.clone()], "out of order");
    flawed(sound(), &[a.clone(), b.clone(), told(4, "z"), gone.clone(), c.clone()], "nobody wrote");
    flawed(sound(), &[a, told(3, "other"), gone, c], "revision twice");
    let late = Watched { from: 7, until: 9, told: Vec::new() };
    assert!(flaws(&sound(), &[watched(6, &all()), late])[0].contains("nobody watched"));
}

#[test]
fn writes_are_made_once_as_they_were_asked_for() {
    flawed(with(op(20, 21, done(Some(6), "d", 7))), &all(), "lost");
    flawed(with(op(20, 21, wrote(Some(6), "gone", Outcome::Done(None)))), &all(), "lost");
    let mut refused = sound();
    refused[1] = op(2, 9, wrote(Some(1), "b", Outcome::Refused));
    flawed(refused, &all(), "nobody wrote");
    let mut blind = sound();
    blind[1] = op(2, 9, wrote(None, "b", Outcome::Unknown));
    flawed(blind, &all(), "nobody wrote");
    let mut early = sound();
    early[1] = op(7, 9, wrote(Some(1), "b", Outcome::Unknown));
    flawed(early, &all(), "nobody wrote");
    let twice = [told(1, "a"), told(3, "b"), told(5, "gone"), told(6, "c"), told(7, "gone"), told(8, "c")];
    let twice = [watched(8, &twice)];
    assert!(flaws(&sound(), &twice).iter().any(|flaw| flaw.contains("made twice")));
}

#[test]
fn reads_answer_what_stood_meanwhile() {
    let read =
        |found: Option<(u64, &str)>| op(20, 21, Did::Read(found.map(|(at, value)| (at, value.to_owned()))));
    flawed(with(read(Some((3, "b")))), &all(), "an old state");
    flawed(with(read(Some((6, "b")))), &all(), "another value");
    flawed(with(read(Some((4, "z")))), &all(), "a state that never was");
    flawed(with(read(None)), &all(), "nothing");
    let old = Did::Listed { revision: 5, found: BTreeMap::new() };
    flawed(with(op(20, 21, old)), &all(), "an old list");
    let other = Did::Listed { revision: 6, found: BTreeMap::new() };
    flawed(with(op(20, 21, other)), &all(), "a list of other than what stood");
}
