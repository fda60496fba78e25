//! Rates and latencies as people see them.

use std::time::Duration;

use serde::Serialize;

use super::totals::{CLASSES, HistogramTotals, RouteTotals};

/// Requests per second by the class of their status.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct StatusRates {
    #[serde(rename = "1xx")]
    informational: f64,
    #[serde(rename = "2xx")]
    successful: f64,
    #[serde(rename = "3xx")]
    redirection: f64,
    #[serde(rename = "4xx")]
    client_error: f64,
    #[serde(rename = "5xx")]
    server_error: f64,
}

/// Latencies in milliseconds; `null`: nothing was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct LatencyReport {
    pub(crate) p50: Option<f64>,
    pub(crate) p95: Option<f64>,
    pub(crate) p99: Option<f64>,
}

/// Decisions per second with one outcome from one source.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct DecisionRate {
    pub(super) outcome: &'static str,
    pub(super) source: &'static str,
    pub(super) per_second: f64,
}

/// All requests of the last minute.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TrafficReport {
    pub(super) window_seconds: u64,
    pub(super) requests_per_second: f64,
    pub(super) statuses: StatusRates,
    pub(super) latency_ms: LatencyReport,
    pub(super) decisions: Vec<DecisionRate>,
    pub(super) decision_latency_ms: LatencyReport,
}

/// The requests of one route of the last minute.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RouteTraffic {
    pub(crate) requests_per_second: f64,
    pub(crate) statuses: StatusRates,
    pub(crate) latency_ms: LatencyReport,
}

/// The requests of two seconds, for a plot.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Point {
    pub(super) at: String,
    pub(super) statuses: StatusRates,
    pub(super) p50_ms: Option<f64>,
    pub(super) p95_ms: Option<f64>,
    pub(super) p99_ms: Option<f64>,
    pub(super) admitted: f64,
    pub(super) denied: f64,
    pub(super) calls: usize,
    pub(super) connections: usize,
}

impl StatusRates {
    pub(super) fn new(counts: [u64; CLASSES], over: Duration) -> Self {
        let [informational, successful, redirection, client_error, server_error] =
            counts.map(|count| per_second(count, over));
        Self { informational, successful, redirection, client_error, server_error }
    }
}

impl LatencyReport {
    /// `bounds` are those of the histogram, in seconds.
    pub(super) fn new(totals: &HistogramTotals, bounds: &[f64]) -> Self {
        let at = |share| totals.quantile(bounds, share).map(|seconds| rounded(seconds * 1e3));
        Self { p50: at(0.5), p95: at(0.95), p99: at(0.99) }
    }

    /// Of measured times.
    pub(crate) fn of_times(times: [Option<Duration>; 3]) -> Self {
        let [p50, p95, p99] = times.map(|time| time.map(|time| rounded(time.as_secs_f64() * 1e3)));
        Self { p50, p95, p99 }
    }
}

impl RouteTraffic {
    pub(super) fn new(totals: &RouteTotals, bounds: &[f64], over: Duration) -> Self {
        Self {
            requests_per_second: per_second(totals.statuses.iter().sum(), over),
            statuses: StatusRates::new(totals.statuses, over),
            latency_ms: LatencyReport::new(&totals.latency, bounds),
        }
    }
}

pub(super) fn per_second(count: u64, over: Duration) -> f64 {
    if over.is_zero() { 0.0 } else { rounded(count as f64 / over.as_secs_f64()) }
}

/// Three digits behind the point are enough for people.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}
