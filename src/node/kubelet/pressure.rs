//! What this node runs short of: what is left, which thresholds are met, and which conditions that brings.
//!
//! ```text
//! what is left < threshold -> the condition holds -> nothing met for the transition period -> it holds no more
//! ```

use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::spec;
use super::statics::is_static;
use config::Arguments;
use config::eviction::{Signal, Thresholds, usual};
use sys::cgroups::Capacity;

/// Upstream's `eviction-pressure-transition-period`: a condition outlives its cause so long, so that it does not swing.
const TRANSITION: u32 = 300;

/// The node's conditions: what it is, or was a moment ago, short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressure {
    pub memory: bool,
    pub disk: bool,
    pub processes: bool,
}

impl Pressure {
    /// The conditions that hold, by name.
    pub fn conditions(self) -> Vec<&'static str> {
        let all =
            [(self.memory, "MemoryPressure"), (self.disk, "DiskPressure"), (self.processes, "PIDPressure")];
        all.into_iter().filter(|(holds, _)| *holds).map(|(_, name)| name).collect()
    }

    fn add(&mut self, signal: Signal) {
        match signal {
            Signal::Memory => self.memory = true,
            Signal::Disk | Signal::Inodes => self.disk = true,
            Signal::Processes => self.processes = true,
        }
    }
}

/// The priority of `system-cluster-critical`, the lower of the two.
const SYSTEM_CRITICAL: i32 = 2_000_000_000;

/// Whether the node cannot do without the Pod: no pressure ends it, as upstream has it.
pub fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || spec(pod).priority.is_some_and(|priority| priority >= SYSTEM_CRITICAL)
}

/// How much of one thing there is, and how much of it is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    pub capacity: u64,
    pub available: u64,
}

/// What is left on this machine now. A file system that counts no inodes has no lack of them.
pub fn observe(dir: &Path, capacity: &Capacity) -> Vec<(Signal, Left)> {
    let disk = nix::sys::statvfs::statvfs(dir).ok();
    let memory = Left { capacity: capacity.memory, available: capacity.memory_available };
    let processes = Left { capacity: capacity.pids, available: capacity.pids.saturating_sub(processes()) };
    let mut all = vec![(Signal::Memory, memory), (Signal::Processes, processes)];
    if let Some(stat) = disk {
        let unit = stat.fragment_size();
        let bytes = Left { capacity: stat.blocks() * unit, available: stat.blocks_available() * unit };
        all.push((Signal::Disk, bytes));
        let inodes = Left { capacity: stat.files(), available: stat.files_available() };
        all.extend((inodes.capacity > 0).then_some((Signal::Inodes, inodes)));
    }
    all.sort_by_key(|(signal, _)| *signal);
    all
}

/// Processes and threads on the machine, from the second number of /proc/loadavg's fourth field.
fn processes() -> u64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().nth(3).and_then(|field| field.split_once('/')?.1.parse().ok()).unwrap_or(0)
}

/// A threshold that is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short {
    pub signal: Signal,
    /// What should be left, and what is.
    pub threshold: u64,
    pub available: u64,
}

/// When what is left counts as too little, and for how long after that.
#[derive(Clone, Debug)]
pub struct Limits {
    thresholds: Thresholds,
    transition: SignedDuration,
}

impl Limits {
    pub fn new(arguments: &Arguments) -> Self {
        let seconds = arguments.pressure_transition.unwrap_or(TRANSITION);
        Self {
            thresholds: arguments.eviction_hard.clone().unwrap_or_else(usual),
            transition: SignedDuration::from_secs(seconds.into()),
        }
    }

    /// What Pods are not given of a resource: what must be left of it.
    pub fn reserve(&self, signal: Signal, capacity: u64) -> u64 {
        self.thresholds.get(&signal).map_or(0, |least| least.of(capacity))
    }

    /// The thresholds that are met, memory first.
    pub fn short(&self, left: &[(Signal, Left)]) -> Vec<Short> {
        let of = |(signal, left): &(Signal, Left)| {
            let threshold = self.thresholds.get(signal)?.of(left.capacity);
            let short = Short { signal: *signal, threshold, available: left.available };
            (left.available < threshold).then_some(short)
        };
        left.iter().filter_map(of).collect()
    }
}

/// When each threshold was met last.
#[derive(Clone, Debug, Default)]
pub struct History(Vec<(Signal, Timestamp)>);

impl History {
    /// Takes what is met now; the conditions that hold with what was met before.
    pub fn follow(&mut self, limits: &Limits, short: &[Short], now: Timestamp) -> Pressure {
        self.0.retain(|(signal, at)| {
            now.duration_since(*at) < limits.transition && !short.iter().any(|met| met.signal == *signal)
        });
        self.0.extend(short.iter().map(|met| (met.signal, now)));
        let mut pressure = Pressure::default();
        self.0.iter().for_each(|(signal, _)| pressure.add(*signal));
        pressure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(hard: &str) -> Limits {
        let mut arguments = Arguments::default();
        arguments.set("kubelet", "eviction-hard", hard).expect("read");
        arguments.set("kubelet", "eviction-pressure-transition-period", "30s").expect("read");
        Limits::new(&arguments)
    }

    #[test]
    fn what_is_below_its_threshold_is_short() {
        let limits = limits("memory.available<100,nodefs.available<10%");
        let check = |memory: u64, disk: u64, inodes: u64, expect: &[Signal]| {
            let left = |available: u64| Left { capacity: 1000, available };
            let left =
                [(Signal::Memory, left(memory)), (Signal::Disk, left(disk)), (Signal::Inodes, left(inodes))];
            let short: Vec<_> = limits.short(&left).into_iter().map(|short| short.signal).collect();
            assert_eq!(short, expect);
        };
        check(100, 100, 0, &[]);
        check(99, 100, 0, &[Signal::Memory]);
        check(0, 99, 5, &[Signal::Memory, Signal::Disk]);
        assert_eq!(limits.reserve(Signal::Disk, 2000), 200);
        assert_eq!(limits.reserve(Signal::Inodes, 2000), 0);
    }

    #[test]
    fn a_condition_outlives_its_cause_for_a_while() {
        let limits = limits("nodefs.available<10");
        let mut history = History::default();
        let at = |second: i64| Timestamp::from_second(second).expect("time");
        let met = [Short { signal: Signal::Disk, threshold: 10, available: 1 }];
        assert_eq!(history.follow(&limits, &[], at(0)), Pressure::default());
        assert_eq!(history.follow(&limits, &met, at(1)).conditions(), ["DiskPressure"]);
        assert!(history.follow(&limits, &[], at(30)).disk);
        assert!(!history.follow(&limits, &[], at(31)).disk);
        assert!(history.follow(&limits, &met, at(40)).disk, "it may come back");
    }

    #[test]
    fn this_machine_has_something_left() {
        let left = observe(Path::new("/"), &sys::cgroups::capacity());
        assert_eq!(left[0].0, Signal::Memory);
        assert!(left.iter().all(|(_, left)| left.available <= left.capacity.max(left.available)));
        assert!(Limits::new(&Arguments::default()).short(&left).is_empty(), "{left:?}");
    }
}
