//! The metrics of one upstream: attempts, endpoints, retries, queue.

use std::sync::Arc;

use prometheus::IntGauge;

use crate::config::RetryOn;

use super::cells::{Counter, Histogram};
use super::families::{Families, LATENCY_BUCKETS, SeriesGuard};

/// The cells of one upstream.
#[derive(Clone)]
pub struct UpstreamMetrics {
    pub(crate) seconds: Histogram,
    pub(crate) connect_failures: Counter,
    /// Requests that an endpoint refused unprocessed.
    pub(crate) refused: Counter,
    /// Attempts whose connection failed before a response, or whose response was not HTTP.
    pub(crate) broken: Counter,
    pub(crate) timeouts: Counter,
    /// Responses that failed or stalled after their head, or could not be forwarded.
    pub(crate) bad_answers: Counter,
    /// By the index of the endpoint.
    pub(crate) up: Vec<IntGauge>,
    /// By the index of the endpoint.
    pub(crate) ejections: Vec<Counter>,
    /// By [`RetryOn`].
    pub(crate) retries: [Counter; RetryOn::ALL.len()],
    pub(crate) exhausted: Counter,
    pub(crate) queue_full: Counter,
    pub(crate) waited: Counter,
    pub(crate) waiting: IntGauge,
    pub(crate) in_flight: IntGauge,
    _series: Arc<[SeriesGuard]>,
}

impl UpstreamMetrics {
    pub(super) fn new(families: &Arc<Families>, upstream: &str, endpoints: &[Arc<str>]) -> Self {
        let this = ("upstream", upstream);
        let of_endpoints = endpoints.iter().map(|endpoint| families.keep(&[this, ("endpoint", endpoint)]));
        let series = std::iter::once(families.keep(&[this])).chain(of_endpoints).collect();
        let counter = |name, label| families.counter(name, &[this, label]);
        let gauge = |name| families.gauge(name, &[this]);
        let up = |endpoint: &Arc<str>| {
            let labels = &[this, ("endpoint", endpoint)];
            let cell = families.gauge("callgate_upstream_endpoint_up", labels);
            cell.set(1);
            cell
        };
        let failures = |kind| counter("callgate_upstream_failures_total", ("kind", kind));
        let rejections = |why| counter("callgate_upstream_rejections_total", ("why", why));
        Self {
            seconds: families.histogram("callgate_upstream_duration_seconds", LATENCY_BUCKETS, &[this]),
            connect_failures: failures("connect"),
            refused: failures("refused"),
            broken: failures("broken"),
            timeouts: failures("timeout"),
            bad_answers: failures("bad_answer"),
            up: endpoints.iter().map(up).collect(),
            ejections: endpoints
                .iter()
                .map(|endpoint| counter("callgate_upstream_ejections_total", ("endpoint", endpoint)))
                .collect(),
            retries: RetryOn::ALL.map(|(on, _)| counter("callgate_upstream_retries_total", ("on", on))),
            exhausted: families.counter("callgate_upstream_retries_exhausted_total", &[this]),
            queue_full: rejections("queue_full"),
            waited: rejections("waited"),
            waiting: gauge("callgate_upstream_waiting"),
            in_flight: gauge("callgate_upstream_in_flight"),
            _series: series,
        }
    }
}
