//! `upstreams`, validated: named services, how to connect to them, and how their endpoints share requests.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::CertificateFiles;

/// A named service.
#[derive(Debug, Clone, PartialEq)]
pub struct Upstream {
    /// Its name in metrics and logs.
    pub name: Arc<str>,
    /// Its addresses, at least one.
    pub endpoints: Vec<Endpoint>,
    /// The version of HTTP towards it.
    pub protocol: Protocol,
    /// The `Host` it sees.
    pub host: HostHeader,
    /// How the names of headers are written on HTTP/1.1.
    pub header_case: HeaderCase,
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
    /// Connections of all workers to each endpoint, used or not.
    pub max_connections: usize,
    /// Those of them that calls and streams of events may hold; at most `max_connections`.
    pub max_calls: usize,
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
#[derive(Debug, Clone, Default, PartialEq)]
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

/// How the names of headers are written on HTTP/1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderCase {
    /// `content-type`
    Lower,
    /// `Content-Type`
    Title,
    /// As the client wrote them on HTTP/1.1; what Callgate adds, and what comes over HTTP/2, as `Title`.
    Preserve,
}

/// The load balancing of one upstream.
#[derive(Debug, Clone, PartialEq)]
pub struct Balancing {
    /// The share of each endpoint, in the order of the endpoints.
    pub shares: Vec<EndpointShare>,
    /// How an endpoint is chosen.
    pub balance: Balance,
    /// An endpoint that comes back gets its full share only after this time.
    pub slow_start: Option<Duration>,
    /// Health checks; `None`: there are none.
    pub health: Option<Health>,
    /// Ejection of endpoints that fail; `None`: they stay.
    pub ejection: Option<Ejection>,
    /// When a request is sent again.
    pub retry: Retry,
    /// Requests and calls at one time, over all workers; `None`: no cap.
    pub max_requests: Option<u32>,
    /// Requests that may wait because of that cap, or for a connection.
    pub max_waiting: u32,
    /// The longest wait.
    pub max_wait: Duration,
}

impl Balancing {
    /// Whether both bound requests alike.
    pub(crate) fn has_same_caps(&self, other: &Self) -> bool {
        let caps = |of: &Self| (of.max_requests, of.max_waiting, of.max_wait);
        caps(self) == caps(other)
    }
}

/// The share of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointShare {
    /// Its weight relative to the others'.
    pub weight: u32,
    /// Whether it gets requests only while no other endpoint is available.
    pub backup: bool,
}

/// Which endpoint a request goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// Of two that are drawn, the one with fewer requests in flight.
    LeastRequests,
    /// Each in turn.
    RoundRobin,
    /// The same one for the same key, as long as it is available.
    Hash(HashKey),
}

/// The part of a request that is the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The id of its token.
    Token,
    /// The value of a header.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(Arc<str>),
}

/// Health checks of endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct Health {
    /// The request, and the answers that count as healthy.
    pub probe: HealthProbe,
    /// The `Host`; `None`: the endpoint's own.
    pub host: Option<Arc<str>>,
    /// The time between two checks.
    pub interval: Duration,
    /// The interval varies by so many percent.
    pub jitter: u32,
    /// The longest time for the whole answer.
    pub timeout: Duration,
    /// Good answers in a row until the endpoint is used again.
    pub healthy: u32,
    /// Bad answers in a row until the endpoint is used no more.
    pub unhealthy: u32,
}

/// The request of a health check.
#[derive(Debug, Clone, PartialEq)]
pub enum HealthProbe {
    /// A GET.
    Http {
        /// The path, with its query.
        path: Arc<str>,
        /// Statuses of a healthy endpoint.
        status: Vec<RangeInclusive<u16>>,
    },
    /// `Check` of gRPC's `grpc.health.v1.Health`.
    Grpc {
        /// The service to check; empty: the whole server.
        service: Arc<str>,
    },
}

/// When an endpoint is ejected because its requests fail, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ejection {
    /// Failures in a row until it is ejected.
    pub failures: u32,
    /// How long the first time; twice as long the second time, and so on.
    pub time: Duration,
    /// The longest time.
    pub max_time: Duration,
    /// The most endpoints at one time, in percent. One of two or more may always be ejected, and one always stays.
    pub max_share: u32,
}

/// When requests are sent again, and how often.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// The failures after which a request is sent again.
    pub on: Vec<RetryOn>,
    /// Attempts for one request, the first included.
    pub attempts: u32,
    /// Retries, in percent of the requests of the last ten seconds …
    pub budget: u32,
    /// … or so many per second, if that is more.
    pub min_per_second: u32,
}

/// A failure after which a request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    /// There was no connection.
    Connect,
    /// The endpoint did not process the request (HTTP/2 says so).
    Refused,
    /// The connection broke before anything of an answer; idempotent requests without a body only.
    Broken,
    /// Status 503; idempotent requests without a body only.
    Unavailable,
}

impl RetryOn {
    /// All of them, with their names in configurations and metrics.
    pub const ALL: [(&'static str, RetryOn); 4] = [
        ("connect", RetryOn::Connect),
        ("refused", RetryOn::Refused),
        ("broken", RetryOn::Broken),
        ("unavailable", RetryOn::Unavailable),
    ];
}
