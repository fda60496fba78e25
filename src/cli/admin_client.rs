//! One request of a command to a running instance's admin listener.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use clap::Args;
use http::Uri;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use super::config_file::ConfigFile;
use crate::admin::CONFIRMATION;
use crate::bearer::is_bearer_token;
use crate::certificates::Facts;
use crate::config::{self, AdminAddress, Config};
use crate::tls;

/// The environment variable that may hold an admin token: an argument would be visible to every user of the machine.
const ADMIN_TOKEN: &str = "CALLGATE_ADMIN_TOKEN";
/// Bytes of a response.
const MAX_RESPONSE: u64 = 8 << 20;
const DEFAULT_PORT: u16 = 9901;

/// Which running instance to ask.
#[derive(Debug, Args)]
pub(super) struct AdminArgs {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    listener: AdminListenerArgs,
}

/// Where the admin listener of an instance is.
#[derive(Debug, Args)]
pub(super) struct AdminListenerArgs {
    /// The admin listener, if not that of the configuration: HOST:PORT, http://…, https://… or unix:PATH. An admin token, if it needs
    /// one, is taken from the environment variable CALLGATE_ADMIN_TOKEN
    #[arg(long, value_name = "ADDRESS", env = "CALLGATE_ADMIN", hide_env_values = true)]
    admin: Option<AdminUrl>,
    /// With https://: a PEM file of trusted certificates, in place of the system's
    #[arg(long, value_name = "FILE")]
    admin_ca: Option<PathBuf>,
    /// With https://: a PEM file of the certificate to show, its key in the same file or in --admin-key
    #[arg(long, value_name = "FILE")]
    admin_cert: Option<PathBuf>,
    /// The private key of --admin-cert
    #[arg(long, value_name = "FILE", requires = "admin_cert")]
    admin_key: Option<PathBuf>,
}

/// An admin listener as people write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AdminUrl {
    Unix(PathBuf),
    Http { is_tls: bool, host: String, port: u16 },
}

/// An admin listener, and how to reach it.
pub(super) struct AdminClient {
    url: AdminUrl,
    /// What is trusted, and the name to expect.
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl FromStr for AdminUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(path.into()));
        }
        let wrong =
            || "for example 127.0.0.1:9901, https://gate.internal:9901 or unix:/run/callgate/admin.sock".to_owned();
        let (is_tls, authority) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(wrong()),
            None => (false, text),
        };
        let uri: Uri = authority.trim_end_matches('/').parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|host| !host.is_empty() && uri.path().len() <= 1).ok_or_else(wrong)?;
        if authority.contains('@') {
            return Err(wrong());
        }
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self::Http { is_tls, host, port: uri.port_u16().unwrap_or(DEFAULT_PORT) })
    }
}

impl fmt::Display for AdminUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Http { is_tls, host, port } => {
                let scheme = if *is_tls { "https://" } else { "" };
                if host.contains(':') {
                    write!(f, "{scheme}[{host}]:{port}")
                } else {
                    write!(f, "{scheme}{host}:{port}")
                }
            }
        }
    }
}

impl AdminArgs {
    /// # Errors
    /// All that is wrong with the configuration: a file with mistakes names no listener for certain.
    pub(super) fn client(&self) -> anyhow::Result<AdminClient> {
        match self.listener.client()? {
            Some(client) => Ok(client),
            None => AdminClient::of(&config::load(&self.config.path()?)?.config, &self.listener),
        }
    }
}

impl AdminListenerArgs {
    /// The listener that is named, if one is.
    ///
    /// # Errors
    /// What is wrong with its certificates.
    pub(super) fn client(&self) -> anyhow::Result<Option<AdminClient>> {
        let Some(url) = self.admin.clone() else { return Ok(None) };
        let tls = match &url {
            AdminUrl::Http { is_tls: true, host, .. } => Some(self.tls(host, self.admin_ca.as_deref())?),
            AdminUrl::Http { is_tls: false, .. } | AdminUrl::Unix(_) => None,
        };
        Ok(Some(AdminClient { url, tls }))
    }

    fn tls(&self, host: &str, ca: Option<&Path>) -> anyhow::Result<(Arc<ClientConfig>, ServerName<'static>)> {
        let shown = self.admin_cert.as_deref().map(|cert| (cert, self.admin_key.as_deref().unwrap_or(cert)));
        let name =
            ServerName::try_from(host.to_owned()).with_context(|| format!("{host} is not a name of a server"))?;
        Ok((Arc::new(tls::client_config(ca, shown, false)?), name))
    }
}

