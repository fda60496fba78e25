//! What all workers share of the upstreams of one configuration. What the next configuration leaves as it is passes over to it:
//! unchanged upstreams as they are, with all connections to them; of changed ones the state of the endpoints that stay.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{self, Digest, SHA256};
use tokio::sync::Semaphore;

use crate::config::{self, Config};
use crate::telemetry::Metrics;
use crate::tls::TlsError;

use super::balance::{UpstreamReport, UpstreamState, watch};
use super::kept_connections::UpstreamConnections;
use super::resolve::{EndpointAddr, ResolvedNames};
use super::tls::{self, EndpointTls};

/// The upstreams of one configuration.
pub struct Upstreams {
    /// In the order of the configuration.
    pub(super) all: Vec<Arc<SharedUpstream>>,
    names: ResolvedNames,
    /// For copies of requests, by the name of the route that has a mirror.
    copies: HashMap<Arc<str>, CopyPermits>,
}

/// One of them.
pub(super) struct SharedUpstream {
    pub(super) config: Arc<config::Upstream>,
    pub(super) state: Arc<UpstreamState>,
    /// Where each endpoint is, and how it is spoken to.
    pub(super) endpoints: Vec<(EndpointAddr, Option<EndpointTls>)>,
    /// All workers' connections to it.
    pub(super) connections: UpstreamConnections,
    /// Of the content of its files.
    files: Vec<Option<Vec<u8>>>,
}

struct CopyPermits {
    max: usize,
    permits: Arc<Semaphore>,
}

impl Upstreams {
    /// The upstreams of `config`, which take over what `before` has of them. Host names are looked up from here on, in tasks of
    /// this runtime. A name that can't be found is no error.
    ///
    /// # Errors
    /// When TLS can't be used as configured.
    pub fn new(config: &Config, metrics: &Metrics, before: Option<&Self>) -> Result<Arc<Self>, TlsError> {
        let names = ResolvedNames::new(config, metrics, before.map(|before| &before.names));
        let all = config.upstreams.iter().map(|upstream| {
            let known = before.and_then(|before| before.all.iter().find(|known| known.config.name == upstream.name));
            let files = files_of(upstream);
            if let Some(known) = known
                && known.config == *upstream
                && known.files == files
            {
                return Ok(known.clone());
            }
            let addresses =
                upstream.endpoints.iter().map(|endpoint| names.endpoint_addr(endpoint, upstream.resolve_interval));
            let endpoints = addresses.zip(tls::of_endpoints(upstream)?).collect();
            let state = UpstreamState::new(upstream, metrics, known.map(|known| &*known.state));
            let connections = UpstreamConnections::new(upstream);
            Ok(Arc::new(SharedUpstream {
                config: upstream.clone(),
                state: Arc::new(state),
                endpoints,
                connections,
                files,
            }))
        });
        let all = all.collect::<Result<_, TlsError>>()?;
        let copies = config.routes.iter().filter_map(|route| {
            let max = route.mirror.as_ref()?.max_copies;
            let known = before.and_then(|before| before.copies.get(&route.name)).filter(|known| known.max == max);
            let permits = known.map_or_else(|| Arc::new(Semaphore::new(max)), |known| known.permits.clone());
            Some((route.name.clone(), CopyPermits { max, permits }))
        });
        let copies = copies.collect();
        Ok(Arc::new(Self { all, names, copies }))
    }

    /// The names of upstreams whose files are others in `before`, although their settings are the same.
    pub fn with_changed_files(&self, before: &Self) -> Vec<Arc<str>> {
        let is_known = |upstream: &Arc<SharedUpstream>| {
            before.all.iter().any(|known| known.config == upstream.config && known.files != upstream.files)
        };
        self.all.iter().filter(|upstream| is_known(upstream)).map(|upstream| upstream.config.name.clone()).collect()
    }

    /// The permits for copies of a route's requests.
    pub(super) fn copy_permits(&self, route: &str) -> Option<&Arc<Semaphore>> {
        Some(&self.copies.get(route)?.permits)
    }

    /// The state of all upstreams, for operators.
    pub fn report(&self) -> Vec<UpstreamReport> {
        self.all.iter().map(|upstream| upstream.state.report()).collect()
    }

    /// Keeps metrics up to date and logs endpoints that come back, for as long as it is polled.
    pub async fn watch(&self) {
        let states: Vec<_> = self.all.iter().map(|upstream| upstream.state.clone()).collect();
        watch::run(&states).await;
    }
}

/// The content of the files that an upstream names: they may change under the same name. What can't be read is found out when it is
/// used.
fn files_of(upstream: &config::Upstream) -> Vec<Option<Vec<u8>>> {
    let (tls, client) = (&upstream.tls, upstream.tls.client.as_ref());
    let files = [tls.ca.as_deref(), client.map(|files| &*files.cert), client.map(|files| &*files.key)];
    let hash = |file: &Path| std::fs::read(file).ok().map(|content| digest::digest(&SHA256, &content));
    files.into_iter().flatten().map(|file| hash(file).map(|hash: Digest| hash.as_ref().to_vec())).collect()
}
