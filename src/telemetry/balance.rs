//! The cells of one upstream's balancing: who serves, what is tried again, what is turned away.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::config::RetryOn;

use super::families::Families;

/// The cells of one upstream.
pub struct BalanceMetrics {
    /// 1 while an endpoint is given requests, by its place.
    pub up: Vec<IntGauge>,
    /// How often an endpoint was left out because its requests failed, by its place.
    pub ejections: Vec<IntCounter>,
    /// Requests tried again, by [`RetryOn`].
    pub retries: [IntCounter; RetryOn::ALL.len()],
    /// Requests not tried again because the budget was used up.
    pub exhausted: IntCounter,
    /// Requests turned away because as many waited as may.
    pub queue_full: IntCounter,
    /// Requests turned away because they had waited as long as they may.
    pub waited: IntCounter,
    /// Requests that wait for a place or a connection.
    pub waiting: IntGauge,
    /// Requests and calls under way.
    pub in_flight: IntGauge,
}

/// The metrics of all upstreams' balancing.
pub(super) struct BalanceVecs {
    up: IntGaugeVec,
    ejections: IntCounterVec,
    retries: IntCounterVec,
    exhausted: IntCounterVec,
    rejections: IntCounterVec,
    waiting: IntGaugeVec,
    in_flight: IntGaugeVec,
}

impl BalanceVecs {
    pub(super) fn register(make: &Families<'_>) -> prometheus::Result<Self> {
        Ok(Self {
            up: make.gauges(
                "callgate_upstream_endpoint_up",
                "1 while an endpoint is given requests, 0 while it is ejected or fails its health checks.",
                &["upstream", "endpoint"],
            )?,
            ejections: make.counters(
                "callgate_upstream_ejections_total",
                "How often an endpoint was left out for a while because its requests failed.",
                &["upstream", "endpoint"],
            )?,
            retries: make.counters(
                "callgate_upstream_retries_total",
                "Attempts beyond a request's first, by what had become of the one before: connect, refused, broken, unavailable.",
                &["upstream", "on"],
            )?,
            exhausted: make.counters(
                "callgate_upstream_retries_exhausted_total",
                "Requests that were not tried again because the retry budget was used up.",
                &["upstream"],
            )?,
            rejections: make.counters(
                "callgate_upstream_rejections_total",
                "Requests turned away at max_requests or max_connections, by why: queue_full (max_waiting), waited (max_wait).",
                &["upstream", "why"],
            )?,
            waiting: make.gauges(
                "callgate_upstream_waiting",
                "Requests that wait for a place under max_requests, or for a connection.",
                &["upstream"],
            )?,
            in_flight: make.gauges(
                "callgate_upstream_in_flight",
                "Requests, calls and copies for mirrors under way at this moment.",
                &["upstream"],
            )?,
        })
    }

    pub(super) fn cells(&self, upstream: &str, endpoints: &[Arc<str>]) -> BalanceMetrics {
        let up = |endpoint: &Arc<str>| {
            let cell = self.up.with_label_values(&[upstream, endpoint]);
            cell.set(1);
            cell
        };
        BalanceMetrics {
            up: endpoints.iter().map(up).collect(),
            ejections: endpoints.iter().map(|e| self.ejections.with_label_values(&[upstream, &**e])).collect(),
            retries: RetryOn::ALL.map(|(name, _)| self.retries.with_label_values(&[upstream, name])),
            exhausted: self.exhausted.with_label_values(&[upstream]),
            queue_full: self.rejections.with_label_values(&[upstream, "queue_full"]),
            waited: self.rejections.with_label_values(&[upstream, "waited"]),
            waiting: self.waiting.with_label_values(&[upstream]),
            in_flight: self.in_flight.with_label_values(&[upstream]),
        }
    }
}
