//! The state of upstreams, for operators.

use std::sync::atomic::Ordering;

use crate::telemetry::Counter;

use super::upstream_state::UpstreamState;

/// One upstream.
#[derive(Debug, serde::Serialize)]
pub struct UpstreamReport {
    /// Its name.
    pub name: String,
    /// Requests and calls in flight, over all workers.
    pub in_flight: usize,
    /// The cap on them; `null`: none.
    pub max_requests: Option<u32>,
    /// Requests in the queue.
    pub waiting: usize,
    /// Its endpoints, in the order of the configuration.
    pub endpoints: Vec<EndpointReport>,
}

/// One endpoint.
#[derive(Debug, serde::Serialize)]
pub struct EndpointReport {
    /// Its address.
    pub url: String,
    /// `up`; `ejected`, because requests failed; `failing`, if it is not ejected because no other endpoint could take its requests;
    /// `down`, because health checks failed.
    pub state: &'static str,
    /// Seconds until its ejection ends.
    pub ejected_for_seconds: u64,
    /// Its weight.
    pub weight: u32,
    /// Whether it is a backup.
    pub backup: bool,
    /// Requests and calls in flight.
    pub in_flight: usize,
    /// Failed requests since the last success.
    pub failures: u32,
    /// How often it was ejected so far.
    pub ejections: u64,
}

impl UpstreamState {
    pub(crate) fn report(&self) -> UpstreamReport {
        let now = self.now();
        let endpoints = self.endpoints.iter().enumerate().map(|(index, endpoint)| EndpointReport {
            url: endpoint.label.to_string(),
            state: match (endpoint.is_down(), endpoint.is_ejected(now)) {
                (true, _) => "down",
                (false, true) => "ejected",
                (false, false) if self.is_failing(endpoint) => "failing",
                (false, false) => "up",
            },
            ejected_for_seconds: endpoint.ejected_until().saturating_sub(now).div_ceil(1_000),
            weight: endpoint.part.weight,
            backup: endpoint.part.backup,
            in_flight: endpoint.in_flight(),
            failures: endpoint.live.failures.load(Ordering::Relaxed),
            ejections: self.metrics.ejections.get(index).map_or(0, Counter::get),
        });
        UpstreamReport {
            name: self.name.to_string(),
            in_flight: self.in_flight(),
            max_requests: self.config.max_requests,
            waiting: self.permits.waiting(),
            endpoints: endpoints.collect(),
        }
    }
}
