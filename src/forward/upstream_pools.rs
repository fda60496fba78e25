//! One upstream, as one worker reaches it.

use std::sync::Arc;

use crate::config;
use crate::telemetry::UpstreamMetrics;

use super::balance::{EndpointLoad, RoundRobin, UpstreamState};
use super::endpoint_pool::EndpointPool;
use super::kept_connections::UpstreamConnections;
use super::upstreams::{SharedUpstream, Upstreams};
use super::wait_queue::WaitQueues;

/// Reused connections that turn out to be closed, one after the other, for one request.
pub(super) const MAX_STALE: usize = 8;

/// The connections of one worker to the endpoints of one upstream.
pub(super) struct UpstreamPools {
    /// What all workers share.
    pub(super) shared: Arc<SharedUpstream>,
    pub(super) config: Arc<config::Upstream>,
    /// This worker's copy: its requests keep it.
    pub(super) name: Arc<str>,
    pub(super) state: Arc<UpstreamState>,
    pub(super) endpoints: Vec<Arc<EndpointPool>>,
    /// What of each endpoint is counted while a request is in flight.
    pub(super) loads: Vec<EndpointLoad>,
    pub(super) round_robin: RoundRobin,
    /// The requests of all workers that wait for a connection.
    pub(super) queues: Arc<WaitQueues>,
    pub(super) metrics: UpstreamMetrics,
}

impl UpstreamPools {
    /// The pools of all upstreams: of `before` those whose upstream is unchanged, with their connections; new ones of the others.
    pub(super) fn of_all(shared: &Upstreams, before: &[Arc<Self>]) -> Vec<Arc<Self>> {
        let pools = shared.all.iter().map(|upstream| {
            let known = before.iter().find(|known| Arc::ptr_eq(&known.shared, upstream));
            known.cloned().unwrap_or_else(|| Arc::new(Self::new(upstream, &upstream.connections)))
        });
        pools.collect()
    }

    /// The pools of an upstream, without connections. Those that they make are among these `connections`.
    pub(super) fn new(shared: &Arc<SharedUpstream>, connections: &UpstreamConnections) -> Self {
        let config = &shared.config;
        let endpoints = config.endpoints.iter().zip(&shared.endpoints).zip(&connections.endpoints);
        let endpoints = endpoints.map(|((endpoint, (addr, tls)), connections)| {
            Arc::new(EndpointPool::new(endpoint, addr.clone(), config, tls.clone(), connections.clone()))
        });
        Self {
            endpoints: endpoints.collect(),
            loads: shared.state.loads(),
            name: (*config.name).into(),
            round_robin: RoundRobin::new(config.endpoints.len()),
            queues: connections.queues.clone(),
            metrics: shared.state.metrics.clone(),
            state: shared.state.clone(),
            config: config.clone(),
            shared: shared.clone(),
        }
    }

    /// Chooses an endpoint by the state of all of them; `None` when all were `tried`.
    pub(super) fn choose(&self, key: Option<u64>, tried: &[usize]) -> Option<usize> {
        self.state.choose(&self.round_robin, key, tried, self.state.now())
    }
}
