//! A program that has the terminal: it reads and writes what this process would, and its end is waited for.

use std::process::{ExitStatus, Stdio};

use super::exec::ExecError;
use rt::Stop;

/// Runs a program to its end and returns its exit code as a shell would say it. When `stop` is cancelled the program, which
/// got the same Ctrl-C, is told to end. Fails when it cannot be started.
#[allow(clippy::disallowed_types)] // the kernel seam
pub async fn run(words: &[String], variables: &[(&str, &str)], stop: &Stop) -> Result<u8, ExecError> {
    let line = words.join(" ");
    let fail = |source| ExecError::Start { line: line.clone(), source };
    let (program, args) =
        words.split_first().ok_or_else(|| fail(std::io::Error::other("there is no program to run")))?;
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .envs(variables.iter().copied())
        .spawn()
        .map_err(fail)?;
    let status = tokio::select! {
        status = child.wait() => status,
        () = stop.cancelled() => {
            if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM);
            }
            child.wait().await
        }
    };
    Ok(code(status.map_err(fail)?))
}

fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
        (None, Some(signal)) => u8::try_from(128 + signal).unwrap_or(u8::MAX),
        (None, None) => u8::MAX,
    }
}

/// Holds a process that acts when this one has ended, however it ended.
#[allow(clippy::disallowed_types)] // the kernel seam
pub struct Heir {
    child: tokio::process::Child,
    _input: tokio::process::ChildStdin,
}

impl Heir {
    /// It has nothing to do any more. Fails when it cannot be told: then it acts when this process ends.
    pub async fn dismiss(mut self) -> std::io::Result<()> {
        self.child.kill().await
    }
}

/// Starts this very program again, in a session of its own, with an input that ends when this process does. Fails when it
/// cannot be started.
#[allow(clippy::disallowed_types)] // the kernel seam
pub fn heir(args: &[&str]) -> Result<Heir, ExecError> {
    let fail = |source| ExecError::Start { line: args.join(" "), source };
    let mut command = std::process::Command::new("/proc/self/exe");
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    own_session(&mut command);
    let mut child = tokio::process::Command::from(command).spawn().map_err(fail)?;
    match child.stdin.take() {
        Some(_input) => Ok(Heir { child, _input }),
        None => Err(fail(std::io::Error::other("it has no input"))),
    }
}

/// Starts this very program again, in a session of its own and without a terminal; it goes on when this process ends.
/// Answers its process id. Fails when it cannot be started.
#[allow(clippy::disallowed_types)] // the kernel seam
pub fn detached(args: &[&str]) -> Result<i32, ExecError> {
    let fail = |source| ExecError::Start { line: args.join(" "), source };
    let mut command = std::process::Command::new("/proc/self/exe");
    command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    own_session(&mut command);
    let child = command.spawn().map_err(fail)?;
    i32::try_from(child.id()).map_err(|error| fail(std::io::Error::other(error)))
}

#[allow(clippy::disallowed_types)] // the kernel seam
fn own_session(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only setsid is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(std::io::Error::from));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_exit_code_is_passed_on() {
        let run = async |script: &str| {
            let words = ["sh", "-c", script].map(ToOwned::to_owned);
            run(&words, &[("CODE", "7")], &Stop::new()).await.expect("sh starts")
        };
        assert_eq!(run("true").await, 0);
        assert_eq!(run("exit $CODE").await, 7);
        assert_eq!(run("kill -9 $$").await, 137);
        assert!(super::run(&["no-such-program".to_owned()], &[], &Stop::new()).await.is_err());
    }

    #[tokio::test]
    async fn a_stop_ends_it() {
        let stop = Stop::new();
        stop.cancel();
        let words = ["sleep", "600"].map(ToOwned::to_owned);
        assert_eq!(run(&words, &[], &stop).await.expect("it starts"), 143);
    }
}
