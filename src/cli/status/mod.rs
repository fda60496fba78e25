//! `callgate status`: whether a running instance is well, on one screen.

mod screen;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use super::admin_client::AdminArgs;
use crate::color::has_colors;
use screen::{Style, screen};

/// A running instance must answer within this time: a person waits.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Exit code 1: something is wrong with the instance.
///
/// # Errors
/// It can't be asked.
pub(super) fn run(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let admin = args.admin.client()?;
    let (is_ok, status) = admin.ask("GET", "/status", TIMEOUT)?;
    if !is_ok {
        bail!("{admin}: {}", status["message"].as_str().unwrap_or("it gave no reason"));
    }
    let is_well = status["well"].as_bool().context("the answer is no status of this version")?;
    let mut out = std::io::stdout();
    let text = match args.json {
        true => format!("{status}\n"),
        false => {
            let style = if has_colors(&out) { Style::Coloured } else { Style::Plain };
            screen(&status, &admin.to_string(), style)
        }
    };
    out.write_all(text.as_bytes()).context("writing to stdout")?;
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
