//! Tracked tasks, and the stop token that ends them.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The stop token: cloned into everything that waits, cancelled once.
pub type Stop = CancellationToken;

/// Some tasks outlived the drain bound.
#[derive(Debug, thiserror::Error)]
#[error("{left} task(s) still running {bound:?} after stop")]
pub struct DrainError {
    pub left: usize,
    pub bound: Duration,
}

/// The tasks of one role. Every task of the process is spawned here, so that stopping is complete:
/// nothing keeps running behind a role's back.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: Stop,
}

impl Tasks {
    /// An empty set with a stop token of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// A set whose tasks are drained separately, but which stops when this one stops.
    pub fn child(&self) -> Self {
        Self { tracker: TaskTracker::new(), stop: self.stop.child_token() }
    }

    /// The token that tells tasks to finish.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    /// Spawns a task that watches the stop token itself and ends by its own means.
    #[allow(clippy::disallowed_methods)] // the one place that may: it tracks what it spawns
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.tracker.spawn(task)
    }

    /// Spawns a task that is dropped at its next await point once the set stops.
    pub fn spawn_until_stop<F>(&self, task: F) -> JoinHandle<Option<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let stop = self.stop.clone();
        self.spawn(async move { stop.run_until_cancelled(task).await })
    }

    /// Runs blocking work on the blocking pool, tracked.
    pub fn spawn_blocking<F, T>(&self, work: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.tracker.spawn_blocking(work)
    }

    /// Stops the set and waits for its tasks, at most `bound`.
    pub async fn drain(&self, bound: Duration) -> Result<(), DrainError> {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(bound, self.tracker.wait())
            .await
            .map_err(|_| DrainError { left: self.tracker.len(), bound })
    }
}

/// What a panic said, where it said a text.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_waits_for_tasks_that_obey_the_token() {
        let tasks = Tasks::new();
        let stop = tasks.stop();
        tasks.spawn(async move { stop.cancelled().await });
        tasks.spawn_until_stop(std::future::pending::<()>());
        tasks.drain(Duration::from_secs(5)).await.expect("both end");
    }

    #[tokio::test]
    async fn drain_names_what_is_left() {
        let tasks = Tasks::new();
        tasks.spawn(std::future::pending::<()>());
        let error = tasks.drain(Duration::from_millis(10)).await.expect_err("one ignores the token");
        assert_eq!(error.left, 1);
    }
}
