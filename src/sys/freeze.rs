//! Stands all processes of this container still, and lets them go on.

use std::collections::BTreeSet;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How often the list of processes is gone through: each round finds only what was started during the one before.
const ROUNDS: usize = 100;

/// A process as `/proc/*/stat` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    /// `R`, `S`, `T`, `Z`, ...
    state: u8,
}

/// Stops every process but process 1, this one and `spared`. Returns those that stood still already. Fails when `/proc`
/// cannot be read.
pub fn stop_all(spared: &[i32]) -> io::Result<Vec<i32>> {
    let own = nix::unistd::getpid().as_raw();
    let passed_over = |pid: i32| pid == 1 || pid == own || spared.contains(&pid);
    let before: Vec<i32> = processes()?.iter().filter(|p| p.state == b'T').map(|p| p.pid).collect();
    let mut stopped: BTreeSet<i32> = before.iter().copied().collect();
    for _ in 0..ROUNDS {
        let fresh: Vec<i32> = processes()?
            .iter()
            .filter(|process| process.state != b'Z')
            .map(|process| process.pid)
            .filter(|pid| !passed_over(*pid) && !stopped.contains(pid))
            .collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            signal(pid, Signal::SIGSTOP)?;
            stopped.insert(pid);
        }
    }
    Ok(before)
}

/// Lets every process that stands still go on, but `kept`.
pub fn go_on(kept: &[i32]) -> io::Result<()> {
    for process in processes()? {
        if process.state == b'T' && !kept.contains(&process.pid) {
            signal(process.pid, Signal::SIGCONT)?;
        }
    }
    Ok(())
}

/// One that has ended meanwhile needs no signal.
fn signal(pid: i32, signal: Signal) -> io::Result<()> {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn processes() -> io::Result<Vec<Process>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        if name.to_string_lossy().bytes().all(|byte| byte.is_ascii_digit())
            // One that has ended meanwhile is not there.
            && let Ok(text) = std::fs::read_to_string(format!("/proc/{}/stat", name.to_string_lossy()))
        {
            found.extend(parse(&text));
        }
    }
    Ok(found)
}

/// A program's name stands in brackets, and may hold brackets and spaces itself.
fn parse(stat: &str) -> Option<Process> {
    let pid = stat.split(' ').next()?.parse().ok()?;
    let state = stat.rsplit_once(") ")?.1.bytes().next()?;
    Some(Process { pid, state })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_brackets_do_not_confuse() {
        assert_eq!(parse("12 (a) T (b)) S 1 12 12"), Some(Process { pid: 12, state: b'S' }));
        assert_eq!(parse("7 (sleep) T 1"), Some(Process { pid: 7, state: b'T' }));
        assert_eq!(parse("nonsense"), None);
    }

    #[test]
    fn this_process_is_among_them() {
        let own = nix::unistd::getpid().as_raw();
        assert!(processes().expect("readable").iter().any(|process| process.pid == own));
    }
}
