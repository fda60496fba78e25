//! `callgate serve`: the gateway on the operator's configuration, until a signal ends it.

use std::path::PathBuf;

use anyhow::{Context, anyhow};

use crate::config;
use crate::server::{ExitSignals, Server};

pub(super) async fn run(file: PathBuf) -> anyhow::Result<()> {
    let loaded = config::load(&file).map_err(|problems| anyhow!("the configuration is invalid\n{problems}"))?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    let mut signals = ExitSignals::listen().context("listening for signals")?;
    ExitSignals::ignore_others().context("ignoring other signals")?;
    let server = Server::launch(loaded.config).await?;
    signals.next().await;
    server.stop(signals).await;
    Ok(())
}
