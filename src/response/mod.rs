//! What clients are told: every answer that Callgate makes itself, and the headers stamped on all of them. The only file that
//! knows which refusal has which status.

mod browser;
mod grpc;
mod options;
mod stamps;

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use crate::auth::Refusal;
use crate::body::Body;
use crate::forward::ForwardError;
use crate::listener::Fault;
use crate::route::PathFault;

pub use browser::{preflight, stamp_cors};
pub use options::options;
pub use stamps::{stamp_limits, stamp_request_id, stamp_shadow_denial};

/// Seconds after which a client may try again what failed for a reason of ours.
const RETRY_SOON: u64 = 1;
/// Seconds after which a client may try again to open a call: nobody knows when another one ends.
const RETRY_CALL: u64 = 2;
/// What a resource can allow where no route says otherwise: everything but CONNECT and TRACE.
const ORDINARY_METHODS: &str = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT";

/// An answer that Callgate makes itself.
#[derive(Debug)]
pub enum Rejection {
    /// It was no request.
    Fault(Fault),
    /// The path can be read in more than one way, or in none.
    Path(PathFault),
    /// The path holds forms that its route does not allow.
    AmbiguousPath,
    /// `Host` and `:authority` differ, or are malformed.
    Authority,
    /// CONNECT or TRACE.
    Method,
    /// Plain HTTP.
    HttpsRequired,
    /// Plain HTTP, sent to the same place over HTTPS.
    Redirect(HeaderValue),
    /// The host belongs to another certificate than the one that the client was shown.
    Misdirected,
    /// Nobody can tell who asks.
    Unauthenticated(Refusal),
    /// Nobody can tell whether the request is within its limits.
    Undecided,
    /// A limit is used up.
    RateLimited {
        /// Its name.
        limit: Arc<str>,
        /// Requests that it admits.
        count: u32,
        /// What the request would have counted.
        cost: u32,
        /// The length of its window in seconds.
        window_s: u32,
        /// Seconds until it admits the next one.
        retry_after_s: u64,
    },
    /// The token has as many calls open as it may: so many.
    TooManyCalls(u32),
    /// The token lacks a permission of the route.
    Forbidden(Arc<str>),
    /// No route has this path.
    NotFound,
    /// The path's routes take other methods, which `Allow` lists.
    MethodNotAllowed(HeaderValue),
    /// The body is announced longer than the route takes.
    TooLarge,
    /// There is no answer from the upstream.
    Forward(ForwardError),
}

/// The body of a rejection.
#[derive(serde::Serialize)]
struct Explanation<'a> {
    message: Message<'a>,
    code: &'a str,
    request_id: &'a str,
}

/// What the answer's head needs: status, code, message.
struct Told<'a> {
    status: StatusCode,
    code: &'static str,
    message: Message<'a>,
}

