//! PID 1: starts the role process, forwards signals to it, reaps orphans and exits with its code. A role that somebody
//! killed is started again: the containers beside it need not end for that.
//!
//! It is a process of its own because whatever is orphaned in the container becomes a child of PID 1: were the role
//! process PID 1, a reaper there would steal exit statuses from the processes it waits for itself.
//!
//! ```text
//! spawn role --SIGCHLD--> reap all --role ended--> exit with its code (128 + n after signal n)
//!      ^                      \--killed, and nobody told it to end--\
//!      \-------------------------------------------------------------/
//!        \--SIGUSR2--> exit at once: what else runs is killed with it
//!        \--any other signal--> forward to the role
//! ```

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// A role that is killed sooner than this after its start would be killed again: the container ends, and whoever made it
/// decides.
const LEAST: Duration = Duration::from_secs(2);

/// Ends process 1, and so the container, without any warning: what a power cut is to a machine.
const END_AT_ONCE: Signal = Signal::SIGUSR2;
/// The exit code of what was killed.
const KILLED: u8 = 137;

/// Ends this container as if its power was cut; the engine starts it again. Fails where process 1 cannot be told.
pub fn end_at_once() -> io::Result<()> {
    Ok(kill(Pid::from_raw(1), END_AT_ONCE)?)
}

/// Runs this very program again with `args` and stays as its init until it ends. Returns the exit code to end with.
///
/// Call it before any thread exists: it blocks all signals of the calling thread and waits for them.
pub fn run<S: AsRef<OsStr>>(args: &[S]) -> io::Result<u8> {
    let signals = SigSet::all();
    signals.thread_block()?;
    let (mut role, mut started) = (spawn_self(args)?, Instant::now());
    let mut told = false;
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => match reap(role)? {
                None => {}
                Some(WaitStatus::Signaled(_, signal, _)) if !told && started.elapsed() >= LEAST => {
                    eprintln!(
                        "the node's program was ended by {signal}; starting it again beside its containers"
                    );
                    (role, started) = (spawn_self(args)?, Instant::now());
                }
                Some(status) => return Ok(exit_code(status).unwrap_or(u8::MAX)),
            },
            // Whatever else runs dies with process 1, at once.
            END_AT_ONCE => return Ok(KILLED),
            // Raised by this process's own faults or terminal; a forwarded copy would mean something else.
            Signal::SIGTTIN | Signal::SIGTTOU | Signal::SIGPIPE | Signal::SIGWINCH => {}
            signal => {
                told |= matches!(signal, Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT);
                match kill(role, signal) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
        }
    }
}

#[allow(clippy::disallowed_types)] // before the runtime: this is the seam itself
fn spawn_self<S: AsRef<OsStr>>(args: &[S]) -> io::Result<Pid> {
    let mut command = std::process::Command::new("/proc/self/exe");
    command.args(args);
    // The blocked signals are this process's own: inherited, they would reach the last container, and nothing in it
    // could be told to end.
    // SAFETY: between fork and exec only the signal mask is set, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| SigSet::empty().thread_set_mask().map_err(io::Error::from));
    }
    let child = command.spawn()?;
    let id = i32::try_from(child.id()).map_err(io::Error::other)?;
    Ok(Pid::from_raw(id))
}

/// Reaps everything that has ended; how the role ended once it is among them.
fn reap(role: Pid) -> io::Result<Option<WaitStatus>> {
    let mut ended = None;
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(ended),
            Ok(status @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..)))
                if status.pid() == Some(role) =>
            {
                ended = Some(status);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// What a shell would call it: the code itself, or 128 + the signal's number.
fn exit_code(status: WaitStatus) -> Option<u8> {
    match status {
        WaitStatus::Exited(_, code) => Some(u8::try_from(code & 0xff).unwrap_or(u8::MAX)),
        WaitStatus::Signaled(_, signal, _) => u8::try_from(128 + signal as i32).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_shell_s() {
        let pid = Pid::from_raw(7);
        assert_eq!(exit_code(WaitStatus::Exited(pid, 3)), Some(3));
        assert_eq!(exit_code(WaitStatus::Signaled(pid, Signal::SIGKILL, false)), Some(137));
        assert_eq!(exit_code(WaitStatus::StillAlive), None);
    }
}
