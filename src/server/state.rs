//! What all workers of a process share.

use std::path::PathBuf;
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;

use crate::auth::{Failures, FileStore, OpenCalls, TokenCache};
use crate::config::{Config, OnFailure, RedisStore, Store};
use crate::forward::{ConnectionRegistry, Forwarder, ResolvedNames, UpstreamStates};
use crate::gateway::{RequestMetrics, TokensInFlight};
use crate::limits::{self, ClockSkew, DenyCache, MemoryLimiter, PendingMerges, RedisLimiter};
use crate::listener::{self, Certificates, ConnectionSlots, Tls};
use crate::route::RouteTable;
use crate::shutdown::Shutdown;
use crate::store::{Redis, StoreHealth};
use crate::telemetry::{AccessLog, Metrics};
use crate::tokens::UsageCounts;

use super::error::StartError;

/// Tokens whose denials are remembered; each takes less than 200 bytes.
const MAX_DENIALS: usize = 100_000;

pub(super) struct ProcessState {
    pub(super) config: Arc<Config>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) request_metrics: Arc<RequestMetrics>,
    pub(super) routes: Arc<RouteTable>,
    pub(super) upstreams: Arc<UpstreamStates>,
    upstream_connections: Arc<ConnectionRegistry>,
    pub(super) names: Arc<ResolvedNames>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) tls: Tls,
    pub(super) tokens: TokenSource,
    pub(super) limiter: Arc<MemoryLimiter>,
    pub(super) denials: Arc<DenyCache>,
    pub(super) open_calls: Arc<OpenCalls>,
    pub(super) failures: Arc<Failures>,
    pub(super) in_flight: Arc<TokensInFlight>,
    pub(super) usage: Arc<UsageCounts>,
    clock_skew: Arc<ClockSkew>,
    pub(super) pending_merges: Arc<PendingMerges>,
    pub(super) store_health: Arc<StoreHealth>,
    pub(super) connection_slots: Arc<ConnectionSlots>,
    pub(super) shutdown: Shutdown,
}

/// Where token records come from.
pub(super) enum TokenSource {
    File { records: Arc<FileStore>, path: PathBuf },
    Redis { cache: Arc<TokenCache>, store: Box<RedisStore> },
}

impl ProcessState {
    /// Must be called on the runtime of the background tasks.
    pub(super) fn new(config: Arc<Config>, metrics: Arc<Metrics>, log: AccessLog) -> Result<Self, StartError> {
        let certificates = Arc::new(Certificates::load(&config.tls.certificates)?);
        for (file, expiry) in certificates.expiries() {
            metrics.certificate_expiry(&file.display().to_string()).set(*expiry);
        }
        let settings = listener::server_config(&config.tls, certificates.clone())?;
        let tls = Tls { acceptor: TlsAcceptor::from(Arc::new(settings)), certificates: certificates.clone() };
        let store_health = StoreHealth::new(metrics.store_up.clone());
        let store_health = Arc::new(match &config.store {
            Store::Redis(store) => store_health.with_policy(store.on_failure),
            Store::Memory => store_health,
        });
        let tokens = match (&config.store, &config.tokens.file) {
            (Store::Redis(store), _) => {
                TokenSource::Redis { cache: Arc::new(TokenCache::new(&config)), store: store.clone() }
            }
            (Store::Memory, Some(path)) => {
                // The memory store is up as long as the process lives.
                metrics.store_up.set(1);
                TokenSource::File { records: Arc::new(FileStore::open(&config, path)?), path: path.clone() }
            }
            (Store::Memory, None) => unreachable!("the configuration demands tokens.file with the memory store"),
        };
        let open_calls = Arc::<OpenCalls>::default();
        Ok(Self {
            request_metrics: Arc::new(RequestMetrics::new(&metrics, &config.routes, log, open_calls.clone())),
            open_calls,
            failures: Arc::new(Failures::new(&config.tokens.failures)),
            in_flight: Arc::default(),
            usage: Arc::default(),
            routes: Arc::new(RouteTable::new(&config.routes)?),
            upstreams: UpstreamStates::new(&config, &metrics),
            upstream_connections: ConnectionRegistry::new(&config),
            names: ResolvedNames::start(&config, &metrics),
            certificates,
            tls,
            tokens,
            limiter: Arc::new(MemoryLimiter::new(config.limits.max_tokens)),
            denials: Arc::new(DenyCache::new(MAX_DENIALS)),
            clock_skew: Arc::new(ClockSkew::new(metrics.store_clock_skew.clone())),
            pending_merges: Arc::new(PendingMerges::new(metrics.merging.clone())),
            store_health,
            connection_slots: ConnectionSlots::new(&config),
            shutdown: Shutdown::default(),
            metrics,
            config,
        })
    }

    /// A limiter on a connection of its own, with the memory of this process.
    pub(super) fn redis_limiter(&self, redis: Redis, on_failure: OnFailure) -> RedisLimiter {
        let (local, denials, pending) = (self.limiter.clone(), self.denials.clone(), self.pending_merges.clone());
        RedisLimiter::new(redis, on_failure, local, denials, pending).with_clock_skew(self.clock_skew.clone())
    }

    /// Makes this process forget what it knows of a token, by an announcement that its record or logs have changed.
    pub(super) fn on_invalidation(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let (local, denials) = (self.limiter.clone(), self.denials.clone());
        let cache = match &self.tokens {
            TokenSource::Redis { cache, .. } => Some(cache.clone()),
            TokenSource::File { .. } => None,
        };
        move |message: &str| {
            if let Some(cache) = &cache {
                cache.invalidate(message);
            }
            limits::on_invalidation(message, &local, &denials);
        }
    }

    /// A worker's forwarder.
    pub(super) fn forwarder(&self) -> Result<Forwarder, StartError> {
        self.forwarder_with(&self.upstream_connections)
    }

    /// The forwarder of health checks: its connections don't count in `max_connections`.
    pub(super) fn prober(&self) -> Result<Forwarder, StartError> {
        self.forwarder_with(&ConnectionRegistry::new(&self.config))
    }

    fn forwarder_with(&self, connections: &ConnectionRegistry) -> Result<Forwarder, StartError> {
        Forwarder::new(&self.config, &self.names, &self.upstreams, connections, &self.metrics, &self.shutdown)
            .map_err(StartError::Upstream)
    }
}
