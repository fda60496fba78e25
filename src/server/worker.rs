//! A worker: one thread with its own event loop, sockets, upstream pools and Redis connection. On the hot path, workers
//! share only what must be one per process: the in-memory limiter, the caches and the metrics.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use crate::auth::Authenticator;
use crate::forward::Forwarder;
use crate::gateway::{Admission, Gateway, Snapshot};
use crate::limits::Limiter;
use crate::listener::{Listener, Serving};
use crate::per_worker::WorkerThread;
use crate::store::Redis;

use super::error::StartError;
use super::state::{ProcessState, TokenSource};

/// How often expired upstream connections are closed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// A worker of the process.
pub(super) struct Worker {
    thread: JoinHandle<()>,
    pub(super) handle: WorkerHandle,
}

/// A way to tell a worker something.
#[derive(Clone)]
pub(super) struct WorkerHandle {
    exchanges: mpsc::UnboundedSender<Exchange>,
}

/// Puts another configuration into force, and says so.
type Exchange = (Arc<Snapshot>, oneshot::Sender<()>);

impl Worker {
    /// Starts a worker's thread; returns when it could accept connections. It does when `ProcessState::accepting` says so.
    pub(super) async fn spawn(
        index: usize,
        state: Arc<ProcessState>,
        https: Vec<std::net::TcpListener>,
        http: Vec<std::net::TcpListener>,
    ) -> Result<Self, StartError> {
        let (started, start) = oneshot::channel();
        let (exchanges, exchanged) = mpsc::unbounded_channel();
        let runtime = runtime()?;
        let run = async move {
            let listen = |sockets: Vec<std::net::TcpListener>| {
                let listeners = sockets.into_iter().map(TcpListener::from_std);
                listeners.collect::<Result<Vec<_>, _>>().map_err(StartError::Worker)
            };
            let ready = async { Ok((gateway(&state).await?, listen(https)?, listen(http)?)) };
            match ready.await {
                Ok((gateway, https, http)) => {
                    // If nothing receives this, the start was abandoned: the shutdown ends the worker.
                    let _ = started.send(Ok(()));
                    serve(&state, gateway, https, http, exchanged).await;
                }
                Err(error) => drop(started.send(Err(error))),
            }
        };
        let thread = thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                let _worker = WorkerThread::register();
                runtime.block_on(run);
                // Dropping the runtime would wait for DNS look-ups in flight, which can't be cancelled.
                runtime.shutdown_background();
            })
            .map_err(StartError::Worker)?;
        start.await.unwrap_or_else(|_| Err(StartError::Worker(std::io::Error::other("it ended at once"))))?;
        Ok(Self { thread, handle: WorkerHandle { exchanges } })
    }

    /// Waits for the end of the thread.
    pub(super) async fn join(self) {
        // A worker that panicked has logged it; there is nothing left to end.
        let _ = tokio::task::spawn_blocking(move || self.thread.join()).await;
    }
}

impl WorkerHandle {
    /// Lets the worker serve with another configuration; resolves when it does.
    pub(super) fn exchange(&self, snapshot: &Arc<Snapshot>) -> impl Future<Output = ()> + use<> {
        let (done, exchanged) = oneshot::channel();
        // A worker that has ended serves nothing.
        let _ = self.exchanges.send((snapshot.clone(), done));
        async move { exchanged.await.unwrap_or_default() }
    }
}

/// A worker's event loop.
pub(super) fn runtime() -> Result<Runtime, StartError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Worker)
}

/// What a worker serves requests with.
pub(super) async fn gateway(state: &ProcessState) -> Result<Arc<Gateway>, StartError> {
    let snapshot = state.snapshot.load_full();
    let Snapshot { config, plans, failures, .. } = &*snapshot;
    let (config, plans, failures) = (config.clone(), plans.clone(), failures.clone());
    let (authenticator, limiter) = match &state.tokens {
        TokenSource::Redis { cache, store } => {
            let redis = Redis::open(store, state.store_health.clone()).await?;
            let limiter = Limiter::Redis(state.redis_limiter(redis.clone(), store.on_failure));
            (Authenticator::with_redis(config, plans, redis, cache.clone(), failures), limiter)
        }
        TokenSource::File { records, .. } => {
            let limiter = Limiter::Memory(state.limiter.clone());
            (Authenticator::with_file(config, plans, records.clone(), failures), limiter)
        }
    };
    let (in_flight, usage) = (state.in_flight.clone(), state.usage.clone());
    let (metrics, shutdown) = (state.request_metrics.for_worker(), state.shutdown.clone());
    Ok(Arc::new(Gateway {
        admission: Admission { authenticator, limiter: Arc::new(limiter), in_flight, usage },
        forwarder: Forwarder::new(&snapshot.config, &snapshot.upstreams, &state.metrics, &shutdown, None),
        routes: snapshot.routes_for_worker(),
        snapshot,
        metrics,
        shutdown,
    }))
}

/// Serves until the instance has ended.
pub(super) async fn serve(
    state: &ProcessState,
    mut gateway: Arc<Gateway>,
    https: Vec<TcpListener>,
    http: Vec<TcpListener>,
    mut exchanges: mpsc::UnboundedReceiver<Exchange>,
) {
    let listener = |name, gateway: &Arc<Gateway>| {
        Arc::new(Listener {
            serving: ArcSwap::from_pointee(serving(name, gateway)),
            slots: state.connection_slots.clone(),
            metrics: state.metrics.listener(name),
            shutdown: state.shutdown.for_worker(),
        })
    };
    let listeners = [(HTTPS, https), (HTTP, http)].into_iter().filter(|(_, sockets)| !sockets.is_empty());
    let listeners = listeners.map(|(name, sockets)| {
        let listener = listener(name, &gateway);
        for socket in sockets {
            let (listener, accepting) = (listener.clone(), state.accepting.clone());
            // The drain waits for it: what it has just accepted counts.
            state.shutdown.tasks().spawn(async move {
                tokio::select! {
                    () = accepting.cancelled() => listener.run(socket).await,
                    () = listener.shutdown.draining() => {}
                }
            });
        }
        (name, listener)
    });
    let listeners: Vec<_> = listeners.collect();
    let limiter = gateway.admission.limiter.clone();
    tokio::spawn(async move { limiter.run().await });
    let mut tick = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            _ = tick.tick() => gateway.forwarder.sweep(),
            Some((snapshot, done)) = exchanges.recv() => {
                let next = Arc::new(gateway.under(snapshot, &state.metrics));
                gateway.forwarder.retire_missing_from(&next.forwarder);
                gateway = next;
                for (name, listener) in &listeners {
                    listener.serving.store(Arc::new(serving(name, &gateway)));
                }
                // If nobody waits for it, the process is ending.
                let _ = done.send(());
            }
            () = state.shutdown.parted() => break,
        }
    }
    gateway.admission.limiter.end().await;
}

/// The listeners, by their names in metrics.
const HTTPS: &str = "https";
const HTTP: &str = "http";

fn serving(name: &str, gateway: &Arc<Gateway>) -> Serving<Gateway> {
    let Snapshot { config, tls, .. } = &*gateway.snapshot;
    Serving { handler: gateway.clone(), tls: (name == HTTPS).then(|| tls.clone()), config: config.clone() }
}
