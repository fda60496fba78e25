//! A route, validated: which requests it takes, what it requires of them, and what becomes of them.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::{LogShare, RouteLimits, Split};

/// What a route requires of a request's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteAccess {
    /// A valid token that has all of these permissions (none: any valid token).
    Token(Vec<Arc<str>>),
    /// Nothing: the route is public.
    Public,
}

/// Host + path + methods → upstream.
#[derive(Debug, Clone, PartialEq)]
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
    /// How slowly a client may send a request's body.
    pub upload: UploadBounds,
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
    /// Which of its successful requests have a line in the access log.
    pub log_success: LogShare,
}

/// How slowly a body may come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct UploadBounds {
    /// Bytes a second, of the time in which its receiver waits for more; `None`: no bound.
    pub min_rate: Option<NonZeroU64>,
    /// For the whole body; `None`: no bound.
    pub timeout: Option<Duration>,
}

/// Calls: WebSockets, streams of server-sent events, and gRPC. How long they may live.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CallLimits {
    /// Whether they count in the plan's `concurrent_calls`.
    pub counted: bool,
    /// From the upgrade on, of events from the head of the answer, of gRPC from that of the request; `None`: no bound.
    pub max_duration: Option<Duration>,
    /// Without a byte in either direction; `None`: no bound.
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
    pub const fn with(self, other: PathForms) -> PathForms {
        PathForms(self.0 | other.0)
    }

    /// The forms of this set that are not in `allowed`.
    pub const fn without(self, allowed: PathForms) -> PathForms {
        PathForms(self.0 & !allowed.0)
    }

    /// Whether nothing is in the set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A host that requests may be for, in lower case, without a port or a final dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This one.
    Exact(Arc<str>),
    /// Every one that ends like this, for example `.example.com`, with at least one label before it.
    Suffix(Arc<str>),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(end) => write!(f, "*{end}"),
        }
    }
}

/// A header that a request must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Its name.
    pub name: HeaderName,
    /// The value that one of its lines must have; `None`: any.
    pub value: Option<HeaderValue>,
}

/// The path that the upstream sees in place of the client's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrite {
    /// Without this at its beginning: fixed text that starts with a slash and does not end with one.
    StripPrefix(Arc<str>),
    /// The concatenation of these.
    Template(Arc<[Piece]>),
}

/// A piece of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Fixed text.
    Text(Arc<str>),
    /// The text of this parameter of the route's pattern.
    Parameter(Arc<str>),
}

/// All requests, in the unit of [`Mirror::share`].
pub const FULL_SHARE: u32 = 1_000_000;

/// An upstream that gets copies of a share of a route's requests; the answers are dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// An index in [`Config::upstreams`](super::Config::upstreams); none of the route's own upstreams.
    pub upstream: usize,
    /// How many of a million requests are copied.
    pub share: u32,
    /// Bytes of a request's body; longer ones are not copied.
    pub max_body: usize,
    /// Copies kept or in flight at one time, over all workers.
    pub max_copies: usize,
    /// The longest time from sending a copy to the end of its answer.
    pub timeout: Duration,
}

/// Headers that a route sets and removes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Set, in place of any that are there. Values of requests are marked sensitive: they may be credentials.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Removed.
    pub remove: Vec<HeaderName>,
    /// Headers of requests that routes match by: left as they are, but removed in other spellings and from trailers.
    pub matched: Vec<HeaderName>,
}

impl HeaderEdits {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty() && self.matched.is_empty()
    }
}

/// Which web pages may read a route's answers (CORS).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Their origins, at least one.
    pub origins: Vec<CorsOrigin>,
    /// Headers that they may send, as a list.
    pub headers: HeaderValue,
    /// Headers that they may read beside those of Callgate's own.
    pub expose: Vec<HeaderName>,
    /// Whether they may let the browser send cookies along.
    pub credentials: bool,
    /// How long a browser may keep the answer to a preflight.
    pub max_age: Duration,
}

/// Origins of web pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CorsOrigin {
    /// Anywhere.
    Any,
    /// This one.
    Exact(Box<str>),
    /// Every host below one: the scheme with `://`, and how the rest ends, for example `.example.com:8080`.
    Below(Box<str>, Box<str>),
}

impl Cors {
    /// What any of these allows.
    pub fn union<'a>(all: impl Iterator<Item = &'a Self>) -> Option<Self> {
        let names = |list: &HeaderValue| list.to_str().unwrap_or_default().to_owned();
        all.cloned().reduce(|mut union, other| {
            union.origins.extend(other.origins);
            union.expose.extend(other.expose);
            union.expose.sort_by(|a, b| a.as_str().cmp(b.as_str()));
            union.expose.dedup();
            let mut headers = names(&union.headers);
            for name in names(&other.headers).split(", ") {
                if !headers.split(", ").any(|known| known == name) {
                    headers = [&*headers, name].join(if headers.is_empty() { "" } else { ", " });
                }
            }
            // Names of headers are what a header can hold.
            union.headers = HeaderValue::try_from(headers).unwrap_or(other.headers);
            union.credentials |= other.credentials;
            union.max_age = union.max_age.min(other.max_age);
            union
        })
    }

    /// Whether every page may read the answers.
    pub fn is_for_all(&self) -> bool {
        self.origins.contains(&CorsOrigin::Any)
    }

    /// Whether pages from this origin may read the answers.
    pub fn allows(&self, origin: &HeaderValue) -> bool {
        let Ok(text) = origin.to_str() else { return false };
        self.origins.iter().any(|allowed| match allowed {
            CorsOrigin::Any => true,
            CorsOrigin::Exact(exact) => text == &**exact,
            CorsOrigin::Below(scheme, end) => {
                let label = text.strip_prefix(&**scheme).and_then(|rest| rest.strip_suffix(&**end));
                let is_host_char = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
                label.is_some_and(|label| !label.is_empty() && label.bytes().all(is_host_char))
            }
        })
    }
}

#[cfg(test)]
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
            upload: UploadBounds { min_rate: None, timeout: None },
            first_byte_timeout: None,
            idle_timeout: None,
            timeout: None,
            request_headers: Arc::default(),
            response_headers: Arc::default(),
            cors: None,
            call: CallLimits {
                counted: true,
                max_duration: None,
                idle_timeout: None,
                ping: None,
                ping_timeout: Duration::from_secs(20),
            },
            log_success: LogShare::ALL,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_whole() {
        let cors = |origins: Vec<CorsOrigin>| Cors {
            origins,
            headers: HeaderValue::from_static(""),
            expose: Vec::new(),
            credentials: false,
            max_age: Duration::ZERO,
        };
        let exact = cors(vec![CorsOrigin::Exact("https://app.test".into())]);
        let below = cors(vec![CorsOrigin::Below("https://".into(), ".app.test".into())]);
        for (origin, by_exact, by_below) in [
            ("https://app.test", true, false),
            ("https://a.app.test", false, true),
            ("https://a.b.app.test", false, true),
            ("http://a.app.test", false, false),
            ("https://.app.test", false, false),
            ("https://evil.test/.app.test", false, false),
            ("https://evil.test#.app.test", false, false),
            ("https://app.test.evil", false, false),
            ("https://evilapp.test", false, false),
            ("null", false, false),
        ] {
            let value = HeaderValue::from_static(origin);
            assert_eq!((exact.allows(&value), below.allows(&value)), (by_exact, by_below), "{origin}");
        }
        assert!(cors(vec![CorsOrigin::Any]).allows(&HeaderValue::from_static("null")));
    }
}
