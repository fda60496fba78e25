//! `callgate serve`: the gateway on the operator's configuration, until a signal ends it or another process takes over.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;

use crate::config::{self, LogFormat, Severity};
use crate::server::{ActivatedSocket, End, ExitSignals, LaunchOptions, Server};
use crate::telemetry::StartLog;

/// Runs the gateway. What keeps it from starting is in the log, in the form of the log's lines.
pub(super) async fn run(file: &Path, takeover: Option<PathBuf>, log_format: Option<LogFormat>) -> ExitCode {
    let (loaded, files) = config::load_with_files(file);
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(problems) => {
            let log = StartLog::new(log_format.unwrap_or(LogFormat::Auto));
            for problem in problems.iter() {
                match problem.severity {
                    Severity::Error => log.error(problem.line()),
                    Severity::Warning => log.warn(problem.line()),
                }
            }
            log.error(format_args!("the configuration is invalid: {}", file.display()));
            return ExitCode::FAILURE;
        }
    };
    let log = StartLog::new(log_format.unwrap_or(loaded.config.log.format));
    let options = LaunchOptions { takeover, log_format, warnings: loaded.warnings, ..LaunchOptions::default() };
    match serve(loaded.config, files, options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log.error(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: config::Config, files: Vec<PathBuf>, options: LaunchOptions) -> anyhow::Result<()> {
    let mut signals = ExitSignals::listen().context("listening for signals")?;
    ExitSignals::ignore_others().context("ignoring other signals")?;
    let activated = ActivatedSocket::all().context("taking the sockets of systemd")?;
    let server = Server::launch(config, files, LaunchOptions { activated, ..options }).await?;
    let end = tokio::select! {
        () = signals.next() => End::Signal,
        () = server.taken_over() => End::TakenOver,
    };
    server.stop(end, signals).await;
    Ok(())
}
