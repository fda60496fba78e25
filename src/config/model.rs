//! The validated configuration, which the rest of Callgate works with: nothing has to be checked again.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use super::{
    AdminAccess, AdminAddress, LogSettings, OtlpSettings, Plan, PlansByName, Problem, RedisStore, Route, TlsSettings,
    Upstream,
};

/// One whole configuration, checked and with every name resolved.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The file it was read from.
    pub source: PathBuf,
    /// Worker threads.
    pub runtime: Runtime,
    /// Listeners, and what each client may do there.
    pub listen: ListenSettings,
    /// Access to the admin listener.
    pub admin: AdminAccess,
    /// Certificates and protocol versions of the HTTPS listener.
    pub tls: TlsSettings,
    /// Where tokens and limits live.
    pub store: Store,
    /// The form of Bearer tokens, and how long they are cached.
    pub tokens: TokenSettings,
    /// How limits are reported to clients.
    pub limits: LimitSettings,
    /// Every plan by its name.
    pub plans: PlansByName,
    /// The plan of tokens that name none.
    pub default_plan: Arc<Plan>,
    /// Routes, in the order of the file.
    pub routes: Vec<Arc<Route>>,
    /// Upstreams; a route refers to one by its index.
    pub upstreams: Vec<Arc<Upstream>>,
    /// Networks whose forwarding headers (`X-Forwarded-*`, `Forwarded`) are trusted.
    pub trusted_proxies: Vec<IpNet>,
    /// Access log and diagnostics.
    pub log: LogSettings,
    /// Traces; `None`: there are none.
    pub otlp: Option<OtlpSettings>,
    /// How an instance ends.
    pub drain: DrainSettings,
    /// The text of the file, without the secrets in it.
    pub text: Arc<str>,
    /// What somebody should look at, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Threads.
#[derive(Debug, Clone, PartialEq)]
pub struct Runtime {
    /// Worker threads, each with its own event loop, upstream pool and Redis connection.
    pub workers: NonZeroUsize,
    /// Whether the file says how many; otherwise they are as many as the processors of the machine.
    pub is_given: bool,
}

/// The listeners.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenSettings {
    /// The HTTPS listener.
    pub https: SocketAddr,
    /// The plain listener. It rejects or redirects what did not come over HTTPS to a proxy in `https_from`.
    pub http: Option<SocketAddr>,
    /// Networks of proxies that end TLS, and say of each request on the plain listener whether it came over HTTPS.
    pub https_from: Vec<IpNet>,
    /// Answer requests without a credential on the plain listener with a redirect to HTTPS instead of 403.
    pub redirect: bool,
    /// The admin listener.
    pub admin: AdminAddress,
    /// A listener for health and metrics alone.
    pub health: Option<SocketAddr>,
    /// Networks of proxies that must begin each connection to the listeners for clients with a PROXY protocol header.
    pub proxy_protocol: Vec<IpNet>,
    /// Connections of clients at one time, over all listeners but admin.
    pub max_connections: usize,
    /// Connections of one client address (IPv6: one /64) at one time.
    pub max_connections_per_client: u32,
    /// The longest time for a TLS handshake.
    pub handshake_timeout: Duration,
    /// The longest time for a request's head, from its first byte on.
    pub header_timeout: Duration,
    /// A connection without a request in flight is closed after this time.
    pub idle_timeout: Duration,
    /// The longest time without progress of a request's body, or of a client that reads a response.
    pub body_idle_timeout: Duration,
    /// Bytes of a request head (request line and headers).
    pub max_head_bytes: usize,
    /// Header lines of a request.
    pub max_headers: usize,
    /// Whether the case of header names is remembered, for upstreams with [`HeaderCase::Preserve`](super::HeaderCase::Preserve).
    pub remembers_header_case: bool,
    /// Bytes of a request target.
    pub max_target_bytes: usize,
    /// HTTP/2 streams at one time on one connection.
    pub max_concurrent_streams: u32,
}

/// Where tokens and limits live.
#[derive(Debug, Clone, PartialEq)]
pub enum Store {
    /// In this process; tokens come from `tokens.file`.
    Memory,
    /// In Redis, shared by all instances.
    Redis(Box<RedisStore>),
}

/// Bearer tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenSettings {
    /// What Callgate's own tokens start with, before the underscore.
    pub prefix: Arc<str>,
    /// The file of records, with the memory store.
    pub file: Option<PathBuf>,
    /// The `realm` of `WWW-Authenticate`.
    pub realm: Arc<str>,
    /// How long a record from Redis may be used while Redis does not answer, and without any comparison on routes without
    /// limits.
    pub cache_ttl: Duration,
    /// Records kept in memory per process.
    pub cache_size: usize,
    /// Failed authentications.
    pub failures: FailureLimits,
}

/// How often authentication may fail.
#[derive(Debug, Clone, PartialEq)]
pub struct FailureLimits {
    /// The most failures of one network of clients, and the window in milliseconds; `None`: any number.
    pub limit: Option<(NonZeroU32, NonZeroU32)>,
    /// Bits of an IPv4 address that make a network of clients, 8 to 32.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that make a network of clients, 16 to 128.
    pub ipv6_prefix: u8,
    /// Look-ups per second, per process, of tokens that are not found.
    pub lookups: u32,
}

/// How limits are reported to clients, and the memory for them.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitSettings {
    /// Stamp `X-RateLimit-*`.
    pub x_ratelimit: bool,
    /// Stamp `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    pub ietf: bool,
    /// Tokens whose logs are kept in memory per process.
    pub max_tokens: usize,
}

/// The end of an instance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DrainSettings {
    /// How long `/readyz` fails while new connections are still accepted.
    pub delay: Duration,
    /// How long requests in flight may take to finish before they are cut. It begins after the delay, as the next does.
    pub timeout: Duration,
    /// How long calls may go on before they are closed.
    pub calls: Duration,
    /// The time over which their closes are spread.
    pub spread: Duration,
}

/// The header that carries a request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
