//! Tells how far a command has come.

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Who is told how far a cluster has come.
pub trait Progress: Send + Sync {
    /// A phase begins.
    fn begin(&self, phase: &str);
    /// What goes on inside the phase; may come often.
    fn detail(&self, text: &str);
    /// The phase is over, and took this long.
    fn done(&self, phase: &str, took: Duration);
    /// The phase did not end well.
    fn failed(&self, phase: &str);
    /// Something worth knowing that stops nothing.
    fn warn(&self, text: &str);
}

/// The phases of one command: tells [`Progress`] and keeps the times.
pub struct Phases<'a> {
    to: &'a dyn Progress,
    times: Mutex<Vec<(String, Duration)>>,
}

impl<'a> Phases<'a> {
    pub fn new(to: &'a dyn Progress) -> Self {
        Self { to, times: Mutex::default() }
    }

    /// Runs one phase.
    pub async fn run<T, E>(&self, name: &str, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let start = Instant::now();
        self.to.begin(name);
        let result = work.await;
        let took = start.elapsed();
        match &result {
            Ok(_) => self.to.done(name, took),
            Err(_) => self.to.failed(name),
        }
        self.times.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((name.to_owned(), took));
        result
    }

    pub fn detail(&self, text: &str) {
        self.to.detail(text);
    }

    pub fn warn(&self, text: &str) {
        self.to.warn(text);
    }

    /// The phases so far, in the order they ended.
    pub fn times(self) -> Vec<(String, Duration)> {
        self.times.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Tells nobody.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str) {}
    fn detail(&self, _: &str) {}
    fn done(&self, _: &str, _: Duration) {}
    fn failed(&self, _: &str) {}
    fn warn(&self, _: &str) {}
}
