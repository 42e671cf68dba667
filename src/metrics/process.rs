//! What the kernel says of this process, under the names that all of Prometheus' clients use.

use std::fs;

use super::{Kind, Text};

/// The kernel's unit of processor time, on every architecture that Linux tells of it in `/proc`.
const TICKS: f64 = 100.0;
const PAGE: f64 = 4096.0;

/// Tells of this process.
pub fn process(text: &mut Text) {
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return };
    // The name may hold blanks; what follows it does not.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    let (user, system, start) = (number(11), number(12), number(19));
    let about = "Total user and system CPU time spent in seconds.";
    text.single("process_cpu_seconds_total", Kind::Counter, about, (user + system) / TICKS);
    let boot = fs::read_to_string("/proc/stat").unwrap_or_default();
    let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    let about = "Start time of the process since unix epoch in seconds.";
    text.single("process_start_time_seconds", Kind::Gauge, about, boot.unwrap_or(0.0) + start / TICKS);
    text.single("process_virtual_memory_bytes", Kind::Gauge, "Virtual memory size in bytes.", number(20));
    let about = "Resident memory size in bytes.";
    text.single("process_resident_memory_bytes", Kind::Gauge, about, number(21) * PAGE);
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        let open = open.count() as f64;
        text.single("process_open_fds", Kind::Gauge, "Number of open file descriptors.", open);
    }
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let most = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse::<f64>().ok());
    if let Some(most) = most {
        text.single("process_max_fds", Kind::Gauge, "Maximum number of open file descriptors.", most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_told_of() {
        let mut text = Text::default();
        process(&mut text);
        let text = text.finish();
        let value = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default()
        };
        assert!(value("process_resident_memory_bytes") > 1e6, "{text}");
        assert!(value("process_open_fds") >= 3.0 && value("process_max_fds") > value("process_open_fds"));
        assert!(value("process_start_time_seconds") > 1.6e9, "{text}");
    }
}
