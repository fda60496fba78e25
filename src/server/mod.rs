//! Assembly: one configuration becomes sockets, workers and an admin listener, and ends as a drain.

mod error;
mod open_files;
mod signals;
mod state;
mod store_watch;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::admin::{Admin, AdminBackend, LimitService};
use crate::auth::RecordWatch;
use crate::config::{Config, OnFailure, RedisStore};
use crate::limits::{Limiter, Moment};
use crate::listener::{self, ValidityWatch};
use crate::store::Redis;
use crate::telemetry::{self, Metrics};
use crate::tokens::{Registry, UsageWriter};

use error::StartError;
use state::{ProcessState, TokenSource};

pub(crate) use signals::ExitSignals;

/// How long Redis may take for a request to the admin API, where no client of the gateway waits.
const ADMIN_DEADLINE: Duration = Duration::from_secs(2);
/// How often expired logs are removed from memory.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// A running gateway.
pub(crate) struct Server {
    /// The bound address: port 0 of the configuration is replaced by the actual port.
    pub(crate) https: SocketAddr,
    pub(crate) admin: SocketAddr,
    state: Arc<ProcessState>,
    usage_writer: Arc<UsageWriter>,
    workers: Vec<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Starts a gateway with the metrics and the log of this process; returns when requests are served. Background tasks
    /// run on the caller's runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub(crate) async fn launch(config: Config) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let metrics = Arc::new(Metrics::new()?);
        let (log, guard) = telemetry::init(&config.log, metrics.clone())?;
        // Dropped with the runtime, after the last line.
        tokio::spawn(guard.watch());
        open_files::raise_limit(config.listen.max_connections);
        let workers = config.runtime.workers.get();
        let bind = |key, address, count| {
            listener::bind(address, count).map_err(|source| StartError::Bind { key, address, source })
        };
        let https = bind("listen.https", config.listen.https, workers)?;
        let http = config.listen.http.map(|address| bind("listen.http", address, workers)).transpose()?;
        let admin = bind("listen.admin", config.listen.admin, 1)?;
        let state = Arc::new(ProcessState::new(config, metrics, log)?);
        let (backend, usage_writer) = admin_backend(&state).await?;
        let address = |sockets: &[std::net::TcpListener]| sockets[0].local_addr().map_err(StartError::Worker);
        let (https_address, admin_address) = (address(&https)?, address(&admin)?);
        let http_address = http.as_deref().map(address).transpose()?;

