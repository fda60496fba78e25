//! What the headers of a message say about it: WebSocket, gRPC, events, its length and its last hop.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Version};

use crate::forward::extended_connect::was_extended_connect;

/// Whether a request asks for a WebSocket (RFC 6455 §4.1, RFC 8441 §5). On HTTP/1.1 that is a GET without a body: a server that
/// expects none would read it as frames.
pub fn asks_for_websocket<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    was_extended_connect(request)
        || (request.version() == Version::HTTP_11
            && *request.method() == Method::GET
            && list_items(headers, &header::UPGRADE).any(is_websocket)
            && lists_upgrade(headers)
            && !announces_body(headers))
}

/// Whether a message of HTTP/1.1 announces a body.
pub(crate) fn announces_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).map_or(&b""[..], HeaderValue::as_bytes);
    headers.contains_key(header::TRANSFER_ENCODING) || length.iter().any(|digit| *digit != b'0')
}

/// Whether a request is gRPC, so that its client understands only gRPC's own answers. gRPC-Web is plain HTTP, and is not.
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    let is_grpc = |(start, rest): (&[u8], &[u8])| {
        start.eq_ignore_ascii_case(GRPC) && matches!(rest, [] | [b'+' | b';' | b' ', ..])
    };
    request.version() == Version::HTTP_2
        && *request.method() == Method::POST
        && request
            .headers()
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.as_bytes().split_at_checked(GRPC.len()))
            .is_some_and(is_grpc)
}

/// Whether an answer switches to the WebSocket protocol: `Upgrade` names it alone, and `Connection` lists `Upgrade`. A request may
/// name other protocols beside it (RFC 9110 §7.8).
pub(crate) fn has_websocket(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && list_items(headers, &header::UPGRADE).all(is_websocket)
        && lists_upgrade(headers)
}

fn is_websocket(protocol: &[u8]) -> bool {
    protocol.eq_ignore_ascii_case(b"websocket")
}

fn lists_upgrade(headers: &HeaderMap) -> bool {
    list_items(headers, &header::CONNECTION).any(|option| option.eq_ignore_ascii_case(b"upgrade"))
}

/// The items of all lines of a header that is a list.
pub(super) fn list_items<'h>(headers: &'h HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'h [u8]> + use<'h> {
    let lines = headers.get_all(name).into_iter();
    lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
}

/// Whether a request asks for server-sent events and takes nothing else, as a browser's EventSource does.
pub fn asks_for_events<B>(request: &Request<B>) -> bool {
    // Almost no request does, and all are asked.
    let first = request.headers().get(header::ACCEPT).map(|line| line.as_bytes().trim_ascii_start());
    if !first.is_some_and(|line| matches!(line, [b't' | b'T', ..])) {
        return false;
    }
    let mut kinds = list_items(request.headers(), &header::ACCEPT);
    kinds.next().is_some_and(is_event_stream) && kinds.next().is_none()
}

/// Whether an answer is a stream of server-sent events.
pub(crate) fn has_events(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|value| is_event_stream(value.as_bytes()))
}

fn is_event_stream(kind: &[u8]) -> bool {
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default();
    kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}

/// Whether an OPTIONS must not be forwarded. If it may, its `Max-Forwards` is lowered by one (RFC 9110 §7.6.2).
pub fn is_last_hop(headers: &mut HeaderMap) -> bool {
    let hops = headers.get(header::MAX_FORWARDS).and_then(|hops| hops.to_str().ok()?.parse::<u32>().ok());
    let Some(hops) = hops else { return false };
    let Some(left) = hops.checked_sub(1) else { return true };
    headers.insert(header::MAX_FORWARDS, HeaderValue::from(left));
    false
}
