//! What the tests stand on: the environment with its shared cluster, commands, and bounded waits.

mod command;
pub mod docker;
mod env;

use std::any::Any;
use std::time::{Duration, Instant};

pub use command::{Run, run, run_in_terminal};
pub use env::{Cluster, Env, test_images, tutorial_images};

/// Tries `cond` until it answers something, at most `timeout`; what it answers last but one is in the failure.
#[allow(clippy::disallowed_methods)] // the one place where tests wait: clients outside give no event for "curl works"
pub fn eventually<T>(timeout: Duration, what: &str, mut cond: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match cond() {
            Ok(value) => return value,
            Err(why) if start.elapsed() > timeout => panic!("not within {timeout:?}: {what}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// What a test said when it failed.
pub fn panic_text(panic: &Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("the test panicked").to_owned()
}
