//! Assembly: one configuration becomes sockets, workers and an admin listener, and ends as a drain.

mod admin_sockets;
mod admin_stores;
mod drain;
mod error;
mod in_process;
mod launch_options;
mod open_files;
mod path_socket;
mod reload;
mod signals;
mod sockets;
mod state;
mod store_watch;
mod systemd;
mod takeover;
mod watched_files;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use crate::admin::{Admin, LastReload, OBSERVE_INTERVAL, Observer};
use crate::auth::RecordWatch;
use crate::config::{AdminAddress, Config};
use crate::instances::Instances;
use crate::limits::Moment;
use crate::listener::ValidityWatch;
use crate::store::Redis;
use crate::telemetry::{self, LogControl, Metrics, TraceExport, Traces};
use crate::tokens::UsageWriter;

use admin_sockets::AdminSockets;
use admin_stores::AdminStores;
use drain::Drain;
use error::StartError;
use path_socket::PathSocket;
use reload::{Reloader, UpstreamTasks, unix_seconds};
use sockets::Sockets;
use state::{ProcessState, TokenSource};
use takeover::{HeldSocket, Holders, Inheritance, Predecessor, TakeoverError};
use watched_files::WatchedFiles;
use worker::Worker;

// For the benchmarks alone.
pub use in_process::InProcess;
pub(crate) use launch_options::LaunchOptions;
pub(crate) use signals::ExitSignals;
pub(crate) use sockets::ActivatedSocket;

/// How often expired logs are removed from memory.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// How long Redis may take to answer a process that is to take over.
const STORE_WAIT: Duration = Duration::from_secs(10);
const STORE_PAUSE: Duration = Duration::from_millis(20);
/// Reloads that may wait for one another.
const MAX_WAITING_RELOADS: usize = 16;

/// A running gateway.
pub(crate) struct Server {
    /// The bound address: port 0 of the configuration is replaced by the actual port.
    pub(crate) https: SocketAddr,
    pub(crate) admin: AdminAddress,
    state: Arc<ProcessState>,
    background: Background,
    workers: Vec<Worker>,
    /// If it can be taken over.
    predecessor: Option<Arc<Predecessor>>,
}

/// What runs in the background and ends in order.
struct Background {
    usage_writer: Arc<UsageWriter>,
    instances: Arc<Instances>,
    /// Tells the other instances of this one.
    heartbeat: AbortOnDropHandle<()>,
    observer: Arc<Observer>,
    /// If requests are traced.
    trace_export: Option<TraceExport>,
}

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Signal,
    /// Another process has taken over.
    TakenOver,
}