        let mut threads = Vec::with_capacity(workers);
        let mut http = http.into_iter().flatten();
        for (index, https) in https.into_iter().enumerate() {
            match worker::spawn(index, state.clone(), https, http.next()).await {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    state.shutdown.drain();
                    state.shutdown.finish(Duration::ZERO).await;
                    return Err(error);
                }
            }
        }
        let usage_writer = Arc::new(usage_writer);
        let (https, http) = (https_address, http_address.map(tracing::field::display));
        let server = Self { https, admin: admin_address, state, usage_writer, workers: threads };
        server.spawn_background(admin, backend).await?;
        tracing::info!(https = %server.https, http, admin = %server.admin, workers, "serving");
        Ok(server)
    }

    async fn spawn_background(
        &self,
        sockets: Vec<std::net::TcpListener>,
        backend: AdminBackend,
    ) -> Result<(), StartError> {
        let state = &self.state;
        let admin = Arc::new(Admin::new(backend));
        for socket in sockets {
            let socket = TcpListener::from_std(socket).map_err(StartError::Worker)?;
            tokio::spawn(admin.clone().run(socket));
        }
        let (upstreams, prober, shutdown) = (state.upstreams.clone(), state.forwarder()?, state.shutdown.clone());
        tokio::spawn(async move { upstreams.watch().await });
        tokio::spawn(async move {
            tokio::select! {
                () = prober.check_health() => {}
                () = shutdown.draining() => {}
            }
        });
        let certificates = state.certificates.clone();
        tokio::spawn(Arc::<ValidityWatch>::default().run(move || certificates.clone()));
        let calls = state.open_calls.clone();
        match &state.tokens {
            TokenSource::File { records, .. } => drop(tokio::spawn(records.clone().watch(calls))),
            TokenSource::Redis { cache, store } => {
                let redis = Redis::open(store, state.store_health.clone()).await?;
                tokio::spawn(store_watch::run(redis.clone(), cache.clone(), state.store_health.clone()));
                let watch = RecordWatch::new(redis, cache.clone(), calls, state.on_invalidation());
                tokio::spawn(watch.start().await);
            }
        }
        let usage_writer = self.usage_writer.clone();
        tokio::spawn(async move { usage_writer.run().await });
        tokio::spawn(sweep(state.clone()));
        Ok(())
    }

    /// Ends the gateway: readiness fails at once. After `drain.delay` the listeners close, and what is in flight gets
    /// `drain.timeout` to finish.
    pub(crate) async fn stop(self) {
        let drain = self.state.config.drain;
        let shutdown = &self.state.shutdown;
        tracing::info!(delay = ?drain.delay, timeout = ?drain.timeout, "draining");
        shutdown.announce();
        tokio::time::sleep(drain.delay).await;
        shutdown.drain();
        let cut = shutdown.finish(drain.timeout).await;
        if cut > 0 {
            tracing::warn!(cut, "drain.timeout has passed: {cut} connections and calls were cut");
        }
        for worker in self.workers {
            // A worker that panicked has logged it; there is nothing left to end.
            let _ = tokio::task::spawn_blocking(move || worker.join()).await;
        }
        self.usage_writer.finish().await;
        let pending = &self.state.pending_merges;
        if !pending.is_empty() {
            let (admissions, logs) = (pending.len(), pending.logs());
            tracing::warn!(
                admissions,
                logs,
                "{admissions} admissions made while Redis was unreachable could not be merged into {logs} logs"
            );
        }
        tracing::info!("ended");
    }
}

/// What the admin API works with, over a Redis connection of its own, and the writer of token usage on the same connection.
async fn admin_backend(state: &ProcessState) -> Result<(AdminBackend, UsageWriter), StartError> {
    let config = &state.config;
    let (registry, limiter, file, store) = match &state.tokens {
        TokenSource::File { records, path } => {
            let limiter = Limiter::Memory(state.limiter.clone());
            (Registry::with_file(config, path), limiter, Some(records.clone()), None)
        }
        TokenSource::Redis { store, .. } => {
            let store = RedisStore { deadline: store.deadline.max(ADMIN_DEADLINE), ..(**store).clone() };
            let redis = Redis::open(&store, state.store_health.clone()).await?;
            let limiter = Limiter::Redis(state.redis_limiter(redis.clone(), OnFailure::Deny));
            let registry = Registry::with_redis(config, redis).on_change(state.on_invalidation());
            (registry, limiter, None, Some(state.store_health.clone()))
        }
    };
    let registry = Arc::new(registry);
    let usage_writer = UsageWriter::new(registry.clone(), state.usage.clone());
    let limits = LimitService::new(config.clone(), registry.clone(), limiter);
    let upstreams = state.upstreams.clone();
    let (config, metrics, shutdown) = (config.clone(), state.metrics.clone(), state.shutdown.clone());
    Ok((AdminBackend { config, metrics, shutdown, registry, limits, file, upstreams, store }, usage_writer))
}

/// Removes expired logs from memory and updates the gauges of its size.
async fn sweep(state: Arc<ProcessState>) {
    let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let (metrics, limiter) = (&state.metrics, &state.limiter);
    let mut tick = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tick.tick().await;
        limiter.sweep(Moment::now().steady_ms());
        metrics.tokens_limited.set(gauge(limiter.tokens()));
        let forgotten = limiter.take_forgotten();
        if forgotten > 0 {
            metrics.tokens_forgotten.inc_by(forgotten);
            tracing::warn!(
                forgotten,
                "limits.max_tokens is too low: the admissions of {forgotten} tokens were forgotten within \
                 {SWEEP_INTERVAL:?}, so these tokens may exceed their limits"
            );
        }
        if let TokenSource::Redis { cache, .. } = &state.tokens {
            metrics.tokens_cached.set(gauge(cache.len()));
        }
    }
}
