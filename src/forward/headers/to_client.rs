//! The headers of an upstream's answer, for the client.

use http::header::{self, HeaderMap};
use http::response::Parts;
use http::{StatusCode, Version};

use crate::config::{REQUEST_ID, Route};

use super::edits::{edit, remove_cors};
use super::kinds::{HeaderKind, strip};
use super::to_upstream::mark_websocket;

/// Turns the head of an upstream's answer into that for the client. `keeps_limits`: with the upstream's own limits.
pub(crate) fn head_onto_client(parts: &mut Parts, route: &Route, keeps_limits: bool) {
    onto_client(&mut parts.headers, parts.status == StatusCode::SWITCHING_PROTOCOLS, keeps_limits);
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
pub fn onto_client(headers: &mut HeaderMap, websocket: bool, keeps_limits: bool) {
    clean_for_client(headers, keeps_limits);
    if websocket {
        mark_websocket(headers);
    }
}

/// Removes what an upstream must not tell the client. Its limits would contradict Callgate's.
pub(crate) fn clean_for_client(headers: &mut HeaderMap, keeps_limits: bool) {
    strip(headers, |kind| match kind {
        HeaderKind::Limit => !keeps_limits,
        kind => kind == HeaderKind::HopByHop,
    });
    headers.remove(REQUEST_ID);
}
