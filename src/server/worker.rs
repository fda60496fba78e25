//! A worker: one thread with its own event loop, sockets, upstream pools and Redis connection. On the hot path, workers
//! share only what must be one per process: the in-memory limiter, the caches and the metrics.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::auth::Authenticator;
use crate::gateway::{Admission, Gateway};
use crate::limits::Limiter;
use crate::listener::Listener;
use crate::store::Redis;

use super::error::StartError;
use super::state::{ProcessState, TokenSource};

/// How often expired upstream connections are closed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Starts a worker's thread; returns when it accepts connections.
pub(super) async fn spawn(
    index: usize,
    state: Arc<ProcessState>,
    https: std::net::TcpListener,
    http: Option<std::net::TcpListener>,
) -> Result<JoinHandle<()>, StartError> {
    let (started, start) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(StartError::Worker)?;
    let run = async move {
        let listener = |socket| TcpListener::from_std(socket).map_err(StartError::Worker);
        let ready = async { Ok((gateway(&state).await?, listener(https)?, http.map(listener).transpose()?)) };
        match ready.await {
            Ok((gateway, https, http)) => {
                // If nothing receives this, the start was abandoned: the shutdown ends the worker.
                let _ = started.send(Ok(()));
                serve(&state, gateway, https, http).await;
            }
            Err(error) => drop(started.send(Err(error))),
        }
    };
    let thread = thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || {
            runtime.block_on(run);
            // Dropping the runtime would wait for DNS look-ups in flight, which can't be cancelled.
            runtime.shutdown_background();
        })
        .map_err(StartError::Worker)?;
    start.await.unwrap_or_else(|_| Err(StartError::Worker(std::io::Error::other("it ended at once"))))?;
    Ok(thread)
}

async fn gateway(state: &ProcessState) -> Result<Arc<Gateway>, StartError> {
    let (config, failures) = (&state.config, state.failures.clone());
    let (authenticator, limiter) = match &state.tokens {
        TokenSource::Redis { cache, store } => {
            let redis = Redis::open(store, state.store_health.clone()).await?;
            let limiter = Limiter::Redis(state.redis_limiter(redis.clone(), store.on_failure));
            (Authenticator::with_redis(config, redis, cache.clone(), failures), limiter)
        }
        TokenSource::File { records, .. } => {
            let limiter = Limiter::Memory(state.limiter.clone());
            (Authenticator::with_file(config, records.clone(), failures), limiter)
        }
    };
    Ok(Arc::new(Gateway {
        config: config.clone(),
        routes: state.routes.clone(),
        certificates: state.certificates.clone(),
        admission: Admission { authenticator, limiter, in_flight: state.in_flight.clone(), usage: state.usage.clone() },
        forwarder: state.forwarder()?,
        metrics: state.request_metrics.clone(),
        shutdown: state.shutdown.clone(),
    }))
}

/// Serves until the instance has ended.
async fn serve(state: &ProcessState, gateway: Arc<Gateway>, https: TcpListener, http: Option<TcpListener>) {
    let listener = |tls, name| {
        Arc::new(Listener {
            handler: gateway.clone(),
            tls,
            settings: state.config.listen.clone(),
            slots: state.connection_slots.clone(),
            metrics: state.metrics.listener(name),
            shutdown: state.shutdown.for_worker(),
        })
    };
    tokio::spawn(listener(Some(state.tls.clone()), "https").run(https));
    if let Some(http) = http {
        tokio::spawn(listener(None, "http").run(http));
    }
    let sweeper = gateway.clone();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(SWEEP_INTERVAL);
        loop {
            tick.tick().await;
            sweeper.forwarder.sweep();
        }
    });
    let keeper = gateway.clone();
    tokio::spawn(async move { keeper.admission.limiter.run().await });
    state.shutdown.parted().await;
    gateway.admission.limiter.end().await;
}
