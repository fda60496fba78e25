//! Every refusal with its status, its code, its message and the header that belongs to it. The only file that knows which
//! refusal has which status.

use std::io;
use std::sync::Arc;

use http::StatusCode;
use http::header::{self, HeaderName, HeaderValue};

use crate::auth::Refusal;
use crate::body::BodyFault;
use crate::config::PathForms;
use crate::forward::ForwardError;
use crate::listener::RequestFault;
use crate::route::PathFault;

use super::message::Message::{self, Fixed};
use super::options::ORDINARY_METHODS;

/// The code of a request that can't be read.
const INVALID_REQUEST: &str = "invalid_request";

/// Seconds after which a client may try again to open a call: nobody knows when another one ends.
const RETRY_CALL: u64 = 2;
/// Seconds after which a client may try again what failed for a reason of Callgate's own.
const RETRY_SOON: u64 = 1;
/// For gRPC clients.
pub(super) const CALL_CLOSED: &str = "The operator of the gateway closed this call.";

/// An answer that Callgate makes itself.
#[derive(Debug)]
pub enum Rejection {
    /// The request is malformed or breaks a bound.
    Fault(RequestFault),
    /// The path can be read in more than one way, or in none.
    Path(PathFault),
    /// The path holds forms that its route does not allow.
    AmbiguousPath(PathForms),
    /// `Host` and `:authority` differ, or are malformed.
    Authority,
    /// CONNECT or TRACE.
    Method,
    /// Plain HTTP.
    HttpsRequired,
    /// Plain HTTP, redirected to the same URL over HTTPS.
    Redirect(HeaderValue),
    /// The host belongs to another certificate than the one that the client was shown.
    Misdirected,
    /// Authentication failed.
    Unauthenticated(Refusal),
    /// The limiter can't answer.
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
        /// Seconds until it admits this request.
        retry_after_s: u64,
    },
    /// The token has reached its limit of open calls, which is this.
    TooManyCalls(u32),
    /// The token has reached its limit of requests in flight, which is this.
    TooManyInFlight(u32),
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
    /// The instance ends before there is an answer.
    Ending,
    /// An operator closed the call before there was an answer.
    CallClosed,
}

impl Rejection {
    /// The machine-readable code, in the answer and in the log.
    pub fn code(&self) -> &'static str {
        self.parts().1
    }

    /// The status, in the answer and in the log.
    pub fn status(&self) -> StatusCode {
        self.parts().0
    }

    /// The status, the code and the message. Long, but a table: a row for each refusal.
    pub(super) fn parts(&self) -> (StatusCode, &'static str, Message<'_>) {
        use StatusCode as S;
        match self {
            Self::Fault(fault) => of_fault(*fault),
            Self::Path(PathFault::MalformedEscape) => bad_request("The path contains a malformed percent escape."),
            Self::Path(PathFault::ForbiddenByte(byte)) => {
                (S::BAD_REQUEST, INVALID_REQUEST, Message::ForbiddenByte(*byte))
            }
            Self::Path(PathFault::NotAbsolute) => bad_request("The path does not begin with a slash."),
            Self::AmbiguousPath(forms) => (S::BAD_REQUEST, INVALID_REQUEST, Message::Ambiguous(*forms)),
            Self::Authority => bad_request("The host is malformed, or named twice with different values."),
            Self::Method => (S::METHOD_NOT_ALLOWED, "method_not_allowed", Fixed("This method is not served here.")),
            Self::HttpsRequired => (S::FORBIDDEN, "https_required", Fixed("Use HTTPS.")),
            Self::Redirect(_) => (S::PERMANENT_REDIRECT, "https_required", Fixed("Use HTTPS.")),
            Self::Misdirected => {
                let message = "This connection was made for another host. Open a new one for this host.";
                (S::MISDIRECTED_REQUEST, "misdirected_request", Fixed(message))
            }
            Self::Unauthenticated(Refusal::Missing) => {
                let message = "A Bearer token is required: send it as \"Authorization: Bearer TOKEN\".";
                (S::UNAUTHORIZED, "unauthenticated", Fixed(message))
            }
            Self::Unauthenticated(Refusal::Repeated) => bad_request("Send exactly one Authorization header."),
            Self::Unauthenticated(Refusal::Invalid(_)) => {
                (S::UNAUTHORIZED, "invalid_token", Fixed("The token is not valid."))
            }
            Self::Unauthenticated(Refusal::TooManyFailures { .. }) => {
                let message = "Too many authentications from this address have failed. Try again later.";
                (S::TOO_MANY_REQUESTS, "too_many_failures", Fixed(message))
            }
            Self::Unauthenticated(Refusal::Unavailable | Refusal::LookupsExhausted) | Self::Undecided => {
                let message = "The request can't be checked at the moment. Try again shortly.";
                (S::SERVICE_UNAVAILABLE, "unavailable", Fixed(message))
            }
            &Self::RateLimited { ref limit, count, cost, window_s, retry_after_s } => {
                let message = match cost > count {
                    true => Message::NeverEnough { limit, count, cost, window_s },
                    false => Message::UsedUp { limit, count, window_s, retry_after_s },
                };
                (S::TOO_MANY_REQUESTS, "rate_limited", message)
            }
            Self::TooManyCalls(max_calls) => {
                (S::TOO_MANY_REQUESTS, "too_many_calls", Message::TooManyCalls(*max_calls))
            }
            Self::TooManyInFlight(max) => (S::TOO_MANY_REQUESTS, "too_many_in_flight", Message::TooManyInFlight(*max)),
            Self::Forbidden(permission) => (S::FORBIDDEN, "insufficient_permission", Message::Lacking(permission)),
            Self::NotFound => (S::NOT_FOUND, "not_found", Fixed("There is nothing at this path.")),
            Self::MethodNotAllowed(_) => {
                (S::METHOD_NOT_ALLOWED, "method_not_allowed", Fixed("This path does not take this method."))
            }
            Self::TooLarge => (S::PAYLOAD_TOO_LARGE, "body_too_large", Fixed("The request body is too large.")),
            Self::Forward(error) => of_forward_error(error),
            Self::Ending => (S::SERVICE_UNAVAILABLE, "restarting", Fixed("The gateway restarts. Try again.")),
            Self::CallClosed => (S::FORBIDDEN, "call_closed", Fixed(CALL_CLOSED)),
        }
    }

    /// The one header that this rejection has beside those of all. `realm` is that of `WWW-Authenticate`.
    pub(super) fn header(&self, realm: &str) -> Option<(HeaderName, HeaderValue)> {
        Some(match self {
            Self::Fault(_)
            | Self::Path(_)
            | Self::AmbiguousPath(_)
            | Self::Authority
            | Self::Forward(ForwardError::Body(_)) => (header::CONNECTION, HeaderValue::from_static("close")),
            Self::Method => (header::ALLOW, HeaderValue::from_static(ORDINARY_METHODS)),
            Self::MethodNotAllowed(allow) => (header::ALLOW, allow.clone()),
            Self::Redirect(location) => (header::LOCATION, location.clone()),
            Self::Unauthenticated(Refusal::Missing) => challenge(realm, None, None)?,
            Self::Unauthenticated(Refusal::Repeated) => challenge(realm, Some("invalid_request"), None)?,
            Self::Unauthenticated(Refusal::Invalid(_)) => challenge(realm, Some("invalid_token"), None)?,
            Self::Forbidden(permission) => challenge(realm, Some("insufficient_scope"), Some(permission))?,
            Self::Unauthenticated(Refusal::TooManyFailures { retry_after_s }) => {
                (header::RETRY_AFTER, (*retry_after_s).into())
            }
            Self::RateLimited { retry_after_s, .. } => (header::RETRY_AFTER, (*retry_after_s).into()),
            Self::TooManyCalls(_) => (header::RETRY_AFTER, RETRY_CALL.into()),
            Self::Unauthenticated(Refusal::Unavailable | Refusal::LookupsExhausted)
            | Self::Undecided
            | Self::TooManyInFlight(_)
            | Self::Ending
            | Self::Forward(ForwardError::Overloaded { .. }) => (header::RETRY_AFTER, RETRY_SOON.into()),
            Self::HttpsRequired
            | Self::Misdirected
            | Self::NotFound
            | Self::TooLarge
            | Self::CallClosed
            | Self::Forward(_) => return None,
        })
    }
}

