//! `upstreams`, validated: named services, their addresses, and how to connect to them.

use super::{Balancing, CertificateFiles};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A named service.
#[derive(Debug, Clone)]
pub struct Upstream {
    /// Its name in metrics and logs.
    pub name: Arc<str>,
    /// Its addresses, at least one.
    pub endpoints: Vec<Endpoint>,
    /// The version of HTTP towards it.
    pub protocol: Protocol,
    /// The `Host` it sees.
    pub host: HostHeader,
    /// The longest time for connecting, TLS included.
    pub connect_timeout: Duration,
    /// The longest time from sending the request's head to the response's head.
    pub first_byte_timeout: Duration,
    /// The longest time without progress of a body in either direction.
    pub idle_timeout: Duration,
    /// An unused connection is closed after this time.
    pub keep_alive: Duration,
    /// Unused connections kept per endpoint and worker.
    pub max_idle: usize,
    /// Connections per endpoint and worker, used or not.
    pub max_connections: usize,
    /// An HTTP/2 connection that is silent for this long is pinged; `None`: never.
    pub ping: Option<Duration>,
    /// A connection gets no more requests after this time; `None`: its age does not matter.
    pub max_lifetime: Option<Duration>,
    /// How often its host names are resolved.
    pub resolve_interval: Duration,
    /// TLS towards its `https://` endpoints.
    pub tls: UpstreamTlsSettings,
    /// How its endpoints share its requests.
    pub balancing: Balancing,
}

/// TLS towards an upstream.
#[derive(Debug, Clone, Default)]
pub struct UpstreamTlsSettings {
    /// Trusted certificates; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The client certificate.
    pub client: Option<CertificateFiles>,
    /// The name for SNI and for verifying the certificate; `None`: the endpoint's host.
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
    /// HTTP/2, without negotiation.
    Http2,
    /// Negotiated over TLS (ALPN), HTTP/2 first; without TLS HTTP/1.1.
    Auto,
}

/// The `Host` header towards an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostHeader {
    /// The client's.
    Preserve,
    /// The endpoint's own host and port.
    Endpoint,
}
