//! Assembly: one configuration becomes sockets, workers and an admin listener, and ends as a drain.

mod files;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::admin::{Admin, Desk, LimitsDesk};
use crate::auth::{
    Failures, FileError, FileStore, OpenCalls, RecordWatch, Registry, TokenCache, UsageBook, UsageKeeper,
};
use crate::config::{Config, OnFailure, RedisStore, Store};
use crate::forward::{Forwarder, Names, UpstreamError, Upstreams};
use crate::gateway::Cells;
use crate::limits::{self, DenyCache, Journal, Limiter, MemoryLimiter, RedisLimiter};
use crate::listener::{self, Certificates, Tls, TlsError};
use crate::route::{RouteError, RouteTable};
use crate::shutdown::Shutdown;
use crate::store::{OpenError, Redis, StoreHealth};
use crate::telemetry::{AccessLog, Metrics};

use worker::Worker;

/// Tokens whose refusals are remembered; each takes less than 200 bytes.
const MAX_DENIALS: usize = 100_000;
/// How long Redis may take for a request to the admin API: no client waits for it.
const ADMIN_DEADLINE: Duration = Duration::from_secs(2);
/// How often logs that have run out are let go.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Why a gateway can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address can't be listened on.
    #[error("can't listen on {address} ({listener})")]
    Bind {
        /// Which key of `listen`.
        listener: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A certificate can't be served.
    #[error("tls.certificates: {0}")]
    Tls(#[from] TlsError),
    /// Tokens can't be read.
    #[error("tokens.file: {0}")]
    Tokens(#[from] FileError),
    /// Redis can't be used as configured.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// Routes can't be laid out.
    #[error(transparent)]
    Routes(#[from] RouteError),
    /// An upstream can't be spoken to as configured.
    #[error("upstreams: {0}")]
    Upstream(#[from] UpstreamError),
    /// A thread or its event loop can't be made.
    #[error("can't start a worker")]
    Worker(#[source] io::Error),
}

/// What all workers of a process share.
struct Shared {
    config: Arc<Config>,
    metrics: Arc<Metrics>,
    cells: Arc<Cells>,
    routes: Arc<RouteTable>,
    upstreams: Arc<Upstreams>,
    names: Arc<Names>,
    certificates: Arc<Certificates>,
    tls: Tls,
    tokens: Tokens,
    limiter: Arc<MemoryLimiter>,
    denials: Arc<DenyCache>,
    open_calls: Arc<OpenCalls>,
    failures: Arc<Failures>,
    usage: Arc<UsageBook>,
    journal: Arc<Journal>,
    health: Arc<StoreHealth>,
    open: Arc<AtomicUsize>,
    shutdown: Shutdown,
}

/// Where records come from.
enum Tokens {
    File(Arc<FileStore>),
    Redis(Arc<TokenCache>),
}

/// A gateway that serves.
pub struct Server {
    /// Where HTTPS is served, with the port that port 0 became.
    pub https: SocketAddr,
    /// Where plain HTTP is refused.
    pub http: Option<SocketAddr>,
    /// Where the admin listener is.
    pub admin: SocketAddr,
    shared: Arc<Shared>,
    keeper: Arc<UsageKeeper>,
    workers: Vec<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Starts everything; returns when requests are served. Runs background tasks on the runtime that it is called on.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub async fn start(config: Config, metrics: Arc<Metrics>, log: AccessLog) -> Result<Self, StartError> {
        let config = Arc::new(config);
        files::raise_limit(config.listen.max_connections);
        let workers = config.runtime.workers.get();
        let bind = |listener, address, count| {
            listener::bind(address, count).map_err(|source| StartError::Bind { listener, address, source })
        };
        let https = bind("listen.https", config.listen.https, workers)?;
        let http = config.listen.http.map(|address| bind("listen.http", address, workers)).transpose()?;
        let admin = bind("listen.admin", config.listen.admin, 1)?;
        let shared = Arc::new(Shared::new(config, metrics, log)?);
        let (desk, keeper) = shared.desk().await?;
        let keeper = Arc::new(keeper);
        let address = |sockets: &[std::net::TcpListener]| sockets[0].local_addr().map_err(StartError::Worker);
        let (https_at, admin_at) = (address(&https)?, address(&admin)?);
        let http_at = http.as_deref().map(address).transpose()?;

        let mut threads = Vec::with_capacity(workers);
        let mut http = http.map(Vec::into_iter);
        for (index, https) in https.into_iter().enumerate() {
            let http = http.as_mut().and_then(Iterator::next);
            match Worker::spawn(index, shared.clone(), https, http).await {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    shared.shutdown.drain();
                    shared.shutdown.finish(Duration::ZERO).await;
                    return Err(error);
                }
            }
        }
        let server = Self { https: https_at, http: http_at, admin: admin_at, shared, keeper, workers: threads };
        server.spawn_background(admin, desk).await?;
        tracing::info!(https = %server.https, http = server.http.map(tracing::field::display), admin = %server.admin, workers, "serving");
        Ok(server)
    }

    async fn spawn_background(&self, sockets: Vec<std::net::TcpListener>, desk: Desk) -> Result<(), StartError> {
        let shared = &self.shared;
        let (config, metrics) = (shared.config.clone(), shared.metrics.clone());
        let admin = Arc::new(Admin::new(config, metrics, desk, shared.shutdown.clone()));
        for socket in sockets {
            let socket = TcpListener::from_std(socket).map_err(StartError::Worker)?;
            tokio::spawn(admin.clone().run(socket));
        }
        self.spawn_health_checks()?;
        let calls = shared.open_calls.clone();
        match (&shared.config.store, &shared.tokens) {
            (_, Tokens::File(file)) => drop(tokio::spawn(file.clone().watch(calls))),
            (Store::Redis(store), Tokens::Redis(cache)) => {
                let redis = Redis::open(store, shared.health.clone()).await?;
                let watch = RecordWatch::new(redis, cache.clone(), calls, shared.invalidator());
                tokio::spawn(watch.start().await);
            }
            (Store::Memory, Tokens::Redis(_)) => {}
        }
        let keeper = self.keeper.clone();
        tokio::spawn(async move { keeper.keep().await });
        let (limiter, shared) = (shared.limiter.clone(), shared.clone());
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(SWEEP_INTERVAL);
            loop {
                tick.tick().await;
                limiter.sweep(unix_ms(SystemTime::now()));
                shared.metrics.tokens_limited.set(i64::try_from(limiter.tokens()).unwrap_or(i64::MAX));
                let forgotten = limiter.take_forgotten();
                if forgotten > 0 {
                    shared.metrics.tokens_forgotten.inc_by(forgotten);
                    tracing::warn!(
                        forgotten,
                        "limits.max_tokens is too low: {forgotten} tokens were forgotten within {SWEEP_INTERVAL:?}, and may be admitted anew"
                    );
                }
                if let Tokens::Redis(cache) = &shared.tokens {
                    shared.metrics.tokens_cached.set(i64::try_from(cache.len()).unwrap_or(i64::MAX));
                }
            }
        });
        Ok(())
    }

    /// Endpoints are watched for as long as the process lives, and asked until the drain.
    fn spawn_health_checks(&self) -> Result<(), StartError> {
        let Shared { config, names, upstreams, metrics, shutdown, .. } = &*self.shared;
        let prober = Forwarder::new(config, names, upstreams, metrics, shutdown)?;
        let (upstreams, shutdown) = (upstreams.clone(), shutdown.clone());
        tokio::spawn(async move { upstreams.watch().await });
        tokio::spawn(async move {
            tokio::select! {
                () = prober.check_health() => {}
                () = shutdown.draining() => {}
            }
        });
        Ok(())
    }

    /// Ends the gateway: readiness fails at once; after `drain.delay` nothing new is taken; what is in flight gets
    /// `drain.timeout`. Returns how many connections and calls had to be cut.
    pub async fn stop(self) -> usize {
        let drain = self.shared.config.drain;
        let shutdown = &self.shared.shutdown;
        tracing::info!(delay = ?drain.delay, timeout = ?drain.timeout, "draining");
        shutdown.announce();
        tokio::time::sleep(drain.delay).await;
        shutdown.drain();
        let cut = shutdown.finish(drain.timeout).await;
        if cut > 0 {
            tracing::warn!(cut, "drain.timeout is over: connections were cut");
        }
        for worker in self.workers {
            // A worker that panicked has said so; there is nothing left to end.
            let _ = tokio::task::spawn_blocking(move || worker.join()).await;
        }
        self.keeper.finish().await;
        let journal = &self.shared.journal;
        if !journal.is_empty() {
            let (admissions, logs) = (journal.len(), journal.logs());
            tracing::warn!(
                admissions,
                logs,
                "{admissions} admissions made while Redis was away could not be merged into {logs} logs"
            );
        }
        tracing::info!("ended");
        cut
    }
}

impl Shared {
    /// To be called on the runtime of the background tasks.
    fn new(config: Arc<Config>, metrics: Arc<Metrics>, log: AccessLog) -> Result<Self, StartError> {
        let certificates = Arc::new(Certificates::load(&config.tls.certificates)?);
        for (file, expiry) in certificates.expiries() {
            metrics.certificate_expiry(&file.display().to_string()).set(*expiry as f64);
        }
        let settings = listener::server_config(&config.tls, certificates.clone())?;
        let tls = Tls { acceptor: TlsAcceptor::from(Arc::new(settings)), certificates: certificates.clone() };
        let tokens = match (&config.store, &config.tokens.file) {
            (Store::Memory, Some(file)) => Tokens::File(Arc::new(FileStore::open(&config, file)?)),
            (Store::Memory | Store::Redis(_), _) => Tokens::Redis(Arc::new(TokenCache::new(&config))),
        };
        let health = Arc::new(StoreHealth::new(metrics.store_up.clone()));
        if matches!(tokens, Tokens::File(_)) {
            // The memory store answers as long as the process lives.
            metrics.store_up.set(1);
        }
        let open_calls = Arc::<OpenCalls>::default();
        Ok(Self {
            cells: Arc::new(Cells::new(&metrics, &config.routes, log, open_calls.clone())),
            open_calls,
            failures: Arc::new(Failures::new(&config.tokens.failures)),
            usage: Arc::default(),
            routes: Arc::new(RouteTable::new(&config.routes)?),
            upstreams: Upstreams::new(&config, &metrics),
            names: Names::start(&config, &metrics),
            certificates,
            tls,
            tokens,
            limiter: Arc::new(MemoryLimiter::new(config.limits.max_tokens)),
            denials: Arc::new(DenyCache::new(MAX_DENIALS)),
            journal: Arc::new(Journal::new(metrics.merging.clone())),
            health,
            open: Arc::default(),
            shutdown: Shutdown::default(),
            metrics,
            config,
        })
    }

    /// A function that makes this process forget what it knows of a token, by an announcement that its record or logs have changed.
    fn invalidator(&self) -> impl Fn(&str) + Send + Sync + 'static {
        let (local, denials) = (self.limiter.clone(), self.denials.clone());
        let cache = match &self.tokens {
            Tokens::Redis(cache) => Some(cache.clone()),
            Tokens::File(_) => None,
        };
        move |what: &str| {
            if let Some(cache) = &cache {
                cache.invalidate(what);
            }
            limits::heed(what, &local, &denials);
        }
    }

    /// What the admin API works with: a connection of its own, and this process's memory; and who writes over it how tokens are used.
    async fn desk(&self) -> Result<(Desk, UsageKeeper), StartError> {
        let book = self.usage.clone();
        let (registry, limiter, keeper) = match (&self.config.store, &self.config.tokens.file) {
            (Store::Redis(store), _) => {
                let store = RedisStore { deadline: store.deadline.max(ADMIN_DEADLINE), ..(**store).clone() };
                let redis = Redis::open(&store, self.health.clone()).await?;
                let (local, denials) = (self.limiter.clone(), self.denials.clone());
                let limiter = RedisLimiter::new(redis.clone(), OnFailure::Deny, local, denials)
                    .with_journal(self.journal.clone());
                let keeper = UsageKeeper::with_redis(redis.clone(), book);
                (Registry::with_redis(redis).on_change(self.invalidator()), Limiter::Redis(limiter), keeper)
            }
            (Store::Memory, Some(file)) => {
                let keeper = UsageKeeper::with_file(&self.config, file, book);
                (Registry::with_file(&self.config, file), Limiter::Memory(self.limiter.clone()), keeper)
            }
            (Store::Memory, None) => {
                unreachable!("the memory store has a token file, which the configuration demands")
            }
        };
        let (file, store) = match &self.tokens {
            Tokens::File(file) => (Some(file.clone()), None),
            Tokens::Redis(_) => (None, Some(self.health.clone())),
        };
        let registry = Arc::new(registry);
        let limits = LimitsDesk::new(self.config.clone(), registry.clone(), limiter);
        let upstreams = self.upstreams.clone();
        Ok((Desk { limits, registry, file, upstreams, store }, keeper))
    }
}

fn unix_ms(now: SystemTime) -> u64 {
    // A clock before 1970 counts as 1970; 64 bits of milliseconds outlast it.
    now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}
