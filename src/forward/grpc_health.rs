//! gRPC's health check: `Check` of `grpc.health.v1.Health`. Its messages, one string in the request and one number in the answer, are
//! written and read by hand: Protocol Buffers have few forms, and everything else is rejected.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Uri};

use crate::body::Body;

const CHECK: &str = "/grpc.health.v1.Health/Check";
const STATUS: HeaderName = HeaderName::from_static("grpc-status");
/// Before each message: whether it is compressed, and its length in four bytes.
const PREFIX: usize = 5;
/// `ServingStatus`, by number.
const STATES: [&str; 4] = ["UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"];

/// Why an answer is not that of a healthy service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum HealthCheckError {
    #[error("it does not speak gRPC")]
    Foreign,
    #[error("its answer has no grpc-status")]
    Unfinished,
    #[error("it knows no service of that name (grpc-status 5)")]
    NoSuchService,
    #[error("it does not offer grpc.health.v1.Health (grpc-status 12)")]
    Unimplemented,
    #[error("it answers with grpc-status {0}")]
    Status(u32),
    #[error("its answer is no HealthCheckResponse")]
    Malformed,
    #[error("it says that it is {0}")]
    State(&'static str),
}

/// A request for the health of a service, or, with an empty name, of the whole server.
pub(super) fn request(service: &str, timeout: Duration) -> Request<Body> {
    // The configuration bounds names, so that their length fits in two bytes.
    let mut message = Vec::with_capacity(PREFIX + 3 + service.len());
    if !service.is_empty() {
        message.push(1 << 3 | 2);
        write_varint(&mut message, service.len());
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or_default().to_be_bytes();
    let whole = [&[0], &length[..], &message].concat();
    let mut request = Request::new(Body::Full(Bytes::from(whole)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_static(CHECK);
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    if let Ok(timeout) = HeaderValue::from_str(&format!("{}m", timeout.as_millis())) {
        headers.insert("grpc-timeout", timeout);
    }
    request
}

/// Checks an answer with status 200. `trailers` are its headers where it has nothing else.
pub(super) fn check(headers: &HeaderMap, body: &[u8], trailers: &HeaderMap) -> Result<(), HealthCheckError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let rest = kind.strip_prefix("application/grpc").ok_or(HealthCheckError::Foreign)?;
    if !rest.is_empty() && !rest.starts_with(['+', ';']) {
        return Err(HealthCheckError::Foreign);
    }
    let status = trailers.get(STATUS).ok_or(HealthCheckError::Unfinished)?;
    match status.to_str().ok().and_then(|status| status.parse().ok()).ok_or(HealthCheckError::Malformed)? {
        0 => {}
        5 => return Err(HealthCheckError::NoSuchService),
        12 => return Err(HealthCheckError::Unimplemented),
        other => return Err(HealthCheckError::Status(other)),
    }
    let state = message(body).and_then(state).ok_or(HealthCheckError::Malformed)?;
    match STATES.get(usize::try_from(state).unwrap_or(usize::MAX)).copied() {
        Some("SERVING") => Ok(()),
        Some(other) => Err(HealthCheckError::State(other)),
        None => Err(HealthCheckError::Malformed),
    }
}

/// The only message of a body; it is not compressed, as the request accepts no compression.
fn message(body: &[u8]) -> Option<&[u8]> {
    let ([0, length @ ..], message) = body.split_first_chunk::<PREFIX>()? else { return None };
    (u32::from_be_bytes(*length) as usize == message.len()).then_some(message)
}

/// The field `status` of a HealthCheckResponse; 0 when it is missing. Unknown fields are skipped.
fn state(mut message: &[u8]) -> Option<u64> {
    let mut state = 0;
    while !message.is_empty() {
        let tag = read_varint(&mut message)?;
        match (tag >> 3, tag & 7) {
            (1, 0) => state = read_varint(&mut message)?,
            (0 | 1, _) => return None,
            (_, 0) => drop(read_varint(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(read_varint(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            (_, _) => return None,
        }
    }
    Some(state)
}

fn write_varint(message: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        message.push(number as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

/// A number of 64 bits: seven in a byte, the lowest first; the last byte has no highest bit.
fn read_varint(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for at in 0..10 {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        if at == 9 && *byte > 1 {
            return None;
        }
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let named = fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        named.collect()
    }

    fn checked(message: &[u8]) -> Result<(), HealthCheckError> {
        let body = [&[0, 0, 0, 0, message.len() as u8], message].concat();
        check(&headers(&[("content-type", "application/grpc")]), &body, &headers(&[("grpc-status", "0")]))
    }

    #[test]
    fn the_request_is_one_message() {
        for (service, whole) in [("", "\0\0\0\0\0"), ("a.B", "\0\0\0\0\x05\x0a\x03a.B")] {
            let Body::Full(bytes) = request(service, Duration::from_secs(2)).into_body() else { panic!("no message") };
            assert_eq!(bytes, whole.as_bytes());
        }
        let long = "x".repeat(200);
        let Body::Full(bytes) = request(&long, Duration::from_secs(2)).into_body() else { panic!("no message") };
        assert_eq!(&bytes[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
        assert_eq!(request("", Duration::from_millis(1500)).headers()["grpc-timeout"], "1500m");
    }

    #[test]
    fn only_serving_is_healthy() {
        assert_eq!(checked(&[8, 1]), Ok(()));
        for (message, state) in
            [(&[][..], "UNKNOWN"), (&[8, 0], "UNKNOWN"), (&[8, 2], "NOT_SERVING"), (&[8, 3], "SERVICE_UNKNOWN")]
        {
            assert_eq!(checked(message), Err(HealthCheckError::State(state)), "{message:?}");
        }
        // The last value counts, and unknown fields do not.
        assert_eq!(checked(&[8, 2, 8, 1]), Ok(()));
        assert_eq!(checked(&[16, 200, 1, 26, 2, 8, 2, 37, 1, 2, 3, 4, 41, 1, 2, 3, 4, 5, 6, 7, 8, 8, 1]), Ok(()));
    }

    #[test]
    fn malformed_messages_are_rejected() {
        for message in [
            &[8][..],
            &[8, 4],
            &[8, 129],
            &[10, 1, 1],
            &[0, 1],
            &[11],
            &[26, 5, 1],
            &[37, 1],
            &[41, 1],
            &[8, 1, 15],
            &[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
            &[8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2],
            &[8, 128, 128, 128, 128, 128, 128, 128, 128, 128, 128, 1],
        ] {
            assert_eq!(checked(message), Err(HealthCheckError::Malformed), "{message:?}");
        }
        let (kind, good) = (headers(&[("content-type", "application/grpc+proto")]), headers(&[("grpc-status", "0")]));
        for body in [&[][..], &[0, 0, 0, 0], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 1, 8, 1], &[0, 0, 0, 0, 2, 8, 1, 0]]
        {
            assert_eq!(check(&kind, body, &good), Err(HealthCheckError::Malformed), "{body:?}");
        }
        assert_eq!(check(&kind, &[0, 0, 0, 0, 2, 8, 1], &good), Ok(()));
    }

    #[test]
    fn a_grpc_status_says_why() {
        let kind = headers(&[("content-type", "application/grpc")]);
        for (status, error) in [
            ("5", HealthCheckError::NoSuchService),
            ("12", HealthCheckError::Unimplemented),
            ("14", HealthCheckError::Status(14)),
            ("ok", HealthCheckError::Malformed),
        ] {
            assert_eq!(check(&kind, &[], &headers(&[("grpc-status", status)])), Err(error));
        }
        assert_eq!(check(&kind, &[0, 0, 0, 0, 2, 8, 1], &HeaderMap::new()), Err(HealthCheckError::Unfinished));
        for kind in ["text/html", "application/grpc-web", "application/json"] {
            let kind = headers(&[("content-type", kind)]);
            assert_eq!(
                check(&kind, &[0, 0, 0, 0, 2, 8, 1], &headers(&[("grpc-status", "0")])),
                Err(HealthCheckError::Foreign)
            );
        }
    }
}
