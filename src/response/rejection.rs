//! Every refusal with its status, its code, its message and the header that belongs to it. The only file that knows which
//! refusal has which status.

use std::io;
use std::sync::Arc;

use http::{HeaderValue, StatusCode};

use crate::auth::Refusal;
use crate::config::PathForms;
use crate::forward::ForwardError;
use crate::listener::RequestFault;
use crate::route::PathFault;

use super::message::Message;

/// Seconds after which a client may try again to open a call: nobody knows when another one ends.
const RETRY_CALL: u64 = 2;

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

/// What an answer says of a rejection.
pub(super) struct ErrorParts<'a> {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: Message<'a>,
    pub(super) header: ErrorHeader<'a>,
}

/// The one header that a rejection has beside those of all.
pub(super) enum ErrorHeader<'a> {
    None,
    /// `Connection: close`.
    Close,
    /// `Retry-After`, in seconds.
    RetryAfter(u64),
    /// `Allow`; `None`: every method that is served at all.
    Allow(Option<&'a HeaderValue>),
    /// `Location`.
    Location(&'a HeaderValue),
    /// `WWW-Authenticate` (RFC 6750 §3). Its error code, if any, and the scope that is missing.
    Challenge {
        error: Option<&'static str>,
        scope: Option<&'a str>,
    },
}

impl<'a> ErrorParts<'a> {
    fn new(status: StatusCode, code: &'static str, message: &'static str) -> Self {
        Self { status, code, message: Message::Fixed(message), header: ErrorHeader::None }
    }

    fn bad_request(message: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", message).with(ErrorHeader::Close)
    }

    fn too_many(code: &'static str, message: Message<'a>, retry_after_s: u64) -> Self {
        let header = ErrorHeader::RetryAfter(retry_after_s);
        Self { status: StatusCode::TOO_MANY_REQUESTS, code, message, header }
    }

    fn with(self, header: ErrorHeader<'a>) -> Self {
        Self { header, ..self }
    }

    fn challenge(self, error: Option<&'static str>, scope: Option<&'a str>) -> Self {
        self.with(ErrorHeader::Challenge { error, scope })
    }
}

impl Rejection {
    /// The machine-readable code, in the answer and in the log.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.parts().code
    }

    /// The status, in the answer and in the log.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.parts().status
    }

    pub(super) fn parts(&self) -> ErrorParts<'_> {
        use StatusCode as S;
        let new = ErrorParts::new;
        match self {
            Self::Fault(fault) => of_fault(*fault),
            Self::Path(PathFault::MalformedEscape) => {
                ErrorParts::bad_request("The path contains a malformed percent escape.")
            }
            Self::Path(PathFault::ForbiddenByte(byte)) => {
                ErrorParts { message: Message::ForbiddenByte(*byte), ..ErrorParts::bad_request("") }
            }
            Self::Path(PathFault::NotAbsolute) => ErrorParts::bad_request("The path does not begin with a slash."),
            Self::AmbiguousPath(forms) => {
                ErrorParts { message: Message::Ambiguous(*forms), ..ErrorParts::bad_request("") }
            }
            Self::Authority => ErrorParts::bad_request("The host is malformed, or named twice with different values."),
            Self::Method => new(S::METHOD_NOT_ALLOWED, "method_not_allowed", "This method is not served here.")
                .with(ErrorHeader::Allow(None)),
            Self::HttpsRequired => new(S::FORBIDDEN, "https_required", "Use HTTPS."),
            Self::Redirect(location) => {
                new(S::PERMANENT_REDIRECT, "https_required", "Use HTTPS.").with(ErrorHeader::Location(location))
            }
            Self::Misdirected => new(
                S::MISDIRECTED_REQUEST,
                "misdirected_request",
                "This connection was made for another host. Open a new one for this host.",
            ),
            Self::Unauthenticated(Refusal::Missing) => new(
                S::UNAUTHORIZED,
                "unauthenticated",
                "A Bearer token is required: send it as \"Authorization: Bearer TOKEN\".",
            )
            .challenge(None, None),
            Self::Unauthenticated(Refusal::Repeated) => {
                ErrorParts::bad_request("Send exactly one Authorization header.")
                    .challenge(Some("invalid_request"), None)
            }
            Self::Unauthenticated(Refusal::Invalid(_)) => {
                new(S::UNAUTHORIZED, "invalid_token", "The token is not valid.").challenge(Some("invalid_token"), None)
            }
            Self::Unauthenticated(Refusal::TooManyFailures { retry_after_s }) => ErrorParts::too_many(
                "too_many_failures",
                Message::Fixed("Too many authentications from this address have failed. Try again later."),
                (*retry_after_s).into(),
            ),
            Self::Unauthenticated(Refusal::Unavailable | Refusal::LookupsExhausted) | Self::Undecided => new(
                S::SERVICE_UNAVAILABLE,
                "unavailable",
                "The request can't be checked at the moment. Try again shortly.",
            ),
            &Self::RateLimited { ref limit, count, cost, window_s, retry_after_s } => {
                let message = match cost > count {
                    true => Message::NeverEnough { limit, count, cost, window_s },
                    false => Message::UsedUp { limit, count, window_s, retry_after_s },
                };
                ErrorParts::too_many("rate_limited", message, retry_after_s)
            }
            Self::TooManyCalls(max_calls) => {
                ErrorParts::too_many("too_many_calls", Message::TooManyCalls(*max_calls), RETRY_CALL)
            }
            Self::Forbidden(permission) => {
                let message = Message::Lacking(permission);
                ErrorParts { message, ..new(S::FORBIDDEN, "insufficient_permission", "") }
                    .challenge(Some("insufficient_scope"), Some(permission))
            }
            Self::NotFound => new(S::NOT_FOUND, "not_found", "There is nothing at this path."),
            Self::MethodNotAllowed(allow) => {
                new(S::METHOD_NOT_ALLOWED, "method_not_allowed", "This path does not take this method.")
                    .with(ErrorHeader::Allow(Some(allow)))
            }
            Self::TooLarge => new(S::PAYLOAD_TOO_LARGE, "body_too_large", "The request body is too large."),
            Self::Forward(error) => of_forward_error(error),
        }
    }
}

