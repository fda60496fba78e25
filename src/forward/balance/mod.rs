//! The endpoints of all upstreams, as the whole process sees them: which one gets the next request, which are ejected, what may be
//! retried, and how many requests are in flight. All workers share it.

mod budget;
mod choose;
mod ejections;
mod endpoint_state;
mod permits;
mod rendezvous;
mod report;
#[cfg(test)]
mod tests;
mod upstream_state;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::config::Config;
use crate::telemetry::Metrics;

pub(super) use choose::RoundRobin;
pub(super) use endpoint_state::InFlight;
pub(super) use permits::{NoPermit, Permit};
pub(super) use rendezvous::hash;
pub use report::{EndpointReport, UpstreamReport};
pub(super) use upstream_state::UpstreamState;

/// All upstreams of a process.
pub struct UpstreamStates {
    /// In the order of the configuration.
    pub(super) states: Vec<Arc<UpstreamState>>,
    /// For copies of requests, by the name of the route that has a mirror.
    pub(super) copy_permits: HashMap<Arc<str>, Arc<Semaphore>>,
}

impl UpstreamStates {
    /// All endpoints begin in service.
    pub fn new(config: &Config, metrics: &Metrics) -> Arc<Self> {
        let copy_permits = config.routes.iter().filter_map(|route| {
            let permits = Semaphore::new(route.mirror.as_ref()?.max_copies);
            Some((route.name.clone(), Arc::new(permits)))
        });
        let states = config.upstreams.iter().map(|upstream| Arc::new(UpstreamState::new(upstream, metrics)));
        Arc::new(Self { states: states.collect(), copy_permits: copy_permits.collect() })
    }

    /// The state of all upstreams, for operators.
    pub fn report(&self) -> Vec<UpstreamReport> {
        self.states.iter().map(|state| state.report()).collect()
    }

    /// Keeps metrics up to date and logs endpoints that come back, for as long as it is polled.
    pub async fn watch(&self) {
        watch::run(&self.states).await;
    }
}
