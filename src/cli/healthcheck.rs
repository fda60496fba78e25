//! `callgate healthcheck`: asks a running instance whether it is ready, where no curl is at hand.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

/// An instance that does not answer within this time is not healthy.
const DEADLINE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct HealthcheckArgs {
    /// Address of the admin listener
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// What to ask for: /readyz (may it get traffic?) or /livez (does it live?)
    #[arg(long, default_value = "/readyz", value_parser = ["/readyz", "/livez"])]
    path: String,
}

/// Prints what the instance says of itself.
///
/// # Errors
/// When it is not ready, or does not answer.
pub(super) fn run(args: &HealthcheckArgs) -> anyhow::Result<()> {
    let HealthcheckArgs { admin, path } = args;
    let mut stream =
        TcpStream::connect_timeout(admin, DEADLINE).with_context(|| format!("no admin listener at {admin}"))?;
    stream.set_read_timeout(Some(DEADLINE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    // The answer is a few hundred bytes; what isn't is not ours.
    stream.take(64 * 1024).read_to_string(&mut answer).with_context(|| format!("no answer from {admin}"))?;
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).trim();
    if answer.split(' ').nth(1) != Some("200") {
        bail!("{admin}{path}: {body}");
    }
    println!("{body}");
    Ok(())
}
