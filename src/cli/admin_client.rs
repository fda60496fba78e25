//! One request of a command to a running instance's admin listener.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;

/// Bytes of a response.
const MAX_RESPONSE: u64 = 1 << 20;

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