fn bad_request(message: &'static str) -> (StatusCode, &'static str, Message<'static>) {
    (StatusCode::BAD_REQUEST, INVALID_REQUEST, Fixed(message))
}

/// `WWW-Authenticate` (RFC 6750 §3): an error code, if there is one, and the scope that is missing.
fn challenge(realm: &str, error: Option<&str>, scope: Option<&str>) -> Option<(HeaderName, HeaderValue)> {
    let mut challenge = String::with_capacity(96);
    for (name, value) in [("Bearer realm", Some(realm)), (", error", error), (", scope", scope)] {
        if let Some(value) = value {
            challenge.extend([name, "=\"", value, "\""]);
        }
    }
    // The configuration takes no realm or permission that a header can't hold.
    Some((header::WWW_AUTHENTICATE, HeaderValue::try_from(challenge).ok()?))
}

fn of_fault(fault: RequestFault) -> (StatusCode, &'static str, Message<'static>) {
    use StatusCode as S;
    let (status, code, message) = match fault {
        RequestFault::Malformed(what) => return (S::BAD_REQUEST, INVALID_REQUEST, Message::Malformed(what)),
        RequestFault::TargetTooLong => (S::URI_TOO_LONG, "target_too_long", "The request target is too long."),
        RequestFault::HeadersTooLarge => {
            (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "headers_too_large", "The request headers are too large.")
        }
        RequestFault::UnknownCoding => {
            (S::NOT_IMPLEMENTED, "unknown_coding", "The only transfer coding served here is chunked.")
        }
        RequestFault::UnknownVersion => {
            (S::HTTP_VERSION_NOT_SUPPORTED, "unknown_version", "This version of HTTP is not served here.")
        }
        RequestFault::TooSlow => (S::REQUEST_TIMEOUT, "request_timeout", "The request headers did not arrive in time."),
    };
    (status, code, Fixed(message))
}

fn of_forward_error(error: &ForwardError) -> (StatusCode, &'static str, Message<'static>) {
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
        ForwardError::Body(BodyFault::TooLarge) => {
            (S::PAYLOAD_TOO_LARGE, "body_too_large", "The request body is too large.")
        }
        ForwardError::Body(BodyFault::Stalled | BodyFault::TooSlow) => {
            (S::REQUEST_TIMEOUT, "request_timeout", "The request body did not arrive in time.")
        }
        ForwardError::Body(BodyFault::Broken) => return bad_request("The request body broke off."),
    };
    (status, code, Fixed(message))
}
