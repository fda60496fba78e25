//! Assembly: one configuration becomes sockets, workers and an admin listener, and ends as a drain.

mod admin_stores;
mod drain;
mod error;
mod open_files;
mod reload;
mod signals;
mod state;
mod store_watch;
mod watched_files;
mod worker;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::admin::{Admin, LastReload};
use crate::auth::RecordWatch;
use crate::config::{self, Config};
use crate::limits::Moment;
use crate::listener::{self, ValidityWatch};
use crate::store::Redis;
use crate::telemetry::{self, LogControl, Metrics};
use crate::tokens::UsageWriter;

use admin_stores::AdminStores;
use drain::Drain;
use error::StartError;
use reload::{Reloader, UpstreamTasks, unix_seconds};
use state::{ProcessState, TokenSource};
use watched_files::WatchedFiles;
use worker::Worker;

pub(crate) use signals::ExitSignals;

/// How often expired logs are removed from memory.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Reloads that may wait for one another.
const MAX_WAITING_RELOADS: usize = 16;

/// A running gateway.
pub(crate) struct Server {
    /// The bound address: port 0 of the configuration is replaced by the actual port.
    pub(crate) https: SocketAddr,
    pub(crate) admin: SocketAddr,
    state: Arc<ProcessState>,
    usage_writer: Arc<UsageWriter>,
    workers: Vec<Worker>,
}

impl Server {
    /// Starts a gateway with the metrics and the log of this process; returns when requests are served. Background tasks
    /// run on the caller's runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub(crate) async fn launch(config: Config) -> Result<Self, StartError> {
        let metrics = Arc::new(Metrics::new()?);
        let (log, log_control, guard) = telemetry::init(&config.log, metrics.clone())?;
        // Dropped with the runtime, after the last line.
        tokio::spawn(guard.watch());
        open_files::raise_limit(config.listen.max_connections);
        let count = config.runtime.workers.get();
        let bind = |key, address, count| {
            listener::bind(address, count).map_err(|source| StartError::Bind { key, address, source })
        };
        let https = bind("listen.https", config.listen.https, count)?;
        let http = config.listen.http.map(|address| bind("listen.http", address, count)).transpose()?;
        let admin = bind("listen.admin", config.listen.admin, 1)?;
        let state = Arc::new(ProcessState::new(config, metrics, log)?);
        let address = |sockets: &[std::net::TcpListener]| sockets[0].local_addr().map_err(StartError::Worker);
        let (https_address, admin_address) = (address(&https)?, address(&admin)?);
        let http_address = http.as_deref().map(address).transpose()?;

        let mut workers = Vec::with_capacity(count);
        let mut http = http.into_iter().flatten();
        for (index, https) in https.into_iter().enumerate() {
            match Worker::spawn(index, state.clone(), https, http.next()).await {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    state.shutdown.drain();
                    state.shutdown.finish(Duration::ZERO).await;
                    return Err(error);
                }
            }
        }
        let usage_writer = spawn_background(&state, &workers, admin, log_control).await?;
        let (https, http) = (https_address, http_address.map(tracing::field::display));
        let server = Self { https, admin: admin_address, state, usage_writer, workers };
        tracing::info!(https = %server.https, http, admin = %server.admin, workers = count, "serving");
        Ok(server)
    }

    /// Ends the gateway: readiness fails at once. After `drain.delay` the listeners close; requests get `drain.timeout` to finish,
    /// calls get `drain.calls`. Further signals hurry that.
    pub(crate) async fn stop(self, signals: ExitSignals) {
        let (shutdown, hurry) = (&self.state.shutdown, signals.hurry());
        let (settings, metrics) = (self.state.config().drain, &self.state.metrics.drain);
        Drain { settings, shutdown, metrics, hurry }.run().await;
        for worker in self.workers {
            worker.join().await;
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
        let end = self.state.shutdown.progress();
        tracing::info!(cut = end.cut_requests, closed_calls = end.closed_calls, "ended");
    }
}

/// Starts the admin listener and all that runs in the background.
async fn spawn_background(
    state: &Arc<ProcessState>,
    workers: &[Worker],
    sockets: Vec<std::net::TcpListener>,
    log: LogControl,
) -> Result<Arc<UsageWriter>, StartError> {
    let snapshot = state.snapshot.load_full();
    let (requests, requested) = mpsc::channel(MAX_WAITING_RELOADS);
    let last = LastReload::default();
    let stores = AdminStores::open(state, requests, last.clone(), log.clone()).await?;
    let usage_writer = Arc::new(UsageWriter::new(stores.registry(state, &snapshot), state.usage.clone()));
    let admin = Arc::new(Admin::new(stores.backend(state, &snapshot)));
    for socket in sockets {
        let socket = TcpListener::from_std(socket).map_err(StartError::Worker)?;
        tokio::spawn(admin.clone().run(socket));
    }
    let (validity, served) = (Arc::<ValidityWatch>::default(), state.clone());
    tokio::spawn(validity.clone().run(move || served.snapshot.load().tls.certificates.clone()));
    let calls = state.open_calls.clone();
    match &state.tokens {
        TokenSource::File { records, .. } => {
            let is_good = state.metrics.token_file();
            tokio::spawn(records.clone().watch(calls, is_good));
        }
        TokenSource::Redis { cache, store } => {
            let redis = Redis::open(store, state.store_health.clone()).await?;
            tokio::spawn(store_watch::run(redis.clone(), cache.clone(), state.store_health.clone()));
            let (cache, plans) = (cache.clone(), state.plans.clone());
            let watch = RecordWatch::new(redis, cache, plans, calls, state.on_invalidation());
            tokio::spawn(watch.start().await);
        }
    }
    let writer = usage_writer.clone();
    tokio::spawn(async move { writer.run().await });
    tokio::spawn(sweep(state.clone()));
    state.metrics.reload_successful.set(1);
    state.metrics.reload_success_time.set(unix_seconds(SystemTime::now()));
    let reloader = Reloader {
        tasks: UpstreamTasks::start(state, &snapshot.upstreams, None),
        files: WatchedFiles::new(config::load_with_files(&snapshot.config.source).1),
        state: state.clone(),
        workers: workers.iter().map(|worker| worker.handle.clone()).collect(),
        admin,
        stores,
        log,
        validity,
        last,
    };
    let hangups = signal(SignalKind::hangup()).map_err(StartError::Worker)?;
    tokio::spawn(reloader.run(hangups, requested));
    Ok(usage_writer)
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
