//! The validated configuration, which the rest of Callgate works with: nothing has to be checked again.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method};
use ipnet::IpNet;

use super::admin::AdminAccess;
use super::answers::{Cors, HeaderEdits};
use super::matching::{HeaderMatch, HostPattern, Rewrite};
use super::mirror::Mirror;
use super::plan::{Plan, PlansByName, RouteLimits};
use super::redis::RedisStore;
use super::split::Split;
use super::tls::TlsSettings;
use super::upstream::Upstream;

/// One whole configuration, checked and with every name resolved.
#[derive(Debug, Clone)]
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
    /// How an instance ends.
    pub drain: DrainSettings,
}

/// Threads.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Worker threads, each with its own event loop, upstream pool and Redis connection.
    pub workers: NonZeroUsize,
}

/// The listeners.
#[derive(Debug, Clone)]
pub struct ListenSettings {
    /// The HTTPS listener.
    pub https: SocketAddr,
    /// The plain listener, which only rejects or redirects.
    pub http: Option<SocketAddr>,
    /// Answer requests without a credential on the plain listener with a redirect to HTTPS instead of 403.
    pub redirect: bool,
    /// The admin listener.
    pub admin: SocketAddr,
    /// Networks of proxies that must begin each connection to the listeners for clients with a PROXY protocol header.
    pub proxy_protocol: Vec<IpNet>,
    /// Connections of clients at one time, over all listeners but admin.
    pub max_connections: usize,
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
    /// Bytes of a request target.
    pub max_target_bytes: usize,
    /// HTTP/2 streams at one time on one connection.
    pub max_concurrent_streams: u32,
}

/// Where tokens and limits live.
#[derive(Debug, Clone)]
pub enum Store {
    /// In this process; tokens come from `tokens.file`.
    Memory,
    /// In Redis, shared by all instances.
    Redis(Box<RedisStore>),
}

/// Bearer tokens.
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone)]
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
#[derive(Debug, Clone)]
pub struct LimitSettings {
    /// Stamp `X-RateLimit-*`.
    pub x_ratelimit: bool,
    /// Stamp `RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers).
    pub ietf: bool,
    /// Tokens whose logs are kept in memory per process.
    pub max_tokens: usize,
}

/// What a route requires of a request's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteAccess {
    /// A valid token that has all of these permissions (none: any valid token).
    Token(Vec<Arc<str>>),
    /// Nothing: the route is public.
    Public,
}

/// Host + path + methods → upstream.
#[derive(Debug, Clone)]
pub struct Route {
    /// The name in metrics and logs.
    pub name: Arc<str>,
    /// The hosts of the route; empty: all that no route names.
    pub hosts: Vec<HostPattern>,
    /// A matchit pattern, for example `/api/v1/calls/{id}`.
    pub path: Arc<str>,
    /// The methods of the route; empty: all. HEAD comes with GET.
    pub methods: Vec<Method>,
    /// Headers that the request must have.
    pub headers: Vec<HeaderMatch>,
    /// The path that the upstream sees; `None`: the client's, byte for byte.
    pub rewrite: Option<Rewrite>,
    /// Which requests may use it.
    pub access: RouteAccess,
    /// What a request costs in its token's limits, 1 to 1000.
    pub cost: u32,
    /// Limits for each token on this route alone, beside those of its plan.
    pub limits: Option<RouteLimits>,
    /// The upstreams that get its requests.
    pub upstream: Split,
    /// The upstream that gets copies of its requests.
    pub mirror: Option<Mirror>,
    /// Forward the client's `Authorization` to the upstream.
    pub forward_credentials: bool,
    /// Ambiguous forms of a path that this route accepts.
    pub allowed_forms: PathForms,
    /// Bytes of a request body.
    pub max_body: u64,
    /// The longest time from sending the request's head to the response's head; `None`: the upstream's.
    pub first_byte_timeout: Option<Duration>,
    /// The longest time without progress of the response's body; `None`: the upstream's.
    pub idle_timeout: Option<Duration>,
    /// The longest time for the whole answer, unless it is a call or a stream of events; `None`: no bound.
    pub timeout: Option<Duration>,
    /// Changes of the headers that the upstream gets.
    pub request_headers: Arc<HeaderEdits>,
    /// Changes of the headers of its answers.
    pub response_headers: Arc<HeaderEdits>,
    /// Which web pages may read the answers; `None`: the upstream decides.
    pub cors: Option<Cors>,
    /// Long-lived streams through this route.
    pub call: CallLimits,
}

