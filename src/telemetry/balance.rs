//! The cells of one upstream's balancing: who serves, what is tried again, what is turned away.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use crate::config::RetryOn;

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
    /// Requests that wait for a place.
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
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            prometheus::Result::Ok(vec)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| {
            let vec = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(vec.clone()))?;
            prometheus::Result::Ok(vec)
        };
        Ok(Self {
            up: gauges(
                "callgate_upstream_endpoint_up",
                "1 while an endpoint is given requests, 0 while it is ejected or fails its health checks.",
                &["upstream", "endpoint"],
            )?,
            ejections: counters(
                "callgate_upstream_ejections_total",
                "How often an endpoint was left out for a while because its requests failed.",
                &["upstream", "endpoint"],
            )?,
            retries: counters(
                "callgate_upstream_retries_total",
                "Requests tried again, by what had happened: connect, refused, broken, unavailable.",
                &["upstream", "on"],
            )?,
            exhausted: counters(
                "callgate_upstream_retries_exhausted_total",
                "Requests that were not tried again because the retry budget was used up.",
                &["upstream"],
            )?,
            rejections: counters(
                "callgate_upstream_rejections_total",
                "Requests turned away at max_requests, by why: queue_full (max_waiting), waited (max_wait).",
                &["upstream", "why"],
            )?,
            waiting: gauges(
                "callgate_upstream_waiting",
                "Requests that wait for a place under max_requests.",
                &["upstream"],
            )?,
            in_flight: gauges(
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
