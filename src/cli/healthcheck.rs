//! `callgate healthcheck`: asks a running instance whether it is ready, for images without curl.

use std::time::Duration;

use anyhow::bail;
use clap::Args;

use super::admin_client::{AdminClient, AdminUrl};

/// An instance that does not answer within this time is not healthy.
const TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    /// The admin listener or that of `listen.health`: HOST:PORT, http://… or unix:PATH
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "CALLGATE_ADMIN",
        hide_env_values = true,
        default_value = "127.0.0.1:9901"
    )]
    admin: AdminUrl,
    /// /readyz: can it take traffic? /livez: is the process running?
    #[arg(long, default_value = "/readyz", value_parser = ["/readyz", "/livez"])]
    path: String,
}

pub(super) fn run(HealthcheckArgs { admin, path }: &HealthcheckArgs) -> anyhow::Result<()> {
    let (is_ok, body) = AdminClient::unverified(admin.clone())?.send("GET", path, "", TIMEOUT)?;
    let body = body.trim();
    if !is_ok {
        bail!("{admin}{path}: {body}");
    }
    println!("{body}");
    Ok(())
}
