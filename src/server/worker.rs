//! A worker: one thread, one event loop, its own sockets, upstream pools and Redis connection. On its hot path it shares only
//! what must be one per process: the in-memory limiter, the caches, the metrics.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::auth::Authenticator;
use crate::config::Store;
use crate::forward::Forwarder;
use crate::gateway::{Admission, Gateway};
use crate::limits::{Limiter, RedisLimiter};
use crate::listener::Listener;
use crate::store::Redis;

use super::{Shared, StartError, Tokens};

/// How often upstream connections that waited too long are closed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

pub(super) struct Worker {
    shared: Arc<Shared>,
    gateway: Arc<Gateway>,
}

impl Worker {
    /// Starts a worker's thread; returns when it accepts connections.
    pub(super) async fn spawn(
        index: usize,
        shared: Arc<Shared>,
        https: std::net::TcpListener,
        http: Option<std::net::TcpListener>,
    ) -> Result<JoinHandle<()>, StartError> {
        let (started, starts) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Worker)?;
        let run = async move {
            let sockets = TcpListener::from_std(https)
                .and_then(|https| Ok((https, http.map(TcpListener::from_std).transpose()?)))
                .map_err(StartError::Worker);
            let made = match sockets {
                Ok(sockets) => Worker::new(shared).await.map(|worker| (worker, sockets)),
                Err(error) => Err(error),
            };
            match made {
                Ok((worker, (https, http))) => {
                    // Whoever started this worker may have given up; the shutdown says so.
                    let _ = started.send(Ok(()));
                    worker.run(https, http).await;
                }
                Err(error) => {
                    let _ = started.send(Err(error));
                }
            }
        };
        let thread = thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                runtime.block_on(run);
                // Dropped, it would wait for look-ups of host names under way, which nothing can cut short.
                runtime.shutdown_background();
            })
            .map_err(StartError::Worker)?;
        starts.await.unwrap_or_else(|_| Err(StartError::Worker(std::io::Error::other("it ended at once"))))?;
        Ok(thread)
    }

    async fn new(shared: Arc<Shared>) -> Result<Self, StartError> {
        let config = &shared.config;
        let (authenticator, limiter) = match (&config.store, &shared.tokens) {
            (Store::Redis(store), Tokens::Redis(cache)) => {
                let redis = Redis::open(store, shared.health.clone()).await?;
                let (local, denials) = (shared.limiter.clone(), shared.denials.clone());
                let limiter = RedisLimiter::new(redis.clone(), store.on_failure, local, denials)
                    .with_pending_merges(shared.journal.clone());
                (
                    Authenticator::with_redis(config, redis, cache.clone(), shared.failures.clone()),
                    Limiter::Redis(limiter),
                )
            }
            (Store::Memory | Store::Redis(_), Tokens::File(file)) => (
                Authenticator::with_file(config, file.clone(), shared.failures.clone()),
                Limiter::Memory(shared.limiter.clone()),
            ),
            (Store::Memory, Tokens::Redis(_)) => {
                unreachable!("the memory store has a token file, which the configuration demands")
            }
        };
        let gateway = Arc::new(Gateway {
            config: config.clone(),
            routes: shared.routes.clone(),
            certificates: shared.certificates.clone(),
            admission: Admission { authenticator, limiter, usage: shared.usage.clone() },
            forwarder: Forwarder::new(config, &shared.names, &shared.upstreams, &shared.metrics, &shared.shutdown)
                .map_err(StartError::Upstream)?,
            metrics: shared.cells.clone(),
            shutdown: shared.shutdown.clone(),
        });
        Ok(Self { shared, gateway })
    }

    /// Serves until the instance has ended.
    async fn run(self, https: TcpListener, http: Option<TcpListener>) {
        let listener = |tls, name| {
            Arc::new(Listener {
                handler: self.gateway.clone(),
                tls,
                settings: self.shared.config.listen.clone(),
                open: self.shared.open.clone(),
                metrics: self.shared.metrics.listener(name),
                shutdown: self.shared.shutdown.clone(),
            })
        };
        tokio::spawn(listener(Some(self.shared.tls.clone()), "https").run(https));
        if let Some(http) = http {
            tokio::spawn(listener(None, "http").run(http));
        }
        let gateway = self.gateway.clone();
        tokio::spawn(async move {
            let mut tick = tokio::time::interval(SWEEP_INTERVAL);
            loop {
                tick.tick().await;
                gateway.forwarder.sweep();
            }
        });
        let gateway = self.gateway.clone();
        tokio::spawn(async move { gateway.admission.limiter.run().await });
        self.shared.shutdown.parted().await;
        self.gateway.admission.limiter.end().await;
    }
}
