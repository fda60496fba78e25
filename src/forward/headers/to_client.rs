//! The headers of an upstream's answer, for the client.

use http::header::{self, HeaderMap};
use http::response::Parts;
use http::{StatusCode, Version};

use crate::config::{REQUEST_ID, Route};

use super::edits::{edit, remove_cors};
use super::kinds::{HeaderKind, strip, write_length_plainly};
use super::to_upstream::mark_websocket;

/// Turns the head of an upstream's answer into that for the client.
pub(crate) fn head_onto_client(parts: &mut Parts, route: &Route) {
    onto_client(&mut parts.headers, parts.status == StatusCode::SWITCHING_PROTOCOLS);
    write_length_plainly(&mut parts.headers);
    if parts.status == StatusCode::NO_CONTENT {
        // It has no body and must have no length (RFC 9110 §8.6): HTTP/2 clients reject it.
        parts.headers.remove(header::CONTENT_LENGTH);
    }
    if route.cors.is_some() {
        // The upstream's own would contradict the route's.
        remove_cors(&mut parts.headers);
    }
    edit(&mut parts.headers, &route.response_headers);
    // The version is Callgate's own (RFC 9112 §2.3).
    parts.version = Version::HTTP_11;
}

/// Turns an upstream's headers into those of an answer to the client.
pub fn onto_client(headers: &mut HeaderMap, websocket: bool) {
    clean_for_client(headers);
    if websocket {
        mark_websocket(headers);
    }
}

/// Removes what an upstream must not tell the client.
pub(crate) fn clean_for_client(headers: &mut HeaderMap) {
    strip(headers, |kind| matches!(kind, HeaderKind::HopByHop | HeaderKind::Limit));
    headers.remove(REQUEST_ID);
}
