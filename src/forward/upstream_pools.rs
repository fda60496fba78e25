//! One upstream, as one worker reaches it.

use std::sync::Arc;

use crate::config;
use crate::telemetry::UpstreamMetrics;
use crate::tls::TlsError;

use super::balance::{RoundRobin, UpstreamState, UpstreamStates};
use super::endpoint_pool::EndpointPool;
use super::kept_connections::ConnectionRegistry;
use super::resolve::ResolvedNames;
use super::tls;
use super::wait_queue::WaitQueues;

/// Reused connections that turn out to be closed, one after the other, for one request.
pub(super) const MAX_STALE: usize = 8;

/// The connections of one worker to the endpoints of one upstream.
pub(super) struct UpstreamPools {
    pub(super) config: Arc<config::Upstream>,
    pub(super) endpoints: Vec<Arc<EndpointPool>>,
    /// What all workers share.
    pub(super) state: Arc<UpstreamState>,
    pub(super) round_robin: RoundRobin,
    /// The requests of all workers that wait for a connection.
    pub(super) queues: Arc<WaitQueues>,
    pub(super) metrics: UpstreamMetrics,
}

impl UpstreamPools {
    /// The upstream at `index` of the configuration.
    pub(super) fn new(
        index: usize,
        config: &Arc<config::Upstream>,
        names: &ResolvedNames,
        upstreams: &UpstreamStates,
        connections: &ConnectionRegistry,
    ) -> Result<Self, TlsError> {
        let (state, connections) = (upstreams.states[index].clone(), &connections.upstreams[index]);
        let tls = tls::of_endpoints(config)?;
        let endpoints = config.endpoints.iter().zip(tls).zip(&connections.endpoints);
        let endpoints = endpoints.map(|((endpoint, tls), connections)| {
            let addr = names.endpoint_addr(endpoint, config.resolve_interval);
            Arc::new(EndpointPool::new(endpoint, addr, config, tls, connections.clone()))
        });
        Ok(Self {
            config: config.clone(),
            endpoints: endpoints.collect(),
            round_robin: RoundRobin::new(config.endpoints.len()),
            queues: connections.queues.clone(),
            metrics: state.metrics.clone(),
            state,
        })
    }

    /// Chooses an endpoint by the state of all of them; `None` when all were `tried`.
    pub(super) fn choose(&self, key: Option<u64>, tried: &[usize]) -> Option<usize> {
        self.state.choose(&self.round_robin, key, tried, self.state.now())
    }
}
