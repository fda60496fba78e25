//! Metrics of the process, read from `/proc/self` at each scrape, under the names that all Prometheus clients use.

use std::collections::HashMap;
use std::fs;

use prometheus::{Counter, Gauge, Registry, register_counter_with_registry, register_gauge_with_registry};

/// What this process takes of the machine; what can't be read is absent.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub(crate) struct ProcessUsage {
    /// Resident memory.
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) open_files: Option<u64>,
    pub(crate) max_files: Option<u64>,
    pub(crate) threads: Option<u64>,
}

impl ProcessUsage {
    /// Reads two small files.
    pub(crate) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name))?;
            value.split_ascii_whitespace().next()?.parse::<u64>().ok()
        };
        // Linux 6.2 and later tell their number; to list a hundred thousand would take long.
        let open = fs::metadata("/proc/self/fd").ok().map(|folder| folder.len()).filter(|files| *files > 0);
        Self {
            memory_bytes: field("VmRSS:").map(|kib| kib * 1024),
            open_files: open,
            max_files: rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
            threads: field("Threads:"),
        }
    }
}

pub(super) struct ProcessMetrics {
    cpu_seconds: Counter,
    gauges: HashMap<&'static str, Gauge>,
}

const GAUGES: [(&str, &str); 6] = [
    ("process_resident_memory_bytes", "Resident memory size in bytes."),
    ("process_virtual_memory_bytes", "Virtual memory size in bytes."),
    ("process_open_fds", "Number of open file descriptors."),
    ("process_max_fds", "Maximum number of open file descriptors."),
    ("process_threads", "Number of OS threads in the process."),
    ("process_start_time_seconds", "Start time of the process since the Unix epoch in seconds."),
];

impl ProcessMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let cpu_help = "Total user and system CPU time spent in seconds.";
        let cpu_seconds = register_counter_with_registry!("process_cpu_seconds_total", cpu_help, registry)?;
        let gauges = GAUGES.map(|(name, help)| Ok((name, register_gauge_with_registry!(name, help, registry)?)));
        Ok(Self { cpu_seconds, gauges: gauges.into_iter().collect::<prometheus::Result<_>>()? })
    }

    /// Returns `None` when a file of `/proc` can't be read; the values after it stay as they were.
    pub(super) fn update(&self) -> Option<()> {
        let set = |name: &str, value: f64| self.gauges[name].set(value);
        set("process_open_fds", fs::read_dir("/proc/self/fd").ok()?.count() as f64);
        if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            set("process_max_fds", limit as f64);
        }
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is a name in parentheses that may contain spaces; the third follows it (proc(5)).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        let field =
            |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let cpu_seconds = (field(14) + field(15)) / ticks;
        self.cpu_seconds.inc_by((cpu_seconds - self.cpu_seconds.get()).max(0.0));
        set("process_threads", field(20));
        set("process_virtual_memory_bytes", field(23));
        set("process_resident_memory_bytes", field(24) * rustix::param::page_size() as f64);
        let boot = fs::read_to_string("/proc/stat").ok()?;
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok())?;
        set("process_start_time_seconds", boot + field(22) / ticks);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_takes_something_of_everything() {
        let ProcessUsage { memory_bytes, max_files, threads, .. } = ProcessUsage::read();
        assert!(memory_bytes > Some(1 << 20) && max_files > Some(2) && threads > Some(0));
    }
}