impl Default for Route {
    /// A public route from `/` to the first upstream, for tests to fill in.
    fn default() -> Self {
        Self {
            name: "route".into(),
            hosts: Vec::new(),
            path: "/".into(),
            methods: Vec::new(),
            headers: Vec::new(),
            rewrite: None,
            access: RouteAccess::Public,
            cost: 1,
            limits: None,
            upstream: Split::to(0),
            mirror: None,
            forward_credentials: false,
            allowed_forms: PathForms::default(),
            max_body: 1 << 30,
            first_byte_timeout: None,
            idle_timeout: None,
            timeout: None,
            request_headers: Arc::default(),
            response_headers: Arc::default(),
            cors: None,
            call: CallLimits {
                max_duration: None,
                idle_timeout: None,
                ping: None,
                ping_timeout: Duration::from_secs(20),
            },
        }
    }
}

/// How long calls (WebSockets and other upgraded streams) may live.
#[derive(Debug, Clone, Copy)]
pub struct CallLimits {
    /// From the upgrade on; `None`: no bound.
    pub max_duration: Option<Duration>,
    /// Without a byte in either direction; `None`: no bound. Applies to server-sent events, too.
    pub idle_timeout: Option<Duration>,
    /// Each side of a WebSocket is pinged after so long a silence; `None`: never.
    pub ping: Option<Duration>,
    /// A side that is silent for so long after a ping is lost.
    pub ping_timeout: Duration,
}

/// A set of ambiguous forms of a request path (bits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PathForms(pub u8);

impl PathForms {
    /// `.` or `..` as a segment, plain or encoded.
    pub const DOT_SEGMENTS: PathForms = PathForms(1);
    /// `//`.
    pub const EMPTY_SEGMENTS: PathForms = PathForms(2);
    /// `%2f`.
    pub const ENCODED_SLASH: PathForms = PathForms(4);
    /// `\` or `%5c`.
    pub const BACKSLASH: PathForms = PathForms(8);
    /// `;`.
    pub const SEMICOLON: PathForms = PathForms(16);
    /// `%09`.
    pub const ENCODED_TAB: PathForms = PathForms(32);
    /// `%0a`.
    pub const ENCODED_LINE_FEED: PathForms = PathForms(64);
    /// `%0d`.
    pub const ENCODED_RETURN: PathForms = PathForms(128);
    /// The names that a configuration may allow, with their bits.
    pub const NAMES: [(&'static str, PathForms); 6] = [
        ("dot-segments", Self::DOT_SEGMENTS),
        ("empty-segments", Self::EMPTY_SEGMENTS),
        ("encoded-slash", Self::ENCODED_SLASH),
        ("backslash", Self::BACKSLASH),
        ("semicolon", Self::SEMICOLON),
        ("encoded-whitespace", Self(Self::ENCODED_TAB.0 | Self::ENCODED_LINE_FEED.0 | Self::ENCODED_RETURN.0)),
    ];
    /// How to name the forms to people.
    pub const SIGNS: [(PathForms, &'static str); 8] = [
        (Self::DOT_SEGMENTS, "a segment \".\" or \"..\""),
        (Self::EMPTY_SEGMENTS, "\"//\""),
        (Self::ENCODED_SLASH, "\"%2F\""),
        (Self::BACKSLASH, "a backslash"),
        (Self::SEMICOLON, "\";\""),
        (Self::ENCODED_TAB, "\"%09\""),
        (Self::ENCODED_LINE_FEED, "\"%0A\""),
        (Self::ENCODED_RETURN, "\"%0D\""),
    ];

    /// The union of both sets.
    #[must_use]
    pub const fn with(self, other: PathForms) -> PathForms {
        PathForms(self.0 | other.0)
    }

    /// The forms of this set that are not in `allowed`.
    #[must_use]
    pub const fn without(self, allowed: PathForms) -> PathForms {
        PathForms(self.0 & !allowed.0)
    }

    /// Whether nothing is in the set.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Access log and diagnostics.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// The form of the lines.
    pub format: LogFormat,
    /// A filter as of `tracing_subscriber::EnvFilter`, for example `info` or `callgate=debug`.
    pub level: Arc<str>,
    /// One line per request.
    pub access: bool,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// The end of an instance.
#[derive(Debug, Clone, Copy)]
pub struct DrainSettings {
    /// How long `/readyz` fails while new connections are still accepted.
    pub delay: Duration,
    /// How long requests in flight may take to finish before they are cut.
    pub timeout: Duration,
}

/// The header that carries a request's id.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
