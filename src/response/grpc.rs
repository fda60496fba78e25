//! Rejections as gRPC clients understand them: HTTP 200, and what happened in `grpc-status` and `grpc-message`.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use crate::body::Body;

use super::json::insert_error_header;
use super::rejection::{ErrorParts, Rejection};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// When a client with a retry policy may try again, in milliseconds (gRFC A6).
const GRPC_RETRY_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

impl Rejection {
    /// The answer to a gRPC client: headers and trailers in one ("Trailers-Only" in gRPC's specification of its use of HTTP/2).
    #[must_use]
    pub fn into_grpc_response(self, realm: &str) -> Response<Body> {
        let ErrorParts { status, message, header: error, .. } = self.parts();
        let message = percent_encoded(&message.to_string());
        let mut response = Response::new(Body::Empty);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from(grpc_status(status)));
        // Encoded, it holds nothing that a header may not.
        if let Ok(message) = HeaderValue::try_from(message) {
            headers.insert(GRPC_MESSAGE, message);
        }
        insert_error_header(headers, error, realm, status);
        headers.remove(header::CONNECTION);
        push_back(headers);
        response
    }
}

fn push_back(headers: &mut HeaderMap) {
    let seconds = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(millis) = seconds.and_then(|seconds| seconds.checked_mul(1_000)) {
        headers.insert(GRPC_RETRY_PUSHBACK, HeaderValue::from(millis));
    }
}

/// The code for a status: that of gRPC's own table for proxies (`http-grpc-status-mapping.md`) where it has one. Only 429 and 504
/// differ: their own codes let clients tell "used up" and "too late" from "try again".
fn grpc_status(status: StatusCode) -> u16 {
    const UNKNOWN: u16 = 2;
    const DEADLINE_EXCEEDED: u16 = 4;
    const PERMISSION_DENIED: u16 = 7;
    const RESOURCE_EXHAUSTED: u16 = 8;
    const UNIMPLEMENTED: u16 = 12;
    const INTERNAL: u16 = 13;
    const UNAVAILABLE: u16 = 14;
    const UNAUTHENTICATED: u16 = 16;
    match status.as_u16() {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 | 405 | 501 => UNIMPLEMENTED,
        408 | 504 => DEADLINE_EXCEEDED,
        413 | 414 | 429 | 431 => RESOURCE_EXHAUSTED,
        // Asked again, on a new connection, it may well work.
        421 | 502 | 503 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// As gRPC encodes messages: printable ASCII but for the percent sign stays.
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // A `String` takes everything.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_encoded() {
        assert_eq!(percent_encoded("100 % \"ü\"\n"), "100 %25 \"%C3%BC\"%0A");
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