impl Server {
    /// Starts a gateway with the metrics and the log of this process; returns when requests are served. Background tasks
    /// run on the caller's runtime. `files` are those that the configuration depends on: a change of one lets it be read again.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then, and a process that was to be taken over goes on as before.
    pub(crate) async fn launch(
        config: Config,
        files: Vec<PathBuf>,
        options: LaunchOptions,
    ) -> Result<Self, StartError> {
        // Looked at before they are read.
        let files = WatchedFiles::new(files);
        let metrics = Arc::new(Metrics::new()?);
        let (log, log_control, guard) = telemetry::init(&config.log, options.log_format, &metrics)?;
        // Dropped with the runtime, after the last line.
        tokio::spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        open_files::raise_limit(config.listen.max_connections);
        let count = config.runtime.workers.get();
        let LaunchOptions { takeover, activated, warnings, .. } = options;
        warnings.iter().for_each(|warning| tracing::warn!("{}", warning.line()));
        let inheritance = match takeover.clone() {
            Some(path) => in_background(path, takeover::connect).await?,
            None => None,
        };
        let mut sockets = Sockets { takes_over: takeover.is_some(), inheritance, activated };
        let https = sockets.take("listen.https", config.listen.https, count).await?;
        let http = match config.listen.http {
            Some(address) => Some(sockets.take("listen.http", address, count).await?),
            None => None,
        };
        let admin = AdminSockets::take(&mut sockets, &config.listen).await?;
        sockets.warn_of_unused();
        let traces =
            config.otlp.as_ref().map(|settings| Traces::start(settings, metrics.traces.clone())).transpose()?;
        let (traces, trace_export) = traces.unzip();
        let state = Arc::new(ProcessState::new(config, metrics, log, traces)?);
        let address = |sockets: &[std::net::TcpListener]| sockets[0].local_addr().map_err(StartError::Worker);
        let (https_address, http_address) = (address(&https)?, http.as_deref().map(address).transpose()?);
        let admin_address = admin.address().map_err(StartError::Worker)?;
        let health_address = admin.health_address().map_err(StartError::Worker)?;

        let hold = |key, listeners: &[std::net::TcpListener]| sockets::hold(key, listeners).map_err(StartError::Worker);
        let mut held = Vec::new();
        if takeover.is_some() {
            held.extend(hold("listen.https", &https)?);
            held.extend(hold("listen.http", http.as_deref().unwrap_or_default())?);
            held.extend(admin.hold().map_err(StartError::Worker)?);
        }
        let share = |listeners| sockets::share(listeners, count).map_err(StartError::Worker);
        let shares = share(https)?.into_iter().zip(share(http.unwrap_or_default())?);
        let mut workers = Vec::with_capacity(count);
        for (index, (https, http)) in shares.enumerate() {
            match Worker::spawn(index, state.clone(), https, http).await {
                Ok(worker) => workers.push(worker),
                Err(error) => {
                    state.shutdown.drain();
                    state.shutdown.finish(Duration::ZERO).await;
                    return Err(error);
                }
            }
        }
        let mut background = spawn_background(&state, &workers, admin, log_control, files, takeover.clone()).await?;
        background.trace_export = trace_export;
        let predecessor = match takeover {
            Some(path) => match take_over(&state, path, held, sockets.inheritance).await {
                Ok(predecessor) => Some(predecessor),
                Err(error) => {
                    state.shutdown.drain();
                    state.shutdown.finish(Duration::ZERO).await;
                    return Err(error);
                }
            },
            None => None,
        };
        state.accepting.cancel();
        let server = Self { https: https_address, admin: admin_address, state, background, workers, predecessor };
        let (http, health) = (http_address.map(tracing::field::display), health_address.map(tracing::field::display));
        tracing::info!(https = %server.https, http, admin = %server.admin, health, workers = count, "serving");
        systemd::ready();
        tokio::spawn(systemd::feed_watchdog());
        Ok(server)
    }

    /// Resolves when another process has taken over: then this one is to be stopped.
    pub(crate) async fn taken_over(&self) {
        self.state.shutdown.handed_over().await;
    }

