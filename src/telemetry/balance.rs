//! The metrics of one upstream's balancing: endpoints, retries, queue.

use std::sync::Arc;

use prometheus::{IntCounter, IntGauge};

use crate::config::RetryOn;

use super::families::Families;

/// The cells of one upstream's balancing.
pub struct BalanceMetrics {
    /// By the index of the endpoint.
    pub(crate) up: Vec<IntGauge>,
    /// By the index of the endpoint.
    pub(crate) ejections: Vec<IntCounter>,
    /// By [`RetryOn`].
    pub(crate) retries: [IntCounter; RetryOn::ALL.len()],
    pub(crate) exhausted: IntCounter,
    pub(crate) queue_full: IntCounter,
    pub(crate) waited: IntCounter,
    pub(crate) waiting: IntGauge,
    pub(crate) in_flight: IntGauge,
}

impl BalanceMetrics {
    pub(super) fn new(families: &Families, upstream: &str, endpoints: &[Arc<str>]) -> Self {
        let counter = |name, label| families.counter(name, &[("upstream", upstream), label]);
        let gauge = |name| families.gauge(name, &[("upstream", upstream)]);
        let up = |endpoint: &Arc<str>| {
            let labels = &[("upstream", upstream), ("endpoint", endpoint)];
            let cell = families.gauge("callgate_upstream_endpoint_up", labels);
            cell.set(1);
            cell
        };
        let rejections = |why| counter("callgate_upstream_rejections_total", ("why", why));
        Self {
            up: endpoints.iter().map(up).collect(),
            ejections: endpoints
                .iter()
                .map(|endpoint| counter("callgate_upstream_ejections_total", ("endpoint", endpoint)))
                .collect(),
            retries: RetryOn::ALL.map(|(on, _)| counter("callgate_upstream_retries_total", ("on", on))),
            exhausted: families.counter("callgate_upstream_retries_exhausted_total", &[("upstream", upstream)]),
            queue_full: rejections("queue_full"),
            waited: rejections("waited"),
            waiting: gauge("callgate_upstream_waiting"),
            in_flight: gauge("callgate_upstream_in_flight"),
        }
    }
}