/// A sentence, put together only when it is sent.
enum Message<'a> {
    Fixed(&'static str),
    Malformed(&'static str),
    UsedUp { limit: &'a str, count: u32, window_s: u32, retry_after_s: u64 },
    NeverEnough { limit: &'a str, count: u32, cost: u32, window_s: u32 },
    TooManyCalls(u32),
    Lacking(&'a str),
}

impl fmt::Display for Message<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Fixed(text) => f.write_str(text),
            Self::Malformed(what) => write!(f, "The request is malformed: {what}."),
            Self::UsedUp { limit, count, window_s, retry_after_s } => {
                let (window, wait) = (Seconds(window_s.into()), Seconds(retry_after_s));
                write!(f, "The limit \"{limit}\" of {count} requests in {window} is used up. Try again in {wait}.")
            }
            Self::NeverEnough { limit, count, cost, window_s } => {
                let window = Seconds(window_s.into());
                write!(
                    f,
                    "This request counts as {cost}, more than the limit \"{limit}\" of {count} requests in {window} ever admits."
                )
            }
            Self::TooManyCalls(most) => {
                write!(f, "The token has as many calls open as it may ({most}). Try again when one of them has ended.")
            }
            Self::Lacking(permission) => write!(f, "The token lacks the permission \"{permission}\"."),
        }
    }
}

impl serde::Serialize for Message<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Rejection {
    /// The machine-readable code; also the log's.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.told().code
    }

    /// The status; also the log's.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.told().status
    }

    fn told(&self) -> Told<'_> {
        use StatusCode as S;
        let told = |status, code, message| Told { status, code, message: Message::Fixed(message) };
        match self {
            Self::Fault(fault) => fault_told(*fault),
            Self::Path(PathFault::MalformedEscape) => {
                told(S::BAD_REQUEST, "invalid_request", "The path holds a malformed percent escape.")
            }
            Self::Path(PathFault::ForbiddenByte | PathFault::NotAbsolute) => {
                told(S::BAD_REQUEST, "invalid_request", "The path holds what no path may hold.")
            }
            Self::AmbiguousPath => told(
                S::BAD_REQUEST,
                "invalid_request",
                "The path can be read in more than one way. Send it without dot segments, empty segments, backslashes, \
                 semicolons and escaped slashes.",
            ),
            Self::Authority => {
                told(S::BAD_REQUEST, "invalid_request", "The host is malformed, or named twice and differently.")
            }
            Self::Method => told(S::METHOD_NOT_ALLOWED, "method_not_allowed", "This method is not served here."),
            Self::HttpsRequired => told(S::FORBIDDEN, "https_required", "Use HTTPS."),
            Self::Redirect(_) => told(S::PERMANENT_REDIRECT, "https_required", "Use HTTPS."),
            Self::Misdirected => told(
                S::MISDIRECTED_REQUEST,
                "misdirected_request",
                "This connection was made for another host. Open a new one for this host.",
            ),
            Self::Unauthenticated(Refusal::Missing) => told(
                S::UNAUTHORIZED,
                "unauthenticated",
                "A Bearer token is required: send it as \"Authorization: Bearer TOKEN\".",
            ),
            Self::Unauthenticated(Refusal::Repeated) => {
                told(S::BAD_REQUEST, "invalid_request", "Send exactly one Authorization header.")
            }
            Self::Unauthenticated(Refusal::Invalid(_)) => {
                told(S::UNAUTHORIZED, "invalid_token", "The token is not valid.")
            }
            Self::Unauthenticated(Refusal::TooManyFailures { .. }) => told(
                S::TOO_MANY_REQUESTS,
                "too_many_failures",
                "Too many authentications from this address have failed. Try again later.",
            ),
            Self::Unauthenticated(Refusal::Unavailable | Refusal::LookupsExhausted) | Self::Undecided => told(
                S::SERVICE_UNAVAILABLE,
                "unavailable",
                "The request can't be checked at the moment. Try again shortly.",
            ),
            &Self::RateLimited { ref limit, count, cost, window_s, .. } if cost > count => Told {
                status: S::TOO_MANY_REQUESTS,
                code: "rate_limited",
                message: Message::NeverEnough { limit, count, cost, window_s },
            },
            &Self::RateLimited { ref limit, count, window_s, retry_after_s, .. } => Told {
                status: S::TOO_MANY_REQUESTS,
                code: "rate_limited",
                message: Message::UsedUp { limit, count, window_s, retry_after_s },
            },
            &Self::TooManyCalls(most) => {
                Told { status: S::TOO_MANY_REQUESTS, code: "too_many_calls", message: Message::TooManyCalls(most) }
            }
            Self::Forbidden(permission) => {
                Told { status: S::FORBIDDEN, code: "insufficient_permission", message: Message::Lacking(permission) }
            }
            Self::NotFound => told(S::NOT_FOUND, "not_found", "There is nothing at this path."),
            Self::MethodNotAllowed(_) => {
                told(S::METHOD_NOT_ALLOWED, "method_not_allowed", "This path does not take this method.")
            }
            Self::TooLarge => told(S::PAYLOAD_TOO_LARGE, "body_too_large", "The request body is too large."),
            Self::Forward(error) => forward_told(error),
        }
    }

    /// The answer. `realm` is the one of `WWW-Authenticate`; a HEAD gets no body.
    #[must_use]
    pub fn into_response(self, realm: &str, request_id: &HeaderValue, is_head: bool) -> Response<Body> {
        let Told { status, code, message } = self.told();
        let told = Explanation { message, code, request_id: request_id.to_str().unwrap_or_default() };
        // Three texts always make JSON.
        let body = Bytes::from(serde_json::to_vec(&told).unwrap_or_default());
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        self.stamp(headers, realm, status);
        if !is_head {
            *response.body_mut() = Body::Full(body);
        }
        response
    }

    /// The headers that belong to this rejection alone.
    fn stamp(self, headers: &mut HeaderMap, realm: &str, status: StatusCode) {
        if let Some(challenge) = self.challenge(realm) {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        match self {
            Self::RateLimited { retry_after_s, .. } => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
            }
            Self::Unauthenticated(Refusal::TooManyFailures { retry_after_s }) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(retry_after_s));
            }
            Self::TooManyCalls(_) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_CALL));
            }
            Self::MethodNotAllowed(allow) => {
                headers.insert(header::ALLOW, allow);
            }
            Self::Method => {
                headers.insert(header::ALLOW, HeaderValue::from_static(ORDINARY_METHODS));
            }
            Self::Redirect(location) => {
                headers.insert(header::LOCATION, location);
            }
            Self::Fault(_) | Self::Path(_) | Self::AmbiguousPath | Self::Authority => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Self::Forward(ForwardError::Stalled | ForwardError::ClientGone | ForwardError::TooLarge) => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Self::HttpsRequired
            | Self::Misdirected
            | Self::Unauthenticated(
                Refusal::Missing
                | Refusal::Repeated
                | Refusal::Invalid(_)
                | Refusal::LookupsExhausted
                | Refusal::Unavailable,
            )
            | Self::Undecided
            | Self::Forbidden(_)
            | Self::NotFound
            | Self::TooLarge
            | Self::Forward(_) => {}
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_SOON));
        }
    }

    /// `WWW-Authenticate` (RFC 6750 §3): no error code for who showed no token, one for who showed a bad one.
    fn challenge(&self, realm: &str) -> Option<HeaderValue> {
        let challenge = match self {
            Self::Unauthenticated(Refusal::Missing) => format!("Bearer realm=\"{realm}\""),
            Self::Unauthenticated(Refusal::Repeated) => format!("Bearer realm=\"{realm}\", error=\"invalid_request\""),
            Self::Unauthenticated(Refusal::Invalid(_)) => format!("Bearer realm=\"{realm}\", error=\"invalid_token\""),
            Self::Forbidden(permission) => {
                format!("Bearer realm=\"{realm}\", error=\"insufficient_scope\", scope=\"{permission}\"")
            }
            Self::Unauthenticated(
                Refusal::TooManyFailures { .. } | Refusal::LookupsExhausted | Refusal::Unavailable,
            )
            | Self::Fault(_)
            | Self::Path(_)
            | Self::AmbiguousPath
            | Self::Authority
            | Self::Method
            | Self::HttpsRequired
            | Self::Redirect(_)
            | Self::Misdirected
            | Self::Undecided
            | Self::RateLimited { .. }
            | Self::TooManyCalls(_)
            | Self::NotFound
            | Self::MethodNotAllowed(_)
            | Self::TooLarge
            | Self::Forward(_) => return None,
        };
        HeaderValue::try_from(challenge).ok()
    }
}

