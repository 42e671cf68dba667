//! PID 1: starts the role process, forwards signals to it, reaps orphans and exits with its code.
//!
//! It is a process of its own because whatever is orphaned in the container becomes a child of PID 1: were the role
//! process PID 1, a reaper there would steal exit statuses from the processes it waits for itself.
//!
//! ```text
//! spawn role --SIGCHLD--> reap all --role ended--> exit with its code (128 + n after signal n)
//!        \--any other signal--> forward to the role
//! ```

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Runs this very program again with `args` and stays as its init until it ends. Answers the exit code to end with.
///
/// Call it before any thread exists: it blocks all signals of the calling thread and waits for them.
pub fn run<S: AsRef<OsStr>>(args: &[S]) -> io::Result<u8> {
    let signals = SigSet::all();
    signals.thread_block()?;
    let role = spawn_self(args)?;
    loop {
        match signals.wait()? {
            Signal::SIGCHLD => {
                if let Some(code) = reap(role)? {
                    return Ok(code);
                }
            }
            // Raised by this process's own faults or terminal; a forwarded copy would mean something else.
            Signal::SIGTTIN | Signal::SIGTTOU | Signal::SIGPIPE | Signal::SIGWINCH => {}
            signal => match kill(role, signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(errno) => return Err(errno.into()),
            },
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

/// Reaps everything that has ended; the role's exit code once it is among them.
fn reap(role: Pid) -> io::Result<Option<u8>> {
    let mut code = None;
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(code),
            Ok(status) if status.pid() == Some(role) => code = exit_code(status).or(code),
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
