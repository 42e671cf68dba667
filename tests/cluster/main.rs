//! Tests on real Docker. One shared cluster, a namespace per test; tests of the life of a cluster make their own.
//!
//! Without Docker they say that they did not run, and fail when `CI=true`. Whatever happens, nothing stays behind: neither containers,
//! networks and volumes nor kubeconfig entries.

#![allow(clippy::disallowed_types)] // tried from outside, through the commands a user types
#![allow(clippy::unwrap_used)]

mod broken;
mod csi;
mod engine;
mod faults;
#[path = "../history/mod.rs"]
mod history;
mod lifecycle;
mod network;
mod network_rules;
mod path;
mod pods;
mod registry;
mod servers;
mod servers_faults;
mod snapshots;
mod support;
mod tutorials;

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use support::{Env, docker};

/// A test: its name, whether it uses the shared cluster, and what it does.
type Test = (&'static str, fn(&Env));

fn main() {
    if std::env::args().nth(1).as_deref() == Some(csi::DRIVER) {
        return csi::run_driver();
    }
    let arguments = Arguments::from_args();
    let tests: Vec<Test> = [
        lifecycle::TESTS,
        network::TESTS,
        network_rules::TESTS,
        path::TESTS,
        pods::TESTS,
        faults::TESTS,
        broken::TESTS,
        registry::TESTS,
        servers::TESTS,
        snapshots::TESTS,
        tutorials::TESTS,
    ]
    .concat();
    // Asked for by `--ignored`: they take minutes.
    let slow: Vec<Test> =
        [faults::SLOW, engine::SLOW, csi::SLOW, servers_faults::SLOW, tutorials::SLOW].concat();
    if !arguments.list && !docker::answers() {
        did_not_run(&arguments, &tests);
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        std::process::exit(if ci { 1 } else { 0 });
    }
    std::process::exit(if run(&arguments, tests, slow).has_failed() { 1 } else { 0 });
}

/// Names every test that would have run: nobody shall take their silence for success.
fn did_not_run(arguments: &Arguments, tests: &[Test]) {
    let wanted = |name: &str| arguments.filter.as_deref().is_none_or(|filter| name.contains(filter));
    for (name, _) in tests.iter().filter(|(name, _)| wanted(name)) {
        eprintln!("DID NOT RUN {name}: Docker does not answer");
    }
}

fn run(arguments: &Arguments, tests: Vec<Test>, slow: Vec<Test>) -> Conclusion {
    let env: &'static Env = Box::leak(Box::new(Env::new()));
    if !arguments.list {
        env.remove_leftovers();
    }
    let trial = |(name, test): Test| {
        Trial::test(name, move || {
            std::panic::catch_unwind(|| test(env)).map_err(|panic| Failed::from(support::panic_text(&panic)))
        })
    };
    let slow = slow.into_iter().map(|test| trial(test).with_ignored_flag(true));
    let trials = tests.into_iter().map(trial).chain(slow).collect();
    // Clusters share two or four cores with each other: one test after the other, unless asked otherwise.
    let mut arguments = arguments.clone();
    arguments.test_threads = arguments.test_threads.or(Some(1));
    let conclusion = libtest_mimic::run(&arguments, trials);
    env.clean_up();
    conclusion
}
