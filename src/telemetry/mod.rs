//! Metrics, the access log and diagnostics.

mod access;
mod balance;
mod families;
mod help;
mod log;
mod metrics;
mod process;
mod request_id;
mod route;
mod text;

// For the benchmarks alone.
#[doc(hidden)]
pub use access::json_line;
pub use access::{AccessLog, AccessRecord, Phase, WindowUse};
pub use balance::BalanceMetrics;
pub use log::{LogError, LogGuard, init};
pub use metrics::{ListenerMetrics, MergeMetrics, Metrics, NameMetrics, UpstreamMetrics};
pub use request_id::request_id;
pub use route::{CallMetrics, RouteMetrics};
pub(crate) use text::push_ip;
