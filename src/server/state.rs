//! What a process keeps from its start to its end, whatever its configuration.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio_util::sync::CancellationToken;

use crate::auth::{FileStore, OpenCalls, TokenCache};
use crate::config::{Config, OnFailure, RedisStore, Store};
use crate::gateway::{RequestMetrics, Snapshot, TokensInFlight};
use crate::limits::{self, ClockSkew, DenyCache, MemoryLimiter, PendingMerges, RedisLimiter};
use crate::listener::{self, ConnectionSlots, Tickets};
use crate::live_calls::LiveCalls;
use crate::shutdown::Shutdown;
use crate::store::{Redis, StoreHealth};
use crate::telemetry::{AccessLog, Metrics, Traces};
use crate::tokens::{Plans, UsageCounts};

use super::error::StartError;

/// Tokens whose denials are remembered; each takes less than 200 bytes.
const MAX_DENIALS: usize = 100_000;

pub(super) struct ProcessState {
    /// The configuration in force. The workers have it, too, from a moment later on.
    pub(super) snapshot: ArcSwap<Snapshot>,
    /// Its plans.
    pub(super) plans: Arc<ArcSwap<Plans>>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) request_metrics: RequestMetrics,
    pub(super) tickets: Tickets,
    pub(super) tokens: TokenSource,
    pub(super) limiter: Arc<MemoryLimiter>,
    pub(super) denials: Arc<DenyCache>,
    pub(super) open_calls: Arc<OpenCalls>,
    pub(super) live_calls: Arc<LiveCalls>,
    pub(super) in_flight: Arc<TokensInFlight>,
    pub(super) usage: Arc<UsageCounts>,
    clock_skew: Arc<ClockSkew>,
    pub(super) pending_merges: Arc<PendingMerges>,
    pub(super) store_health: Arc<StoreHealth>,
    pub(super) connection_slots: Arc<ConnectionSlots>,
    pub(super) shutdown: Shutdown,
    /// Cancelled when connections are accepted: from the start on, or from a takeover on.
    pub(super) accepting: CancellationToken,
}

/// Where token records come from.
pub(super) enum TokenSource {
    File { records: Arc<FileStore>, path: PathBuf },
    Redis { cache: Arc<TokenCache>, store: Box<RedisStore> },
}

impl ProcessState {
    /// Must be called on the runtime of the background tasks.
    pub(super) fn new(
        config: Config,
        metrics: Arc<Metrics>,
        log: AccessLog,
        traces: Option<Traces>,
    ) -> Result<Self, StartError> {
        let tickets = listener::random_tickets().map_err(StartError::Tickets)?;
        let snapshot = Snapshot::new(config, &metrics, &tickets, None)?;
        let config = &snapshot.config;
        let store_health = StoreHealth::new(metrics.store_up.clone());
        let store_health = Arc::new(match &config.store {
            Store::Redis(store) => store_health.with_policy(store.on_failure),
            Store::Memory => store_health,
        });
        let tokens = match (&config.store, &config.tokens.file) {
            (Store::Redis(store), _) => {
                TokenSource::Redis { cache: Arc::new(TokenCache::new(config.tokens.cache_size)), store: store.clone() }
            }
            (Store::Memory, Some(path)) => {
                // The memory store is up as long as the process lives.
                metrics.store_up.set(1);
                let records = Arc::new(FileStore::open(path, snapshot.plans.clone())?);
                TokenSource::File { records, path: path.clone() }
            }
            (Store::Memory, None) => unreachable!("the configuration demands tokens.file with the memory store"),
        };
        let (open_calls, live_calls) = (Arc::<OpenCalls>::default(), Arc::<LiveCalls>::default());
        Ok(Self {
            request_metrics: RequestMetrics::new(&metrics, log, traces, open_calls.clone(), live_calls.clone()),
            open_calls,
            live_calls,
            in_flight: Arc::default(),
            usage: Arc::default(),
            tickets,
            tokens,
            limiter: Arc::new(MemoryLimiter::new(config.limits.max_tokens)),
            denials: Arc::new(DenyCache::new(MAX_DENIALS)),
            clock_skew: Arc::new(ClockSkew::new(metrics.store_clock_skew.clone())),
            pending_merges: Arc::new(PendingMerges::new(metrics.merging.clone())),
            store_health,
            connection_slots: Arc::default(),
            shutdown: Shutdown::default(),
            accepting: CancellationToken::new(),
            metrics,
            plans: Arc::new(ArcSwap::new(snapshot.plans.clone())),
            snapshot: ArcSwap::from_pointee(snapshot),
        })
    }

    /// The configuration in force.
    pub(super) fn config(&self) -> Arc<Config> {
        self.snapshot.load().config.clone()
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
}
