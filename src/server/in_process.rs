//! Workers inside another program, on threads of its choice. For the benchmarks alone.

use std::io::Write;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tokio::sync::mpsc;

use crate::config::Config;
use crate::per_worker::WorkerThread;
use crate::telemetry::{self, LogGuard, Metrics};

use super::error::StartError;
use super::state::ProcessState;
use super::worker;

/// What the workers of one process share. It serves HTTPS on the sockets that its workers get, without an admin listener.
pub struct InProcess {
    state: Arc<ProcessState>,
    _log: LogGuard,
}

impl InProcess {
    /// Must be called on a runtime that lives as long as the workers. Access lines go to `log`.
    ///
    /// # Errors
    /// When the configuration can't be put into force.
    pub fn new(config: Config, log: impl Write + Send + 'static) -> Result<Self, Box<dyn std::error::Error>> {
        let (access, guard) = telemetry::access_log(log, &config.log)?;
        let metrics = Arc::new(Metrics::new()?);
        let state = Arc::new(ProcessState::new(config, metrics, access, None)?);
        state.accepting.cancel();
        Ok(Self { state, _log: guard })
    }

    /// Makes this thread a worker that serves on a socket, until the guest, which shares its event loop, is done.
    ///
    /// # Errors
    /// When the socket can't be used.
    pub fn work<T>(
        &self,
        socket: TcpListener,
        guest: impl Future<Output = T>,
    ) -> Result<T, Box<dyn std::error::Error>> {
        let (_worker, runtime) = (WorkerThread::register(), worker::runtime()?);
        let done = runtime.block_on(async {
            let gateway = worker::gateway(&self.state).await?;
            let sockets = vec![tokio::net::TcpListener::from_std(socket).map_err(StartError::Worker)?];
            let (_exchanges, exchanged) = mpsc::unbounded_channel();
            tokio::select! {
                done = guest => Ok(Some(done)),
                () = worker::serve(&self.state, gateway, sockets, Vec::new(), exchanged) => Ok::<_, StartError>(None),
            }
        })?;
        done.ok_or_else(|| "the worker ended".into())
    }

    /// Counts what a plain request counts in metrics, so often on this thread, which is a worker meanwhile.
    pub fn count(&self, times: u32) {
        let _worker = WorkerThread::register();
        let (route, upstream) = (self.state.metrics.route("counted", &[]), self.state.metrics.upstream("counted", &[]));
        for number in 0..times {
            let took = Duration::from_micros((number % 1_000).into());
            route.count(&Method::GET, StatusCode::OK);
            route.seconds.observe(took);
            upstream.seconds.observe(took);
        }
    }

    /// The metrics of all workers.
    ///
    /// # Errors
    /// When a metric can't be encoded.
    pub fn metrics(&self) -> Result<String, Box<dyn std::error::Error>> {
        Ok(self.state.metrics.encode()?)
    }
}
