//! The id of a request: the client's, or a new one.

use std::time::{SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Request};

use crate::config::REQUEST_ID;

const MAX_LENGTH: usize = 128;

/// The client's request id if it is short and plain enough for a log, otherwise a new UUIDv7 (RFC 9562 §5.7).
pub fn request_id<B>(request: &Request<B>, now: SystemTime) -> HeaderValue {
    let mut id = given_or_new(request, now);
    // HPACK keeps it out of its table: it never comes again, and would drive out what does.
    id.set_sensitive(true);
    id
}

fn given_or_new<B>(request: &Request<B>, now: SystemTime) -> HeaderValue {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    if let Some(given) = request.headers().get(REQUEST_ID)
        && (1..=MAX_LENGTH).contains(&given.len())
        && given.as_bytes().iter().all(is_plain)
    {
        return given.clone();
    }
    let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    let mut random = [0; 10];
    fastrand::fill(&mut random);
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    // A UUID is made of hexadecimal digits and hyphens.
    HeaderValue::from_str(id.hyphenated().encode_lower(&mut text)).unwrap_or_else(|_| HeaderValue::from_static("none"))
}
