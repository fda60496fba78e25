//! What the admin listener works with, whatever the configuration: its connection to the store, and ways to ask for a reload.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::admin::{AdminBackend, LastReload, LimitService, Observer, ReloadRequests};
use crate::config::{OnFailure, RedisStore};
use crate::gateway::Snapshot;
use crate::instances::Instances;
use crate::limits::Limiter;
use crate::store::Redis;
use crate::telemetry::{LogControl, Traffic};
use crate::tokens::Registry;

use super::error::StartError;
use super::state::{ProcessState, TokenSource};

/// How long Redis may take for a request to the admin API, where no client of the gateway waits.
const ADMIN_DEADLINE: Duration = Duration::from_secs(2);

pub(super) struct AdminStores {
    /// Its own connection; `None`: tokens are in a file.
    redis: Option<Redis>,
    limiter: Arc<Limiter>,
    pub(super) instances: Arc<Instances>,
    reload: ReloadRequests,
    last_reload: LastReload,
    log: LogControl,
    pub(super) observer: Arc<Observer>,
    takeover: Option<PathBuf>,
}

impl AdminStores {
    pub(super) async fn open(
        state: &ProcessState,
        reload: ReloadRequests,
        last_reload: LastReload,
        log: LogControl,
        takeover: Option<PathBuf>,
    ) -> Result<Self, StartError> {
        let (redis, limiter) = match &state.tokens {
            TokenSource::File { .. } => (None, Limiter::Memory(state.limiter.clone())),
            TokenSource::Redis { store, .. } => {
                let store = RedisStore { deadline: store.deadline.max(ADMIN_DEADLINE), ..(**store).clone() };
                let redis = Redis::open(&store, state.store_health.clone()).await?;
                (Some(redis.clone()), Limiter::Redis(state.redis_limiter(redis, OnFailure::Deny)))
            }
        };
        let instances = Instances::new(redis.clone(), state.live_calls.clone(), state.shutdown.clone());
        let (limiter, instances) = (Arc::new(limiter), Arc::new(instances));
        let counted = &state.request_metrics;
        let traffic = Traffic::new(counted.decision_cells(), state.metrics.decision_seconds.clone());
        let observer = Arc::new(Observer::new(traffic, counted.no_route().clone()));
        Ok(Self { redis, limiter, instances, reload, last_reload, log, observer, takeover })
    }

    /// The records of the store, by the rules of a configuration.
    pub(super) fn registry(&self, state: &ProcessState, snapshot: &Snapshot) -> Arc<Registry> {
        let config = &snapshot.config;
        Arc::new(match (&self.redis, &state.tokens) {
            (_, TokenSource::File { path, .. }) => Registry::with_file(config, path),
            (redis, TokenSource::Redis { .. }) => {
                let redis = redis.clone().unwrap_or_else(|| unreachable!("it was opened for this store"));
                Registry::with_redis(config, redis).on_change(state.on_invalidation())
            }
        })
    }

    /// What requests to the admin listener read and change under a configuration.
    pub(super) fn backend(&self, state: &ProcessState, snapshot: &Arc<Snapshot>) -> AdminBackend {
        let registry = self.registry(state, snapshot);
        let (file, store) = match &state.tokens {
            TokenSource::File { records, .. } => (Some(records.clone()), None),
            TokenSource::Redis { .. } => (None, Some(state.store_health.clone())),
        };
        AdminBackend {
            limits: LimitService::new(snapshot.config.clone(), registry.clone(), self.limiter.clone()),
            registry,
            config: snapshot.config.clone(),
            usage: state.usage.clone(),
            metrics: state.metrics.clone(),
            shutdown: state.shutdown.clone(),
            file,
            upstreams: snapshot.upstreams.clone(),
            routes: snapshot.routes().map(|(route, metrics)| (route.clone(), metrics.clone())).collect(),
            certificates: snapshot.certificates(),
            tls: snapshot.admin_tls.as_ref().map(|tls| tls.acceptor.clone()),
            connections: ["https", "http"].map(|name| state.metrics.listener(name).open),
            observer: self.observer.clone(),
            takeover: self.takeover.clone(),
            store,
            reload: self.reload.clone(),
            last_reload: self.last_reload.clone(),
            log: self.log.clone(),
            instances: self.instances.clone(),
            in_force_since: SystemTime::now(),
        }
    }
}
