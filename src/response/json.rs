//! Rejections as HTTP clients read them: JSON with a message, a code and the request's id.

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use crate::body::Body;

use super::message::Message;
use super::options::ORDINARY_METHODS;
use super::rejection::{ErrorHeader, ErrorParts, Rejection};

/// Seconds after which a client may try again what failed for a reason of Callgate's own.
const RETRY_SOON: u64 = 1;

#[derive(serde::Serialize)]
struct ErrorBody<'a> {
    message: Message<'a>,
    code: &'a str,
    request_id: &'a str,
}

impl Rejection {
    /// The answer. `realm` is the one of `WWW-Authenticate`; a HEAD gets no body.
    #[must_use]
    pub fn into_response(self, realm: &str, request_id: &HeaderValue, is_head: bool) -> Response<Body> {
        let ErrorParts { status, code, message, header } = self.parts();
        let body = ErrorBody { message, code, request_id: request_id.to_str().unwrap_or_default() };
        // Three texts always make JSON.
        let body = Bytes::from(serde_json::to_vec(&body).unwrap_or_default());
        let mut response = Response::new(Body::Empty);
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        insert_error_header(headers, header, realm, status);
        if !is_head {
            *response.body_mut() = Body::Full(body);
        }
        response
    }
}

/// Adds the header that belongs to a rejection, and `Retry-After` to every 503.
pub(super) fn insert_error_header(headers: &mut HeaderMap, error: ErrorHeader<'_>, realm: &str, status: StatusCode) {
    let (name, value) = match error {
        ErrorHeader::None if status == StatusCode::SERVICE_UNAVAILABLE => {
            (header::RETRY_AFTER, HeaderValue::from(RETRY_SOON))
        }
        ErrorHeader::None => return,
        ErrorHeader::Close => (header::CONNECTION, HeaderValue::from_static("close")),
        ErrorHeader::RetryAfter(seconds) => (header::RETRY_AFTER, HeaderValue::from(seconds)),
        ErrorHeader::Allow(Some(allow)) => (header::ALLOW, allow.clone()),
        ErrorHeader::Allow(None) => (header::ALLOW, HeaderValue::from_static(ORDINARY_METHODS)),
        ErrorHeader::Location(location) => (header::LOCATION, location.clone()),
        ErrorHeader::Challenge { error, scope } => {
            let mut challenge = String::with_capacity(96);
            for (name, value) in [("Bearer realm", Some(realm)), (", error", error), (", scope", scope)] {
                if let Some(value) = value {
                    challenge.extend([name, "=\"", value, "\""]);
                }
            }
            // The configuration takes no realm or permission that a header can't hold.
            let Ok(challenge) = HeaderValue::try_from(challenge) else { return };
            (header::WWW_AUTHENTICATE, challenge)
        }
    };
    headers.insert(name, value);
}
