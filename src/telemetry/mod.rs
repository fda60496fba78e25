//! Metrics, the access log and diagnostics.

mod access;
mod cells;
mod families;
mod help;
mod line_format;
mod log;
mod log_file;
mod log_queue;
mod metrics;
mod process;
mod request_id;
mod route;
mod start_log;
mod text;
mod traces;
mod traffic;
mod upstream;
mod visible_writer;

// For the benchmarks alone.
#[doc(hidden)]
pub use access::push_json_line;
pub use access::{AccessLog, AccessRecord, Phase, WindowUse};
pub use cells::{Counter, Histogram, UpDownCounter};
pub use families::SeriesGuard;
pub use log::{LogControl, LogError, init};
pub(crate) use log::{access_log, write_last_lines};
pub use log_queue::LogGuard;
pub use metrics::{
    CertificateMetrics, DrainMetrics, ListenerMetrics, MergeMetrics, Metrics, MirrorMetrics, NameMetrics,
};
pub(crate) use process::ProcessUsage;
pub use request_id::request_id;
pub use route::{CallMetrics, RouteMetrics};
pub(crate) use start_log::StartLog;
pub(crate) use text::push_ip;
pub use traces::RequestTrace;
pub(crate) use traces::{AttemptTrace, TraceError, TraceExport, Traces, trace_id};
pub(crate) use traffic::{DecisionCell, LatencyReport, Traffic};
pub use upstream::UpstreamMetrics;
