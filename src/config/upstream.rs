//! `upstreams`, validated: named services, where they are, and how they are spoken to.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::balancing::Balancing;
use super::tls::CertificateFiles;

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
    /// A connection is given no more requests after this time; `None`: never for its age.
    pub max_lifetime: Option<Duration>,
    /// How often the addresses behind its host names are looked up.
    pub resolve_interval: Duration,
    /// How its `https://` endpoints are spoken to.
    pub tls: UpstreamTlsSettings,
    /// How its endpoints share its requests.
    pub balancing: Balancing,
}

/// TLS towards an upstream.
#[derive(Debug, Clone, Default)]
pub struct UpstreamTlsSettings {
    /// The certificates to trust; `None`: the system's own.
    pub ca: Option<PathBuf>,
    /// What Callgate shows to a server that asks for a certificate.
    pub client: Option<CertificateFiles>,
    /// The name that is asked for (SNI) and must stand in the certificate; `None`: the endpoint's host.
    pub server_name: Option<Arc<str>>,
    /// Refuse TLS 1.2.
    pub only_tls13: bool,
}

/// One address of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether the connection is TLS (`https://`).
    pub tls: bool,
    /// Where it listens.
    pub address: EndpointAddress,
}

/// Where an endpoint listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointAddress {
    /// On TCP.
    Tcp {
        /// A host name or address literal, without brackets.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
    /// On a Unix socket with this absolute path.
    Unix(Arc<Path>),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        match &self.address {
            EndpointAddress::Tcp { host, port } if host.contains(':') => write!(f, "{scheme}://[{host}]:{port}"),
            EndpointAddress::Tcp { host, port } => write!(f, "{scheme}://{host}:{port}"),
            EndpointAddress::Unix(path) => write!(f, "unix:{}", path.display()),
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
