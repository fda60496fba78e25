//! One request of a command to a running instance's admin listener.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::Value;

use crate::admin::CONFIRMATION;
use crate::bearer::is_bearer_token;
use crate::config;

/// The environment variable that may hold an admin token: an argument would be visible to every user of the machine.
const ADMIN_TOKEN: &str = "CALLGATE_ADMIN_TOKEN";
/// Bytes of a response.
const MAX_RESPONSE: u64 = 8 << 20;

/// Which running instance to ask.
#[derive(Debug, Args)]
pub(super) struct AdminAddress {
    /// The configuration file, which names the admin listener
    #[arg(long, value_name = "FILE", required_unless_present = "admin")]
    config: Option<PathBuf>,
    /// Address of the admin listener. Put an admin token, if it needs one, into the environment variable CALLGATE_ADMIN_TOKEN
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    admin: Option<SocketAddr>,
}

impl AdminAddress {
    /// # Errors
    /// All that is wrong with the configuration: a file with mistakes names no listener for certain.
    pub(super) fn address(&self) -> anyhow::Result<SocketAddr> {
        match (self.admin, &self.config) {
            (Some(admin), _) => Ok(admin),
            (None, Some(file)) => match config::load(file)?.config.listen.admin {
                config::AdminAddress::Tcp(address) => Ok(address),
                config::AdminAddress::Unix(socket) => bail!("can't use a Unix socket yet: {}", socket.path.display()),
            },
            (None, None) => bail!("--config FILE or --admin ADDRESS is needed"),
        }
    }
}

/// Returns whether the status is 200, and the body. `headers` are lines with their ends; `timeout` bounds each step.
pub(super) fn send(
    admin: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    timeout: Duration,
) -> anyhow::Result<(bool, String)> {
    let mut stream =
        TcpStream::connect_timeout(&admin, timeout).with_context(|| format!("no admin listener at {admin}"))?;
    stream.set_read_timeout(Some(timeout))?;
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {admin}\r\n{headers}connection: close\r\n\r\n")?;
    let mut response = String::new();
    let read = stream.take(MAX_RESPONSE).read_to_string(&mut response);
    read.with_context(|| format!("no answer from {admin}"))?;
    let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    Ok((response.split(' ').nth(1) == Some("200"), body.to_owned()))
}

/// Makes a request of the admin API, with the admin token of the environment if there is one. Returns whether the status is 200, and
/// the answer.
pub(super) fn ask(admin: SocketAddr, method: &str, path: &str, timeout: Duration) -> anyhow::Result<(bool, Value)> {
    let headers = format!("{CONFIRMATION}: 1\r\n{}", authorization()?);
    let (is_ok, body) = send(admin, method, path, &headers, timeout)?;
    let answer =
        serde_json::from_str(&body).with_context(|| format!("{admin} is not an admin listener of Callgate"))?;
    Ok((is_ok, answer))
}

/// The `Authorization` line with the admin token of the environment, if there is one.
fn authorization() -> anyhow::Result<String> {
    match std::env::var(ADMIN_TOKEN) {
        Ok(token) if is_bearer_token(&token) => Ok(format!("authorization: Bearer {token}\r\n")),
        // The value is not repeated: it may be a token with something attached.
        Ok(token) if !token.is_empty() => bail!("the value of {ADMIN_TOKEN} can't be an admin token"),
        Ok(_) | Err(_) => Ok(String::new()),
    }
}
