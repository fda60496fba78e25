//! `callgate serve`: the gateway on the operator's configuration, until a signal ends it or another process takes over.

use std::path::PathBuf;

use anyhow::{Context, anyhow};

use crate::config::{self, LogFormat};
use crate::server::{ActivatedSocket, End, ExitSignals, LaunchOptions, Server};

pub(super) async fn run(file: PathBuf, takeover: Option<PathBuf>, log_format: Option<LogFormat>) -> anyhow::Result<()> {
    let (loaded, files) = config::load_with_files(&file);
    let loaded = loaded.map_err(|problems| anyhow!("the configuration is invalid\n{problems}"))?;
    for warning in &loaded.warnings {
        eprintln!("{warning}");
    }
    let mut signals = ExitSignals::listen().context("listening for signals")?;
    ExitSignals::ignore_others().context("ignoring other signals")?;
    let activated = ActivatedSocket::all().context("taking the sockets of systemd")?;
    let server = Server::launch(loaded.config, files, LaunchOptions { takeover, activated, log_format }).await?;
    let end = tokio::select! {
        () = signals.next() => End::Signal,
        () = server.taken_over() => End::TakenOver,
    };
    server.stop(end, signals).await;
    Ok(())
}
