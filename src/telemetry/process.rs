//! Metrics of the process, read from `/proc/self` at each scrape, under the names that all Prometheus clients use.

use std::collections::HashMap;
use std::fs;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, Opts};

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
        let gauges = GAUGES.iter().map(|(name, help)| Ok((*name, Gauge::with_opts(Opts::new(*name, *help))?)));
        Ok(Self {
            cpu_seconds: Counter::with_opts(Opts::new(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
            ))?,
            gauges: gauges.collect::<prometheus::Result<_>>()?,
        })
    }

    /// A value that can't be read stays as it was.
    fn read(&self) {
        let set = |name: &str, value: f64| {
            if let Some(gauge) = self.gauges.get(name) {
                gauge.set(value);
            }
        };
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            set("process_open_fds", entries.count() as f64);
        }
        if let Some(limit) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
            set("process_max_fds", limit as f64);
        }
        let Some(stat) = fs::read_to_string("/proc/self/stat").ok() else { return };
        // The second field is a name in parentheses that may contain spaces; the third follows it (proc(5)).
        let Some(fields) = stat.rsplit_once(')').map(|(_, rest)| rest.split_ascii_whitespace().collect::<Vec<_>>())
        else {
            return;
        };
        let field =
            |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let cpu_seconds = (field(14) + field(15)) / ticks;
        self.cpu_seconds.inc_by((cpu_seconds - self.cpu_seconds.get()).max(0.0));
        set("process_threads", field(20));
        set("process_virtual_memory_bytes", field(23));
        set("process_resident_memory_bytes", field(24) * rustix::param::page_size() as f64);
        let booted = fs::read_to_string("/proc/stat")
            .ok()
            .and_then(|text| text.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok()));
        if let Some(booted) = booted {
            set("process_start_time_seconds", booted + field(22) / ticks);
        }
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.values().flat_map(Collector::desc).chain(self.cpu_seconds.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.read();
        self.gauges.values().flat_map(Collector::collect).chain(self.cpu_seconds.collect()).collect()
    }
}
