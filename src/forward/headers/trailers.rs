//! Trailers on their way through: some servers merge them into the headers, so they must not contain more than headers may.

use http::header::{self, HeaderMap, HeaderName};

use crate::config::{HeaderEdits, REQUEST_ID};

use super::edits::{edited, remove_cors, remove_respelled};
use super::kinds::{HeaderKind, strip};
use super::to_client::clean_for_client;

/// What would change how a message is framed, routed, read or authenticated if a server merged it into the headers
/// (RFC 9110 §6.5.1), beside the names that are removed in each direction.
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
pub(crate) fn clean_trailers_for_upstream(trailers: &mut HeaderMap, edits: Option<&HeaderEdits>) {
    strip(trailers, |kind| kind != HeaderKind::Limit);
    if let Some(edits) = edits {
        remove_respelled(trailers, edits);
    }
    remove_never_trailers(trailers, edits);
}

/// An upstream's, for the client.
pub(crate) fn clean_trailers_for_client(trailers: &mut HeaderMap, edits: Option<&HeaderEdits>) {
    clean_for_client(trailers, false);
    remove_cors(trailers);
    remove_never_trailers(trailers, edits);
}

fn remove_never_trailers(trailers: &mut HeaderMap, edits: Option<&HeaderEdits>) {
    for name in NEVER_TRAILERS.iter().chain(edits.into_iter().flat_map(edited)) {
        trailers.remove(name);
    }
}
