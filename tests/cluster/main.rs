//! Tests on real Docker. One shared cluster, a namespace per test; tests of the life of a cluster make their own.
//!
//! Without Docker they are skipped, and fail when `CI=true`. Whatever happens, nothing stays behind: neither containers,
//! networks and volumes nor kubeconfig entries.

#![allow(clippy::disallowed_types)] // tried from outside, through the commands a user types
#![allow(clippy::unwrap_used)]

mod lifecycle;
mod path;
mod pods;
mod support;

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use support::{Env, docker};

/// A test: its name, whether it uses the shared cluster, and what it does.
type Test = (&'static str, fn(&Env));

fn main() {
    let arguments = Arguments::from_args();
    let tests: Vec<Test> = [lifecycle::TESTS, path::TESTS, pods::TESTS].concat();
    if !arguments.list && !docker::answers() {
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        let verdict = if ci { "failing, as this is CI" } else { "skipping these tests" };
        println!("Docker does not answer: {verdict}");
        std::process::exit(if ci { 1 } else { 0 });
    }
    std::process::exit(if run(&arguments, tests).has_failed() { 1 } else { 0 });
}

fn run(arguments: &Arguments, tests: Vec<Test>) -> Conclusion {
    let env: &'static Env = Box::leak(Box::new(Env::new()));
    if !arguments.list {
        env.remove_leftovers();
    }
    let trials = tests
        .into_iter()
        .map(|(name, test)| {
            Trial::test(name, move || {
                std::panic::catch_unwind(|| test(env))
                    .map_err(|panic| Failed::from(support::panic_text(&panic)))
            })
        })
        .collect();
    // Clusters share two or four cores with each other: one test after the other, unless asked otherwise.
    let mut arguments = arguments.clone();
    arguments.test_threads = arguments.test_threads.or(Some(1));
    let conclusion = libtest_mimic::run(&arguments, trials);
    env.clean_up();
    conclusion
}
