//! Keeps a program running: when it ends it is started again, later each time that it does not last.

use std::fmt::Display;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use rt::{Backoff, Stop};

use crate::exec::{Daemon, log_tail};

const RESTART: Backoff = Backoff { first: Duration::from_millis(250), max: Duration::from_secs(30) };

/// A program that is kept running.
pub trait Program: Send + 'static {
    /// What it is called in our own log.
    const NAME: &'static str;
    /// How long it may take to end when it is asked to.
    const STOP: Duration;
    type Error: Display + Send;

    /// Where it writes its own log.
    fn log(&self) -> &Path;

    /// Starts it; returns when it serves.
    ///
    /// # Errors
    ///
    /// It does not start, or does not come to serve.
    fn start(&self) -> impl Future<Output = Result<Daemon, Self::Error>> + Send;

    /// It has ended, or serves again.
    fn serves(&self, _serves: bool) {}
}

/// Keeps a program running, which `daemon` is at first, until `stop`; then it is asked to end.
pub async fn keep<P: Program>(program: P, mut daemon: Daemon, stop: Stop) {
    let mut failures = 0;
    loop {
        let started = tokio::time::Instant::now();
        tokio::select! {
            () = stop.cancelled() => return daemon.stop(P::STOP).await,
            status = daemon.wait() => {
                tracing::error!(?status, log = log_tail(program.log(), 5), "{} ended; starting it again", P::NAME);
            }
        }
        program.serves(false);
        failures = if started.elapsed() > RESTART.max { 1 } else { failures + 1 };
        match stop.run_until_cancelled(again(&program, &mut failures)).await {
            Some(again) => daemon = again,
            None => return,
        }
        program.serves(true);
    }
}

async fn again<P: Program>(program: &P, failures: &mut u32) -> Daemon {
    loop {
        tokio::time::sleep(RESTART.delay(*failures)).await;
        match program.start().await {
            Ok(daemon) => return daemon,
            // With what caused it, where the error can tell.
            Err(error) => tracing::error!(error = format!("{error:#}"), "{} does not start", P::NAME),
        }
        *failures += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rt::Tasks;

    use super::*;
    use crate::exec::{ExecError, Invocation};

    /// Ends at once, fails to start the second time, and runs from then on.
    struct Unsteady {
        log: PathBuf,
        starts: Arc<AtomicU32>,
        serving: tokio::sync::watch::Sender<Vec<bool>>,
    }

    impl Program for Unsteady {
        const NAME: &'static str = "unsteady";
        const STOP: Duration = Duration::from_secs(5);
        type Error = ExecError;

        fn log(&self) -> &Path {
            &self.log
        }

        async fn start(&self) -> Result<Daemon, ExecError> {
            match self.starts.fetch_add(1, Ordering::SeqCst) {
                0 => Daemon::start(&Invocation::new("/does/not/exist", []), &self.log),
                _ => Daemon::start(&Invocation::new("sleep", ["600"]), &self.log),
            }
        }

        fn serves(&self, serves: bool) {
            self.serving.send_modify(|seen| seen.push(serves));
        }
    }

    #[tokio::test]
    async fn what_ends_is_started_until_it_stays_and_ended_with_its_supervisor() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = folder.path().join("log");
        let first = Daemon::start(&Invocation::new("true", []), &log).expect("true");
        let (serving, mut seen) = tokio::sync::watch::channel(vec![]);
        let starts = Arc::new(AtomicU32::new(0));
        let tasks = Tasks::new();
        let program = Unsteady { log, starts: Arc::clone(&starts), serving };
        let kept = tasks.spawn(keep(program, first, tasks.stop()));
        let settled = seen.wait_for(|seen| *seen == [false, true]);
        tokio::time::timeout(Duration::from_secs(20), settled).await.expect("in time").expect("it runs");
        assert_eq!(starts.load(Ordering::SeqCst), 2, "one failed");
        tasks.stop().cancel();
        tokio::time::timeout(Duration::from_secs(20), kept).await.expect("in time").expect("no panic");
    }
}
