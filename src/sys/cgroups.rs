//! Control groups, version 1 and 2: what the node may use, and the groups that hold Pods.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const ROOT: &str = "/sys/fs/cgroup";

/// Which hierarchy the kernel offers here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// The version in use on this machine.
pub fn version() -> Version {
    if Path::new(ROOT).join("cgroup.controllers").exists() { Version::V2 } else { Version::V1 }
}

/// A cgroup file that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cgroup {path}: {source}")]
pub struct CgroupError {
    pub path: String,
    pub source: io::Error,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> CgroupError + '_ {
    move |source| CgroupError { path: path.display().to_string(), source }
}

/// Makes controllers usable for child groups. On version 2 a group with processes cannot hand controllers down, so
/// everything in the container's root group moves into a leaf first.
pub fn prepare() -> Result<(), CgroupError> {
    match version() {
        Version::V1 => Ok(()),
        Version::V2 => delegate(Path::new(ROOT)),
    }
}

fn delegate(root: &Path) -> Result<(), CgroupError> {
    let leaf = root.join("init");
    fs::create_dir_all(&leaf).map_err(at(&leaf))?;
    let procs = root.join("cgroup.procs");
    let target = leaf.join("cgroup.procs");
    // Processes may start while we look; kernel threads and those already gone cannot move.
    for _ in 0..8 {
        let text = fs::read_to_string(&procs).map_err(at(&procs))?;
        if text.trim().is_empty() {
            break;
        }
        for pid in text.lines().filter(|pid| *pid != "0") {
            if let Err(error) = fs::write(&target, pid)
                && error.raw_os_error() != Some(nix::libc::ESRCH)
                && error.raw_os_error() != Some(nix::libc::EINVAL)
            {
                return Err(at(&target)(error));
            }
        }
    }
    let available = root.join("cgroup.controllers");
    let controllers = fs::read_to_string(&available).map_err(at(&available))?;
    let control = root.join("cgroup.subtree_control");
    for controller in controllers.split_whitespace() {
        // A controller that refuses (real-time processes hold `cpu`, for one) is only missing its limits.
        if let Err(error) = fs::write(&control, format!("+{controller}")) {
            tracing::warn!(controller, %error, "cgroup controller cannot be handed down");
        }
    }
    Ok(())
}

/// What one group may use; `None` leaves the kernel's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Relative weight in version 1's scale (2 to 262144, 1024 is one CPU).
    pub cpu_shares: Option<u64>,
    /// Thousandths of a CPU.
    pub cpu_milli: Option<u64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// The files that express `limits`: folder of the controller (version 1), file, value.
pub fn limit_files(version: Version, limits: Limits) -> Vec<(&'static str, &'static str, String)> {
    const PERIOD: u64 = 100_000;
    let quota = limits.cpu_milli.map(|milli| (milli * PERIOD / 1000).max(1000));
    let mut files = Vec::new();
    match version {
        Version::V1 => {
            files.extend(limits.cpu_shares.map(|s| ("cpu", "cpu.shares", s.to_string())));
            files.extend(quota.map(|q| ("cpu", "cpu.cfs_quota_us", q.to_string())));
            files.extend(limits.memory.map(|m| ("memory", "memory.limit_in_bytes", m.to_string())));
            files.extend(limits.pids.map(|p| ("pids", "pids.max", p.to_string())));
        }
        Version::V2 => {
            let weight = |s: u64| 1 + (s.clamp(2, 262_144) - 2) * 9999 / 262_142;
            files.extend(limits.cpu_shares.map(|s| ("", "cpu.weight", weight(s).to_string())));
            files.extend(quota.map(|q| ("", "cpu.max", format!("{q} {PERIOD}"))));
            files.extend(limits.memory.map(|m| ("", "memory.max", m.to_string())));
            files.extend(limits.pids.map(|p| ("", "pids.max", p.to_string())));
        }
    }
    files
}

/// Makes the group `path` (absolute, as in `/kubepods/besteffort/pod…`) with `limits`.
pub fn create(path: &str, limits: Limits) -> Result<(), CgroupError> {
    let version = version();
    let relative = path.trim_start_matches('/');
    if version == Version::V2 {
        let mut dir = PathBuf::from(ROOT);
        let parts: Vec<&str> = relative.split('/').collect();
        for (depth, part) in parts.iter().enumerate() {
            dir.push(part);
            fs::create_dir_all(&dir).map_err(at(&dir))?;
            if depth + 1 < parts.len() {
                hand_down(&dir);
            }
        }
    }
    for (controller, file, value) in limit_files(version, limits) {
        let dir = Path::new(ROOT).join(controller).join(relative);
        fs::create_dir_all(&dir).map_err(at(&dir))?;
        let file = dir.join(file);
        fs::write(&file, value).map_err(at(&file))?;
    }
    Ok(())
}

fn hand_down(dir: &Path) {
    let controllers = fs::read_to_string(dir.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(dir.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Removes the group `path` and its empty children from every hierarchy; what still holds processes stays.
pub fn remove(path: &str) {
    let relative = path.trim_start_matches('/');
    if version() == Version::V2 {
        remove_tree(&Path::new(ROOT).join(relative));
        return;
    }
    for controller in fs::read_dir(ROOT).into_iter().flatten().flatten() {
        if controller.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&controller.path().join(relative));
        }
    }
}

fn remove_tree(dir: &Path) {
    for child in fs::read_dir(dir).into_iter().flatten().flatten() {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&child.path());
        }
    }
    let _ = fs::remove_dir(dir);
}