impl AdminClient {
    /// One that needs no certificate.
    ///
    /// # Errors
    /// It needs one.
    pub(super) fn unverified(url: AdminUrl) -> anyhow::Result<Self> {
        match url {
            AdminUrl::Http { is_tls: true, .. } => {
                bail!("{url} needs a certificate to trust: ask listen.health instead")
            }
            url => Ok(Self { url, tls: None }),
        }
    }

    /// The admin listener that a configuration names, on this machine.
    pub(super) fn of(config: &Config, args: &AdminListenerArgs) -> anyhow::Result<Self> {
        let address = match &config.listen.admin {
            AdminAddress::Unix(socket) => return Ok(Self { url: AdminUrl::Unix(socket.path.clone()), tls: None }),
            AdminAddress::Tcp(address) => reachable(*address),
        };
        let tls = match &config.admin.tls {
            None => None,
            Some(settings) => {
                // Its own certificate is trusted, under whatever name it has.
                let cert = &settings.certificate.cert;
                let facts = Facts::read(&tls::certificates(cert)?[0])
                    .map_err(|reason| anyhow!("{} {reason}", cert.display()))?;
                let addresses = facts.addresses.iter().map(ToString::to_string);
                let name = facts.names.iter().map(|name| name.replacen('*', "gate", 1)).chain(addresses).next();
                let name = name.with_context(|| format!("{} names no host", cert.display()))?;
                Some(args.tls(&name, Some(args.admin_ca.as_deref().unwrap_or(cert)))?)
            }
        };
        let url = AdminUrl::Http { is_tls: tls.is_some(), host: address.ip().to_string(), port: address.port() };
        Ok(Self { url, tls })
    }

    /// Makes a request of the admin API, with the admin token of the environment if there is one. Returns whether the status is 200,
    /// and the answer. `timeout` bounds each step.
    pub(super) fn ask(&self, method: &str, path: &str, timeout: Duration) -> anyhow::Result<(bool, Value)> {
        let headers = format!("{CONFIRMATION}: 1\r\n{}", authorization()?);
        let (is_ok, body) = self.send(method, path, &headers, timeout)?;
        let answer =
            serde_json::from_str(&body).with_context(|| format!("{self} is not an admin listener of Callgate"))?;
        Ok((is_ok, answer))
    }

    /// Returns whether the status is 200, and the body. `headers` are lines with their ends.
    pub(super) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        timeout: Duration,
    ) -> anyhow::Result<(bool, String)> {
        let host = match &self.url {
            AdminUrl::Unix(_) => "localhost".to_owned(),
            AdminUrl::Http { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            AdminUrl::Http { host, port, .. } => format!("{host}:{port}"),
        };
        let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{headers}connection: close\r\n\r\n");
        let unreachable = || format!("no admin listener at {self}");
        let response = match &self.url {
            AdminUrl::Unix(path) => {
                let stream = UnixStream::connect(path).with_context(unreachable)?;
                stream.set_read_timeout(Some(timeout))?;
                exchange(stream, &request)
            }
            AdminUrl::Http { host, port, .. } => {
                let stream = connect(host, *port, timeout).with_context(unreachable)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                match &self.tls {
                    None => exchange(stream, &request),
                    Some((config, name)) => {
                        let connection = ClientConnection::new(config.clone(), name.clone())?;
                        exchange(StreamOwned::new(connection, stream), &request)
                    }
                }
            }
        };
        let response = response.with_context(|| format!("no answer from {self}"))?;
        let body = response.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((response.split(' ').nth(1) == Some("200"), body.to_owned()))
    }
}

impl fmt::Display for AdminClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

fn exchange(mut stream: impl Read + Write, request: &str) -> std::io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut response = String::new();
    stream.take(MAX_RESPONSE).read_to_string(&mut response)?;
    Ok(response)
}

/// Tries all addresses of a name.
fn connect(host: &str, port: u16, timeout: Duration) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::from(std::io::ErrorKind::NotFound);
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Whoever listens on all addresses listens on loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address {
        SocketAddr::V4(address) if address.ip().is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(address) if address.ip().is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address.ip(),
    };
    SocketAddr::new(ip, address.port())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_listener_is_written_in_several_ways() {
        for (text, shown) in [
            ("127.0.0.1:9902", "127.0.0.1:9902"),
            ("gate.internal", "gate.internal:9901"),
            ("http://[::1]:9901/", "[::1]:9901"),
            ("https://gate.internal", "https://gate.internal:9901"),
            ("unix:/run/callgate/admin.sock", "unix:/run/callgate/admin.sock"),
        ] {
            assert_eq!(text.parse::<AdminUrl>().map(|url| url.to_string()).as_deref(), Ok(shown));
        }
        for bad in ["", "ftp://a", "http://", "https://user@a", "a/b", "http://a/status", ":9901"] {
            assert!(bad.parse::<AdminUrl>().is_err(), "{bad}");
        }
    }
}