fn fault_told(fault: Fault) -> Told<'static> {
    use StatusCode as S;
    let told = |status, code, message| Told { status, code, message: Message::Fixed(message) };
    match fault {
        Fault::Malformed(what) => {
            Told { status: S::BAD_REQUEST, code: "invalid_request", message: Message::Malformed(what) }
        }
        Fault::TargetTooLong => told(S::URI_TOO_LONG, "target_too_long", "The request target is too long."),
        Fault::HeadersTooLarge => {
            told(S::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "The request headers are too large.")
        }
        Fault::UnknownCoding => {
            told(S::NOT_IMPLEMENTED, "unknown_coding", "The only transfer coding served here is chunked.")
        }
        Fault::UnknownVersion => {
            told(S::HTTP_VERSION_NOT_SUPPORTED, "unknown_version", "This version of HTTP is not served here.")
        }
        Fault::TooSlow => told(S::REQUEST_TIMEOUT, "request_timeout", "The request headers did not come in time."),
    }
}

fn forward_told(error: &ForwardError) -> Told<'static> {
    use StatusCode as S;
    let (status, code, message) = match error {
        ForwardError::Connect { source, .. } if source.kind() == io::ErrorKind::TimedOut => {
            (S::GATEWAY_TIMEOUT, "gateway_timeout", "The service behind this gateway could not be reached in time.")
        }
        ForwardError::Connect { .. } | ForwardError::Broken { .. } | ForwardError::BadAnswer { .. } => {
            (S::BAD_GATEWAY, "bad_gateway", "The service behind this gateway did not answer properly.")
        }
        ForwardError::Overloaded { .. } => {
            (S::SERVICE_UNAVAILABLE, "overloaded", "The service behind this gateway is busy. Try again shortly.")
        }
        ForwardError::Timeout { .. } => {
            (S::GATEWAY_TIMEOUT, "gateway_timeout", "The service behind this gateway did not answer in time.")
        }
        ForwardError::TooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large", "The request body is too large."),
        ForwardError::Stalled => (S::REQUEST_TIMEOUT, "request_timeout", "The request body did not come in time."),
        ForwardError::ClientGone => (S::BAD_REQUEST, "invalid_request", "The request body broke off."),
    };
    Told { status, code, message: Message::Fixed(message) }
}

/// "1 second", "60 seconds".
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.0 == 1 { "" } else { "s" };
        write!(f, "{} second{plural}", self.0)
    }
}
