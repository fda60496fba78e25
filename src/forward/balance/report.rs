//! How upstreams are, for operators.

use std::sync::atomic::Ordering;

use super::UpstreamState;

/// One upstream.
#[derive(Debug, serde::Serialize)]
pub struct UpstreamReport {
    /// Its name.
    pub name: String,
    /// Requests and calls under way, over all workers.
    pub in_flight: usize,
    /// The most that may be; `null`: no cap.
    pub max_requests: Option<u32>,
    /// Requests that wait for a place.
    pub waiting: usize,
    /// Its endpoints, in the order of the configuration.
    pub endpoints: Vec<EndpointReport>,
}

/// One endpoint.
#[derive(Debug, serde::Serialize)]
pub struct EndpointReport {
    /// Its address.
    pub url: String,
    /// `up`; `ejected`, because requests failed; `down`, because health checks did.
    pub state: &'static str,
    /// Seconds until it is let in again, if it is ejected.
    pub ejected_for_seconds: u64,
    /// Its weight.
    pub weight: u32,
    /// Whether it is a backup.
    pub backup: bool,
    /// Requests and calls under way.
    pub in_flight: usize,
    /// Failures since the last good answer.
    pub failures: u32,
}

impl UpstreamState {
    pub(super) fn report(&self) -> UpstreamReport {
        let now = self.now();
        let endpoints = self.endpoints.iter().map(|standing| EndpointReport {
            url: standing.label.to_string(),
            state: match (standing.is_down(), standing.is_ejected(now)) {
                (true, _) => "down",
                (false, true) => "ejected",
                (false, false) => "up",
            },
            ejected_for_seconds: standing.ejected_until().saturating_sub(now).div_ceil(1_000),
            weight: standing.part.weight,
            backup: standing.part.backup,
            in_flight: standing.in_flight(),
            failures: standing.failures.load(Ordering::Relaxed),
        });
        UpstreamReport {
            name: self.name.to_string(),
            in_flight: self.in_flight(),
            max_requests: self.config.max_requests,
            waiting: self.places.waiting(),
            endpoints: endpoints.collect(),
        }
    }

    /// Requests and calls under way.
    pub(super) fn in_flight(&self) -> usize {
        self.endpoints.iter().map(|standing| standing.in_flight()).sum()
    }
}