/// What a group has used: processor time in nanoseconds, memory in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_nanos: u64,
    pub memory: u64,
    /// Without what the kernel can drop at once.
    pub working_set: u64,
    pub rss: u64,
}

/// Reads what the group `path` (absolute; `/` is everything in this container) has used.
pub fn usage(path: &str) -> Usage {
    let relative = path.trim_start_matches('/');
    let read = |controller: &str, file: &str| {
        fs::read_to_string(Path::new(ROOT).join(controller).join(relative).join(file)).unwrap_or_default()
    };
    let number = |text: String| text.trim().parse::<u64>().unwrap_or(0);
    let (cpu_nanos, memory, stat, inactive, rss) = match version() {
        Version::V1 => {
            let memory = number(read("memory", "memory.usage_in_bytes"));
            let stat = read("memory", "memory.stat");
            (number(read("cpuacct", "cpuacct.usage")), memory, stat, "total_inactive_file", "total_rss")
        }
        Version::V2 => {
            let cpu = keyed(&read("", "cpu.stat"), "usage_usec") * 1000;
            (cpu, number(read("", "memory.current")), read("", "memory.stat"), "inactive_file", "anon")
        }
    };
    let working_set = memory.saturating_sub(keyed(&stat, inactive));
    Usage { cpu_nanos, memory, working_set, rss: keyed(&stat, rss) }
}

/// What this process has used: seconds of processor time, bytes of resident memory.
pub fn own_process() -> (f64, u64) {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF);
    let seconds = usage.map_or(0.0, |usage| {
        let time = |value: nix::sys::time::TimeVal| value.tv_sec() as f64 + value.tv_usec() as f64 / 1e6;
        time(usage.user_time()) + time(usage.system_time())
    });
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    (seconds, meminfo_bytes(&status, "VmRSS").unwrap_or(0))
}

/// The number behind `key` in a file of `key number` lines.
fn keyed(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// What this machine (or this container, if it is limited) has: CPUs in thousandths, memory in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub cpu_milli: u64,
    pub memory: u64,
    /// Bytes that can be had without swapping: of the machine, or of this container's limit where that is less.
    pub memory_available: u64,
    /// Process ids the kernel hands out.
    pub pids: u64,
}

/// Reads the capacity now.
pub fn capacity() -> Capacity {
    let number = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u64>().ok());
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u64) * 1000;
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = meminfo_bytes(&meminfo, "MemTotal").unwrap_or(0);
    let limit = match version() {
        Version::V1 => number("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Version::V2 => number("/sys/fs/cgroup/memory.max"),
    };
    let quota = match version() {
        Version::V1 => v1_quota(
            number("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
            number("/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
        ),
        Version::V2 => v2_quota(&fs::read_to_string("/sys/fs/cgroup/cpu.max").unwrap_or_default()),
    };
    let available = meminfo_bytes(&meminfo, "MemAvailable").unwrap_or(0);
    let left = limit.filter(|limit| *limit < total).map(|limit| limit.saturating_sub(usage("/").working_set));
    Capacity {
        cpu_milli: quota.map_or(cpus, |quota| quota.min(cpus)),
        memory: limit.map_or(total, |limit| limit.min(total)),
        memory_available: left.map_or(available, |left| left.min(available)),
        pids: number("/proc/sys/kernel/pid_max").unwrap_or(32_768),
    }
}

fn v1_quota(quota: Option<u64>, period: Option<u64>) -> Option<u64> {
    Some(quota? * 1000 / period.filter(|period| *period > 0)?)
}

/// `cpu.max` is `<quota or max> <period>`.
fn v2_quota(text: &str) -> Option<u64> {
    let (quota, period) = text.trim().split_once(' ')?;
    v1_quota(quota.parse().ok(), period.parse().ok())
}

/// One line of /proc/meminfo, in bytes.
fn meminfo_bytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_in_both_versions() {
        let limits =
            Limits { cpu_shares: Some(1024), cpu_milli: Some(500), memory: Some(1 << 20), pids: Some(9) };
        assert_eq!(
            limit_files(Version::V1, limits),
            [
                ("cpu", "cpu.shares", "1024".into()),
                ("cpu", "cpu.cfs_quota_us", "50000".into()),
                ("memory", "memory.limit_in_bytes", "1048576".into()),
                ("pids", "pids.max", "9".into()),
            ]
        );
        assert_eq!(
            limit_files(Version::V2, limits),
            [
                ("", "cpu.weight", "39".into()),
                ("", "cpu.max", "50000 100000".into()),
                ("", "memory.max", "1048576".into()),
                ("", "pids.max", "9".into()),
            ]
        );
    }

    #[test]
    fn reads_keyed_numbers() {
        let text = "cache 1\ntotal_inactive_file 4096\nrss 7\n";
        assert_eq!((keyed(text, "total_inactive_file"), keyed(text, "rss"), keyed(text, "x")), (4096, 7, 0));
    }

    #[test]
    fn reads_capacity_files() {
        assert_eq!(meminfo_bytes("MemTotal:       2048 kB\nMemFree: 1 kB\n", "MemTotal"), Some(2_097_152));
        assert_eq!(v2_quota("150000 100000\n"), Some(1500));
        assert_eq!(v2_quota("max 100000\n"), None);
    }
}