    /// Ends the gateway: readiness fails at once. After `drain.delay` the listeners close; requests get `drain.timeout` to finish,
    /// calls get `drain.calls`. Further signals hurry that.
    pub(crate) async fn stop(self, end: End, signals: ExitSignals) {
        let (shutdown, metrics) = (&self.state.shutdown, &self.state.metrics.drain);
        let mut settings = self.state.config().drain;
        if end == End::TakenOver {
            // Nobody has to notice.
            settings.delay = Duration::ZERO;
        }
        let hurry = signals.hurry(end == End::TakenOver);
        systemd::stopping();
        shutdown.announce();
        if let Some(predecessor) = &self.predecessor {
            predecessor.close_sockets();
        }
        Drain { settings, shutdown, metrics, hurry }.run().await;
        for worker in self.workers {
            worker.join().await;
        }
        let Background { usage_writer, instances, heartbeat, observer, trace_export } = self.background;
        usage_writer.finish().await;
        if let Some(traces) = trace_export {
            traces.finish().await;
        }
        drop(heartbeat);
        instances.leave().await;
        observer.listeners_gone().await;
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

/// Takes over from the process that was found, if one was; returns when this one has to accept. From then on it can be taken over
/// itself.
async fn take_over(
    state: &Arc<ProcessState>,
    path: PathBuf,
    held: Vec<HeldSocket>,
    inheritance: Option<Inheritance>,
) -> Result<Arc<Predecessor>, StartError> {
    let memory = match &state.tokens {
        TokenSource::File { .. } => Some(state.limiter.clone()),
        TokenSource::Redis { .. } => None,
    };
    if let (None, Some(_)) = (&memory, &inheritance) {
        let failed = |trouble| StartError::Takeover { path: path.clone(), source: TakeoverError::StoreDown(trouble) };
        store_answers(state).await.map_err(failed)?;
    }
    let predecessor = Predecessor {
        path: path.clone(),
        sockets: Mutex::new(Some(held)),
        memory: memory.clone(),
        shutdown: state.shutdown.clone(),
        holders: Holders::default(),
        busy: Mutex::default(),
    };
    let (predecessor, accepting) = (Arc::new(predecessor), state.accepting.clone());
    let process = predecessor.clone();
    in_background(path, move |path| {
        let socket = PathSocket::bind(path, 0o600, None)?;
        if let Some(mut inheritance) = inheritance {
            inheritance.take_state(memory.as_ref())?;
            accepting.cancel();
            inheritance.finish();
            if let Err(error) = process.start(socket) {
                // There is no way back: the other process drains.
                tracing::error!(%error, "nobody can take over from this process");
            }
            return Ok(());
        }
        Ok(process.start(socket)?)
    })
    .await?;
    Ok(predecessor)
}

/// Waits until Redis answers, at most for some seconds; an error says why it does not.
async fn store_answers(state: &ProcessState) -> Result<(), String> {
    let (health, deadline) = (&state.store_health, Instant::now() + STORE_WAIT);
    loop {
        match health.trouble() {
            None if health.has_been_up() => return Ok(()),
            trouble if Instant::now() > deadline => return Err(trouble.unwrap_or_default()),
            _ => tokio::time::sleep(STORE_PAUSE).await,
        }
    }
}

/// Talks to another process on a thread that may wait.
async fn in_background<T: Send + 'static>(
    path: PathBuf,
    talk: impl FnOnce(&std::path::Path) -> Result<T, TakeoverError> + Send + 'static,
) -> Result<T, StartError> {
    let with_path = path.clone();
    let done = tokio::task::spawn_blocking(move || talk(&with_path)).await;
    let done = done.unwrap_or_else(|panic| Err(std::io::Error::other(panic).into()));
    done.map_err(|source| StartError::Takeover { path, source })
}

/// Starts the admin listener and all that runs in the background.
async fn spawn_background(
    state: &Arc<ProcessState>,
    workers: &[Worker],
    sockets: AdminSockets,
    log: LogControl,
    files: WatchedFiles,
    takeover: Option<PathBuf>,
) -> Result<Background, StartError> {
    let snapshot = state.snapshot.load_full();
    let (requests, requested) = mpsc::channel(MAX_WAITING_RELOADS);
    let last = LastReload::default();
    let stores = AdminStores::open(state, requests, last.clone(), log.clone(), takeover).await?;
    let usage_writer = Arc::new(UsageWriter::new(stores.registry(state, &snapshot), state.usage.clone()));
    let admin = Arc::new(Admin::new(stores.backend(state, &snapshot)));
    sockets.serve(&admin, &state.accepting).map_err(StartError::Worker)?;
    tokio::spawn(observe(admin.clone()));
    let (validity, served) = (Arc::<ValidityWatch>::default(), state.clone());
    tokio::spawn(validity.clone().run(move || served.snapshot.load().certificates()));
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
            let (instances, on_invalidation) = (stores.instances.clone(), state.on_invalidation());
            let announced = move |message: &str| {
                let is_question = instances.hear(message);
                if !is_question {
                    on_invalidation(message);
                }
                !is_question
            };
            let watch = RecordWatch::new(redis, cache, plans, calls, announced);
            tokio::spawn(watch.start().await);
        }
    }
    let writer = usage_writer.clone();
    tokio::spawn(async move { writer.run().await });
    let (instances, observer) = (stores.instances.clone(), stores.observer.clone());
    let heartbeat = AbortOnDropHandle::new(tokio::spawn(instances.clone().run()));
    tokio::spawn(sweep(state.clone()));
    state.metrics.reload_successful.set(1);
    state.metrics.reload_success_time.set(unix_seconds(SystemTime::now()));
    let reloader = Reloader {
        tasks: UpstreamTasks::start(state, &snapshot.upstreams, None),
        files,
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
    Ok(Background { usage_writer, instances, heartbeat, observer, trace_export: None })
}

/// Lets the admin listener look at traffic and warnings.
async fn observe(admin: Arc<Admin>) {
    let mut tick = tokio::time::interval(OBSERVE_INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        admin.observe();
    }
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
