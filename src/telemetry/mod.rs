//! What operators see: metrics, the access log, diagnostics.

mod access;
mod log;
mod metrics;
mod process;
mod requests;

pub use access::{AccessLog, Phase, Record, WindowUse};
pub use log::{LogError, LogGuard, init};
pub use metrics::{ListenerMetrics, Metrics, UpstreamMetrics};
pub use requests::RouteMetrics;
