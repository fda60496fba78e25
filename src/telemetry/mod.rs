//! Metrics, the access log and diagnostics.

mod access;
mod balance;
mod calls;
mod families;
mod help;
mod log;
mod metrics;
mod process;
mod request_id;
mod requests;
mod text;
mod visible_writer;

// For the benchmarks alone.
#[doc(hidden)]
pub use access::json_line;
pub use access::{AccessLog, AccessRecord, Phase, WindowUse};
pub use balance::BalanceMetrics;
pub use calls::CallMetrics;
pub use log::{LogError, LogGuard, init};
pub use metrics::{ListenerMetrics, MergeMetrics, Metrics, NameMetrics, UpstreamMetrics};
pub use request_id::request_id;
pub use requests::RouteMetrics;
pub(crate) use text::push_ip;
