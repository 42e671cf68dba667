//! Processes: the one place that starts them, and the fake that only writes down what would be started.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::AsyncWriteExt;

/// One command to run to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    pub program: String,
    pub args: Vec<String>,
    /// What the program reads on standard input; `None` gives it an empty one.
    pub stdin: Option<Vec<u8>>,
}

impl Invocation {
    /// `program` with `args` and nothing on standard input.
    pub fn new<'a>(program: &str, args: impl IntoIterator<Item = &'a str>) -> Self {
        let args = args.into_iter().map(str::to_owned).collect();
        Self { program: program.to_owned(), args, stdin: None }
    }

    /// The same command, reading `input`.
    pub fn with_stdin(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(input.into());
        self
    }

    /// The command line, for messages.
    pub fn line(&self) -> String {
        let mut line = self.program.clone();
        for arg in &self.args {
            line.push(' ');
            line.push_str(arg);
        }
        line
    }
}

/// What a finished command left behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// Why a command did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    #[error("cannot start `{line}`: {source}")]
    Start { line: String, source: std::io::Error },
    #[error("`{line}` ended with {status}: {stderr}")]
    Failed { line: String, status: String, stderr: String },
}

/// The answer of [`Exec::run`].
pub type Running<'a> = Pin<Box<dyn Future<Output = Result<Output, ExecError>> + Send + 'a>>;

/// Whatever runs commands: the system, or the recorder.
pub trait Exec: Send + Sync + 'static {
    /// Runs a command to its end; a non-zero exit is an error that carries standard error.
    fn run(&self, invocation: Invocation) -> Running<'_>;
}

/// The real thing.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

#[allow(clippy::disallowed_types)] // the one place that starts processes
fn command(invocation: &Invocation) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(&invocation.program);
    command.args(&invocation.args).kill_on_drop(true);
    command
}

impl Exec for System {
    fn run(&self, invocation: Invocation) -> Running<'_> {
        Box::pin(async move {
            let line = invocation.line();
            let fail = |source| ExecError::Start { line: line.clone(), source };
            let mut command = command(&invocation);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.stdin(if invocation.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
            let mut child = command.spawn().map_err(fail)?;
            let stdin = child.stdin.take();
            let feed = async {
                if let (Some(mut pipe), Some(input)) = (stdin, &invocation.stdin) {
                    // A program may end without reading everything; its exit code tells whether that was wrong.
                    let _ = pipe.write_all(input).await;
                }
            };
            let ((), output) = tokio::join!(feed, child.wait_with_output());
            let output = output.map_err(fail)?;
            if output.status.success() {
                return Ok(Output { stdout: output.stdout, stderr: output.stderr });
            }
            // Some say what is wrong where they say everything else.
            let said = if output.stderr.is_empty() { &output.stdout } else { &output.stderr };
            let stderr = String::from_utf8_lossy(said).trim().to_owned();
            Err(ExecError::Failed { line, status: output.status.to_string(), stderr })
        })
    }
}

/// A process that is meant to live as long as its supervisor; it dies with it.
#[derive(Debug)]
pub struct Daemon {
    child: tokio::process::Child,
}