fn of_fault(fault: RequestFault) -> ErrorParts<'static> {
    use StatusCode as S;
    let (status, code, message) = match fault {
        RequestFault::Malformed(what) => {
            return ErrorParts { message: Message::Malformed(what), ..ErrorParts::bad_request("") };
        }
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
    ErrorParts::new(status, code, message).with(ErrorHeader::Close)
}

fn of_forward_error(error: &ForwardError) -> ErrorParts<'static> {
    use StatusCode as S;
    let new = ErrorParts::new;
    match error {
        ForwardError::Connect { source, .. } if source.kind() == io::ErrorKind::TimedOut => {
            new(S::GATEWAY_TIMEOUT, "gateway_timeout", "The service behind this gateway could not be reached in time.")
        }
        ForwardError::Connect { .. } | ForwardError::Broken { .. } | ForwardError::BadAnswer { .. } => {
            new(S::BAD_GATEWAY, "bad_gateway", "The service behind this gateway did not answer properly.")
        }
        ForwardError::Overloaded { .. } => {
            new(S::SERVICE_UNAVAILABLE, "overloaded", "The service behind this gateway is busy. Try again shortly.")
        }
        ForwardError::Timeout { .. } => {
            new(S::GATEWAY_TIMEOUT, "gateway_timeout", "The service behind this gateway did not answer in time.")
        }
        ForwardError::TooLarge => {
            new(S::PAYLOAD_TOO_LARGE, "body_too_large", "The request body is too large.").with(ErrorHeader::Close)
        }
        ForwardError::Stalled => new(S::REQUEST_TIMEOUT, "request_timeout", "The request body did not arrive in time.")
            .with(ErrorHeader::Close),
        ForwardError::ClientGone => ErrorParts::bad_request("The request body broke off."),
    }
}
