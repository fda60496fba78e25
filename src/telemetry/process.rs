//! Metrics of the process, read from `/proc/self` at each scrape, under the names that all Prometheus clients use.

use std::collections::HashMap;
use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};

pub(super) struct ProcessCollector {
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

impl ProcessCollector {
    pub(super) fn new() -> prometheus::Result<Self> {
        let gauges = GAUGES.iter().map(|(name, help)| Ok((*name, Gauge::new(*name, *help)?)));
        let cpu_help = "Total user and system CPU time spent in seconds.";
        let cpu_seconds = Counter::new("process_cpu_seconds_total", cpu_help)?;
        Ok(Self { cpu_seconds, gauges: gauges.collect::<prometheus::Result<_>>()? })
    }

    /// Returns `None` when a file of `/proc` can't be read; the values after it stay as they were.
    fn read(&self) -> Option<()> {
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

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.values().flat_map(Collector::desc).chain(self.cpu_seconds.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // What can't be read is exported as it was.
        let _ = self.read();
        self.gauges.values().flat_map(Collector::collect).chain(self.cpu_seconds.collect()).collect()
    }
}
