//! Trailers on their way through: some servers merge them into the headers, so they may say no more than those.

use http::header::{self, HeaderMap, HeaderName};

use crate::config::{HeaderEdits, REQUEST_ID};

use super::{Kind, clean_for_client, edited, take_off, take_off_cors, take_off_respelled};

/// What would change how a message is framed, routed, read or proved if a server merged it into the headers (RFC 9110 §6.5.1),
/// beside what the names of each direction say.
static NEVER_TRAILERS: [HeaderName; 12] = [
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::HOST,
    header::MAX_FORWARDS,
    header::RANGE,
    header::SET_COOKIE,
    header::TRAILER,
    REQUEST_ID,
];

/// A client's, for the upstream.
pub(in crate::forward) fn clean_trailers_for_upstream(trailers: &mut HeaderMap, edits: Option<&HeaderEdits>) {
    take_off(trailers, |kind| match kind {
        Kind::HopByHop | Kind::Forwarding | Kind::Identity | Kind::Credential | Kind::Override => true,
        Kind::Limit => false,
    });
    if let Some(edits) = edits {
        take_off_respelled(trailers, edits);
    }
    for name in NEVER_TRAILERS.iter().chain(edits.into_iter().flat_map(edited)) {
        trailers.remove(name);
    }
}

/// An upstream's, for the client.
pub(in crate::forward) fn clean_trailers_for_client(trailers: &mut HeaderMap, edits: Option<&HeaderEdits>) {
    clean_for_client(trailers);
    take_off_cors(trailers);
    for name in NEVER_TRAILERS.iter().chain(edits.into_iter().flat_map(edited)) {
        trailers.remove(name);
    }
}
