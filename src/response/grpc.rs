//! Rejections as gRPC clients understand them: HTTP 200, and what happened in `grpc-status` and `grpc-message`.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::body::{Body, BodyError};

use super::rejection::{CALL_CLOSED, Rejection};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// When a client with a retry policy may try again, in milliseconds (gRFC A6).
const GRPC_RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
/// What gRPC encodes in messages: everything but printable ASCII, and the percent sign.
const NOT_IN_MESSAGES: &AsciiSet = &CONTROLS.add(b'%');

impl Rejection {
    /// The answer to a gRPC client: headers and trailers in one ("Trailers-Only" in gRPC's specification of its use of HTTP/2).
    pub fn into_grpc_response(self, realm: &str) -> Response<Body> {
        let (status, _, message) = self.parts();
        let message = message.to_string();
        let mut response = Response::new(Body::Empty);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(grpc_status(status)));
        // Encoded, it holds nothing that a header may not.
        if let Ok(message) = HeaderValue::try_from(utf8_percent_encode(&message, NOT_IN_MESSAGES).to_string()) {
            headers.insert(GRPC_MESSAGE, message);
        }
        headers.extend(self.header(realm).filter(|(name, _)| *name != header::CONNECTION));
        let seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if let Some(millis) = seconds.and_then(|seconds| seconds.checked_mul(1_000)) {
            headers.insert(GRPC_RETRY_PUSHBACK, HeaderValue::from(millis));
        }
        response
    }
}

/// The trailers that tell a gRPC client why Callgate ends a call; `None` where it has not decided so.
pub fn grpc_trailers(error: &BodyError) -> Option<HeaderMap> {
    let (status, message) = match error {
        BodyError::Late(_) => (StatusCode::GATEWAY_TIMEOUT, "The call reached its maximum duration."),
        BodyError::Revoked(_) => (StatusCode::UNAUTHORIZED, "The token no longer allows this call."),
        BodyError::Closed(_) => (StatusCode::FORBIDDEN, CALL_CLOSED),
        BodyError::Ended => (StatusCode::SERVICE_UNAVAILABLE, "The gateway restarts."),
        BodyError::Stalled(_)
        | BodyError::TooLarge(_)
        | BodyError::TooSlow
        | BodyError::Broken(_)
        | BodyError::Unfinished
        | BodyError::Reset(_)
        | BodyError::Incomplete => return None,
    };
    let status = HeaderValue::from(grpc_status(status));
    Some(HeaderMap::from_iter([(GRPC_STATUS, status), (GRPC_MESSAGE, HeaderValue::from_static(message))]))
}

/// The code for a status: that of gRPC's own table for proxies (`http-grpc-status-mapping.md`) where it has one. Only 429 and 504
/// differ: their own codes let clients tell "used up" and "too late" from "try again".
fn grpc_status(status: StatusCode) -> u16 {
    match status.as_u16() {
        400 => 13,                  // INTERNAL
        401 => 16,                  // UNAUTHENTICATED
        403 => 7,                   // PERMISSION_DENIED
        404 | 405 | 501 => 12,      // UNIMPLEMENTED
        408 | 504 => 4,             // DEADLINE_EXCEEDED
        413 | 414 | 429 | 431 => 8, // RESOURCE_EXHAUSTED
        // Asked again, on a new connection, it may well work.
        421 | 502 | 503 => 14, // UNAVAILABLE
        _ => 2,                // UNKNOWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded() {
        let encoded = utf8_percent_encode("100 % \"ü\"\n", NOT_IN_MESSAGES);
        assert_eq!(encoded.to_string(), "100 %25 \"%C3%BC\"%0A");
    }

    #[test]
    fn rejections_have_codes_of_grpc() {
        let parts = |rejection: Rejection| {
            let response = rejection.into_grpc_response("api");
            assert_eq!(response.status(), 200);
            assert!(matches!(response.body(), Body::Empty));
            let text = |name: &str| response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
            [text("grpc-status"), text("grpc-message"), text("grpc-retry-pushback-ms")]
        };
        let forbidden = ["7", "The token lacks the permission \"calls:read\".", ""];
        assert_eq!(parts(Rejection::Forbidden("calls:read".into())), forbidden);
        assert_eq!(parts(Rejection::NotFound), ["12", "There is nothing at this path.", ""]);
        let [code, _, pushback] = parts(Rejection::Undecided);
        assert_eq!([&*code, &*pushback], ["14", "1000"]);
        let [code, _, pushback] = parts(Rejection::TooManyCalls(3));
        assert_eq!([&*code, &*pushback], ["8", "2000"]);
    }
}
