//! Watches the state of all endpoints: updates metrics, and logs ejections that end and upstreams without a healthy endpoint.

use std::sync::Arc;
use std::time::Duration;

use super::upstream_state::UpstreamState;

const INTERVAL: Duration = Duration::from_millis(250);

/// Watches for as long as it is polled.
pub(crate) async fn run(upstreams: &[Arc<UpstreamState>]) {
    let mut last: Vec<LastSeen> = upstreams.iter().map(|upstream| LastSeen::of(upstream)).collect();
    let mut tick = tokio::time::interval(INTERVAL);
    loop {
        tick.tick().await;
        for (upstream, last) in upstreams.iter().zip(&mut last) {
            last.update(upstream);
        }
    }
}

/// The state of an upstream at the last tick.
struct LastSeen {
    ejected: Vec<bool>,
    is_down: bool,
}

impl LastSeen {
    fn of(state: &UpstreamState) -> Self {
        let now = state.now();
        Self {
            ejected: state.endpoints.iter().map(|endpoint| endpoint.is_ejected(now)).collect(),
            is_down: !state.endpoints.iter().any(|endpoint| state.is_up(endpoint, now)),
        }
    }

    fn update(&mut self, state: &UpstreamState) {
        let (now, upstream) = (state.now(), &*state.name);
        for (index, (endpoint, was_ejected)) in state.endpoints.iter().zip(&mut self.ejected).enumerate() {
            let is_ejected = endpoint.is_ejected(now);
            if *was_ejected && !is_ejected {
                tracing::info!(
                    upstream,
                    endpoint = &*endpoint.label,
                    "the ejection of an endpoint ends; requests go to it"
                );
            }
            *was_ejected = is_ejected;
            state.metrics.up[index].set(i64::from(state.is_up(endpoint, now)));
        }
        let is_down = !state.endpoints.iter().any(|endpoint| state.is_up(endpoint, now));
        if is_down && !self.is_down {
            tracing::error!(upstream, "no endpoint is healthy; requests go to all of them");
        }
        self.is_down = is_down;
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        state.metrics.in_flight.set(number(state.in_flight()));
        state.metrics.waiting.set(number(state.permits.waiting()));
    }
}
