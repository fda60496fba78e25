//! `upstreams`, validated: named services, where they are, and how they are spoken to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::balancing::Balancing;

/// A named service.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name in metrics and logs.
    pub name: Arc<str>,
    /// Its addresses, at least one.
    pub endpoints: Vec<Endpoint>,
    /// The version of HTTP that it is spoken to in.
    pub protocol: Protocol,
    /// The `Host` it sees.
    pub host: HostHeader,
    /// A TCP connection, with TLS where asked for, must stand within this time.
    pub connect_timeout: Duration,
    /// The response's head must come within this time of the request's head being sent.
    pub first_byte_timeout: Duration,
    /// A body, either way, may make no progress for this long.
    pub idle_timeout: Duration,
    /// An unused connection is closed after this time.
    pub keep_alive: Duration,
    /// Unused connections kept per endpoint and worker.
    pub max_idle: usize,
    /// Connections per endpoint and worker, used or not.
    pub max_connections: usize,
    /// An HTTP/2 connection that is silent for this long is asked whether it still lives; `None`: never.
    pub ping: Option<Duration>,
    /// Certificates to trust beside the system's own.
    pub ca: Option<PathBuf>,
    /// How its endpoints share its requests.
    pub balancing: Balancing,
}

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether the connection is TLS (`https://`).
    pub tls: bool,
    /// A host name or address literal, without brackets.
    pub host: Arc<str>,
    /// The TCP port.
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

/// The version of HTTP towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without asking.
    Http2,
    /// Over TLS what both sides know (ALPN), HTTP/2 first; in clear HTTP/1.1.
    Auto,
}

/// The `Host` header towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostHeader {
    /// What the client asked for.
    Preserve,
    /// The endpoint's own host and port.
    Endpoint,
}
