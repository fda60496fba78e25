//! How the endpoints of an upstream share its requests, who is left out, what is tried again, and how much it is given.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

/// All of that, of one upstream.
#[derive(Debug, Clone)]
pub struct Balancing {
    /// What each endpoint is given, in the order of the endpoints.
    pub shares: Vec<EndpointShare>,
    /// Who is chosen.
    pub balance: Balance,
    /// An endpoint that comes back gets its full part only after this time.
    pub slow_start: Option<Duration>,
    /// Endpoints are asked whether they are well; `None`: they are not.
    pub health: Option<Health>,
    /// Endpoints that fail are left out for a while; `None`: they are not.
    pub ejection: Option<Ejection>,
    /// What is tried again.
    pub retry: Retry,
    /// Requests and calls at one time, over all workers; `None`: no cap.
    pub max_requests: Option<u32>,
    /// Requests that wait for a place under that cap, or for a connection.
    pub max_waiting: u32,
    /// How long one waits.
    pub max_wait: Duration,
}

/// What one endpoint is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointShare {
    /// Against the others'.
    pub weight: u32,
    /// Nothing, while another one is there that is no backup.
    pub backup: bool,
}

/// Which endpoint a request goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// Of two that are drawn the one that has fewer requests.
    LeastRequests,
    /// One after the other.
    RoundRobin,
    /// The same one for the same key, as long as it is there.
    Hash(HashKey),
}

/// What of a request is the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The id of its token.
    Token,
    /// The value of a header.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(Arc<str>),
}

/// How endpoints are asked whether they are well.
#[derive(Debug, Clone)]
pub struct Health {
    /// What they are asked.
    pub probe: HealthProbe,
    /// The `Host`; `None`: the endpoint's own.
    pub host: Option<Arc<str>>,
    /// From one question to the next.
    pub interval: Duration,
    /// The interval varies by so many percent.
    pub jitter: u32,
    /// The whole answer must be there within this time.
    pub timeout: Duration,
    /// So many good answers in a row, and it serves again.
    pub healthy: u32,
    /// So many bad ones in a row, and it serves no more.
    pub unhealthy: u32,
}

/// What an endpoint is asked to find out whether it is well.
#[derive(Debug, Clone)]
pub enum HealthProbe {
    /// A GET.
    Http {
        /// The path, with its query.
        path: Arc<str>,
        /// Statuses of who is well.
        status: Vec<RangeInclusive<u16>>,
    },
    /// `Check` of gRPC's `grpc.health.v1.Health`.
    Grpc {
        /// The service that it is about; empty: the whole server.
        service: Arc<str>,
    },
}

/// When an endpoint is left out because its requests fail.
#[derive(Debug, Clone, Copy)]
pub struct Ejection {
    /// After so many failures in a row.
    pub failures: u32,
    /// For so long the first time, twice as long the second time, and so on.
    pub time: Duration,
    /// Never longer.
    pub max_time: Duration,
    /// So many percent of the endpoints at one time; one of two or more may be, and one always stays.
    pub max_share: u32,
}

/// What is tried again, and how often.
#[derive(Debug, Clone)]
pub struct Retry {
    /// After what.
    pub on: Vec<RetryOn>,
    /// Attempts for one request, with the first.
    pub attempts: u32,
    /// Retries, in percent of the requests of the last ten seconds …
    pub budget: u32,
    /// … or so many in a second, if that is more.
    pub min_per_second: u32,
}

/// What a request is tried again after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryOn {
    /// There was no connection.
    Connect,
    /// The endpoint says that it did not look at the request (HTTP/2).
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
