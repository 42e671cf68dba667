//! Looks for inputs that reach code no other input has reached: each is kept, and changed further. The compiler's own
//! counters (`-C instrument-coverage`, which `scripts/fuzz` asks for) say what ran.

use std::path::Path;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::SmallRng;

use super::tried::{changed, one};

/// What is kept is no longer than this.
const SIZE: usize = 4096;

unsafe extern "C" {
    fn __llvm_profile_begin_counters() -> *mut u64;
    fn __llvm_profile_end_counters() -> *mut u64;
}

/// One number for every stretch of code: how often it ran.
fn counters() -> &'static mut [u64] {
    // SAFETY: the runtime's own section, which lives as long as the process; one thread runs while this is used, and code
    // that counts up meanwhile writes through the same addresses, as with any volatile memory.
    unsafe {
        let (from, to) = (__llvm_profile_begin_counters(), __llvm_profile_end_counters());
        let length = usize::try_from(to.offset_from(from)).expect("in order");
        std::slice::from_raw_parts_mut(from, length)
    }
}

/// How long to look, from the environment; `None`: not at all.
pub fn time() -> Option<Duration> {
    let seconds = std::env::var("MINIK_FUZZ_SECONDS").ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// What has been reached: for each counter the sizes of numbers it has shown, a bit each.
struct Reached(Vec<u8>);

impl Reached {
    fn nothing() -> Self {
        Self(vec![0; counters().len()])
    }

    /// Runs one input; answers whether it reached anything new.
    fn run(&mut self, input: &[u8], decode: &impl Fn(&[u8])) -> Result<bool, &'static str> {
        counters().fill(0);
        one(input, decode)?;
        let mut new = false;
        for (count, seen) in counters().iter().zip(&mut self.0).filter(|(count, _)| **count > 0) {
            let bit = 1 << (count.ilog2() / 2).min(7);
            new |= *seen & bit == 0;
            *seen |= bit;
        }
        Ok(new)
    }
}

/// Looks for `time`. What was found goes to `folder`, as little of it as reaches the same; what fails goes there, too, and
/// then this fails.
pub fn search(folder: &Path, mut corpus: Vec<Vec<u8>>, time: Duration, decode: &impl Fn(&[u8])) {
    let known = corpus.len();
    let mut random: SmallRng = rand::make_rng();
    let mut reached = Reached::nothing();
    let begun = Instant::now();
    let mut tried = 0_u64;
    for seed in &corpus {
        reached.run(seed, decode).expect("the corpus passes");
    }
    while begun.elapsed() < time {
        // The newest are the least explored.
        let from = if random.random_bool(0.5) { corpus.len().saturating_sub(20) } else { 0 };
        let input = changed(&corpus[random.random_range(from..corpus.len())], &corpus, &mut random);
        if input.len() > SIZE {
            continue;
        }
        tried += 1;
        match reached.run(&input, decode) {
            Ok(false) => {}
            Ok(true) => corpus.push(input),
            Err(why) => {
                let path = keep(folder, "failed", &input);
                panic!("{why}: see {}", path.display());
            }
        }
    }
    let mut found = corpus.split_off(known);
    let count = found.len();
    found.sort_by_key(Vec::len);
    let mut reached = Reached::nothing();
    for seed in &corpus {
        reached.run(seed, decode).expect("the corpus passes");
    }
    found.retain(|input| reached.run(input, decode).expect("it passed before"));
    for input in &found {
        keep(folder, "found", input);
    }
    println!("{}: {tried} tried, {count} reached more, {} kept", folder.display(), found.len());
}

fn keep(folder: &Path, what: &str, input: &[u8]) -> std::path::PathBuf {
    let hash = ring::digest::digest(&ring::digest::SHA256, input);
    let path = folder.join(format!("{what}-{}", &hex::encode(hash)[..12]));
    std::fs::write(&path, input).expect("written");
    path
}