impl Daemon {
    /// Starts `invocation` with both outputs appended to the file at `log`.
    pub fn start(invocation: &Invocation, log: &std::path::Path) -> Result<Self, ExecError> {
        let fail = |source| ExecError::Start { line: invocation.line(), source };
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log).map_err(fail)?;
        let errors = file.try_clone().map_err(fail)?;
        let mut command = command(invocation);
        command.stdin(Stdio::null()).stdout(file).stderr(errors);
        let child = command.spawn().map_err(fail)?;
        Ok(Self { child })
    }

    /// Ends what an earlier supervisor that was killed left running, by the file in which [`Daemon::note`] wrote it down: it
    /// is asked to end, and killed after `bound`.
    pub async fn end_leftover(note: &std::path::Path, program: &str, bound: std::time::Duration) {
        let pid = std::fs::read_to_string(note).ok().and_then(|text| text.trim().parse::<i32>().ok());
        let Some(pid) = pid else { return };
        // Another process may have the number by now.
        let is_it = || {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).next() == Some(program.as_bytes())
        };
        let target = nix::unistd::Pid::from_raw(pid);
        let started = tokio::time::Instant::now();
        while is_it() {
            let patient = started.elapsed() < bound;
            let signal = if patient { nix::sys::signal::SIGTERM } else { nix::sys::signal::SIGKILL };
            let _ = nix::sys::signal::kill(target, signal);
            // It is nobody's child here: no event tells of its end.
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }

    /// Writes down which process this is, for a supervisor that comes after this one.
    pub fn note(&self, note: &std::path::Path) -> std::io::Result<()> {
        std::fs::write(note, self.pid().unwrap_or_default().to_string())
    }

    /// Process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end and returns how it ended.
    pub async fn wait(&mut self) -> std::io::Result<std::process::ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to end (SIGTERM) and waits at most `bound` before it is killed.
    pub async fn stop(&mut self, bound: std::time::Duration) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM);
        }
        if tokio::time::timeout(bound, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// The last lines of the file at `log`; empty if it cannot be read.
pub fn log_tail(log: &std::path::Path, lines: usize) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Writes down what it is asked to run and answers from a prepared list (success with no output when that is empty).
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    seen: Vec<Invocation>,
    answers: VecDeque<Result<Output, ExecError>>,
}

impl Recorder {
    fn lock(&self) -> std::sync::MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to the next command that has none yet.
    pub fn answer(&self, answer: Result<Output, ExecError>) {
        self.lock().answers.push_back(answer);
    }

    /// Everything asked for so far, oldest first; forgets it.
    pub fn take(&self) -> Vec<Invocation> {
        std::mem::take(&mut self.lock().seen)
    }
}

impl Exec for Recorder {
    fn run(&self, invocation: Invocation) -> Running<'_> {
        let answer = {
            let mut inner = self.lock();
            inner.seen.push(invocation);
            inner.answers.pop_front().unwrap_or_else(|| Ok(Output::default()))
        };
        Box::pin(std::future::ready(answer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn runs_feeds_and_reports() {
        let cat = Invocation::new("cat", []).with_stdin("hello");
        assert_eq!(System.run(cat).await.expect("cat").stdout, b"hello");
        let failing = Invocation::new("sh", ["-c", "echo no >&2; exit 3"]);
        let message = System.run(failing).await.expect_err("fails").to_string();
        assert!(message.contains("exit status: 3") && message.ends_with("no"), "{message}");
        assert!(matches!(
            System.run(Invocation::new("/nonexistent", [])).await,
            Err(ExecError::Start { .. })
        ));
    }

    #[tokio::test]
    async fn a_leftover_is_ended_and_nobody_else() {
        let dir = tempfile::tempdir().expect("folder");
        let (log, note) = (dir.path().join("log"), dir.path().join("pid"));
        let mut daemon = Daemon::start(&Invocation::new("sleep", ["600"]), &log).expect("started");
        daemon.note(&note).expect("noted");
        // Spawning ends a moment before the kernel shows the new program's command line.
        let line = format!("/proc/{}/cmdline", daemon.pid().expect("runs"));
        while std::fs::read(&line).expect("its line").is_empty() {
            tokio::task::yield_now().await;
        }
        let bound = std::time::Duration::from_secs(5);
        Daemon::end_leftover(&note, "another", bound).await;
        assert!(daemon.pid().is_some(), "somebody else's number");
        let (ended, ()) = tokio::join!(daemon.wait(), Daemon::end_leftover(&note, "sleep", bound));
        assert!(!ended.expect("waited for").success());
        Daemon::end_leftover(&dir.path().join("none"), "sleep", bound).await;
    }

    #[tokio::test]
    async fn the_recorder_only_writes_down() {
        let recorder = Recorder::default();
        recorder.answer(Ok(Output { stdout: b"1".to_vec(), stderr: Vec::new() }));
        let answer =
            recorder.run(Invocation::new("iptables-restore", ["--noflush"])).await.expect("answered");
        assert_eq!(answer.stdout, b"1");
        assert_eq!(recorder.take(), [Invocation::new("iptables-restore", ["--noflush"])]);
    }
}
