//! Inputs, changes of them, and a decoder that is tried on both.

use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// Changed inputs per file of a corpus. More by `MINIK_FUZZ_ROUNDS`, to look for what a short run does not find.
const ROUNDS: usize = 300;
/// No input of a few kilobytes takes a decoder this long, on whatever machine.
const LONG: Duration = Duration::from_secs(10);

/// The files of a folder, in a fixed order.
pub fn corpus(folder: &Path) -> Vec<Vec<u8>> {
    let mut corpus: Vec<_> = std::fs::read_dir(folder)
        .expect("a corpus")
        .map(|file| file.expect("a file").path())
        .map(|path| std::fs::read(&path).expect("readable"))
        .collect();
    corpus.sort();
    corpus
}

/// Tries every input, and changes of it.
pub fn all(name: &str, corpus: &[Vec<u8>], decode: &impl Fn(&[u8])) {
    let rounds = std::env::var("MINIK_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    let rounds = rounds.unwrap_or(ROUNDS * 10 / corpus.len().max(10)).max(3);
    let mut random = SmallRng::seed_from_u64(1);
    for seed in corpus {
        assert!(one(seed, decode).is_ok(), "{name} fails on {:?}", String::from_utf8_lossy(seed));
        for _ in 0..rounds {
            let input = changed(seed, corpus, &mut random);
            let failed = one(&input, decode);
            assert!(failed.is_ok(), "{name}: {failed:?} on {:?}", String::from_utf8_lossy(&input));
        }
    }
}

/// Tries one input. Fails with what went wrong.
pub fn one(input: &[u8], decode: &impl Fn(&[u8])) -> Result<(), &'static str> {
    let begun = Instant::now();
    std::panic::catch_unwind(AssertUnwindSafe(|| decode(input))).map_err(|_| "a panic")?;
    if begun.elapsed() > LONG { Err("it took too long") } else { Ok(()) }
}

/// A few changes of an input.
pub fn changed(seed: &[u8], corpus: &[Vec<u8>], random: &mut SmallRng) -> Vec<u8> {
    let mut input = seed.to_vec();
    for _ in 0..random.random_range(1..6) {
        change(&mut input, corpus, random);
    }
    input
}

/// One change: a bit, a byte, a piece cut, doubled, or brought from another input.
fn change(input: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut SmallRng) {
    const TELLING: &[u8] = b"\0\x01\x7f\x80\xff{}[]\",:/~-=!()0";
    if input.is_empty() {
        input.push(random.random());
        return;
    }
    let at = random.random_range(0..input.len());
    let to = random.random_range(at..input.len());
    match random.random_range(0..6) {
        0 => input[at] ^= 1 << random.random_range(0..8),
        1 => input[at] = TELLING[random.random_range(0..TELLING.len())],
        2 => input.insert(at, TELLING[random.random_range(0..TELLING.len())]),
        3 => drop(input.drain(at..to)),
        4 if input.len() < 1 << 16 => {
            let piece = input[at..to].to_vec();
            input.splice(at..at, piece);
        }
        _ => {
            let other = &corpus[random.random_range(0..corpus.len())];
            let from = random.random_range(0..=other.len());
            input.splice(at..to, other[from..].iter().copied());
        }
    }
}
