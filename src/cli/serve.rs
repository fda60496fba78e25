//! `callgate serve`: the gateway on the operator's configuration, until it is told to end.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{self, Config};
use crate::server::Server;
use crate::telemetry::{self, Metrics};

pub(super) async fn run(file: PathBuf) -> anyhow::Result<()> {
    let loaded = config::load(&file).map_err(|problems| anyhow!("the configuration can't be used\n{problems}"))?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    let ends = Ends::new()?;
    let server = start(loaded.config).await?;
    ends.wait().await;
    server.stop().await;
    Ok(())
}

/// Starts a gateway with its logging.
pub(super) async fn start(config: Config) -> anyhow::Result<Server> {
    let metrics = Arc::new(Metrics::new().context("setting up metrics")?);
    let (log, guard) = telemetry::init(&config.log, metrics.clone()).context("setting up the log")?;
    // Dropped with the runtime, after the last line.
    tokio::spawn(guard.watch());
    Ok(Server::start(config, metrics, log).await?)
}

/// The signals that end an instance: SIGTERM from whoever runs it, SIGINT from a terminal.
pub(super) struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    pub(super) fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// Returns at the first signal. A second one ends the process at once: whoever sends it does not want to wait.
    pub(super) async fn wait(mut self) {
        self.either().await;
        tokio::spawn(async move {
            self.either().await;
            eprintln!("callgate: ended without waiting for the drain");
            std::process::exit(1);
        });
    }

    async fn either(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
