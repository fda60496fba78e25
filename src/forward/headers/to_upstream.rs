//! The headers of a client's request, for the upstream: who the client is, and which proxies it came through (RFC 7239).

use std::net::IpAddr;

use http::Version;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config::{HostHeader, REQUEST_ID};
use crate::forward::client_address::{X_FORWARDED_FOR, X_FORWARDED_PROTO, forwarded_hops, is_trusted};
use crate::forward::context::ForwardContext;

use super::edits::{edit, remove_respelled};
use super::kinds::{HeaderKind, strip, write_length_plainly};

const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Turns a client's headers into those of a request to the upstream.
pub fn onto_upstream(headers: &mut HeaderMap, version: Version, context: &ForwardContext<'_>, websocket: bool) {
    let address = context.client.address.ip().to_canonical();
    let trusted = is_trusted(address, context.trusted_proxies);
    let wants_trailers =
        headers.get(header::TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    let list = |name: &HeaderName| if trusted { joined(headers, name) } else { None };
    let (forwarded_for, forwarded) = (list(&X_FORWARDED_FOR), list(&header::FORWARDED));
    // Services that read only `X-Forwarded-For` see the same client as Callgate.
    let forwarded_for = forwarded_for.or_else(|| forwarded.as_ref().map(|_| hops(headers)));
    let first = |name| if trusted { headers.get(name).cloned() } else { None };
    let (proto, host) = (first(X_FORWARDED_PROTO), first(X_FORWARDED_HOST));
    strip(headers, |kind| match kind {
        HeaderKind::HopByHop | HeaderKind::Forwarding | HeaderKind::Identity | HeaderKind::Override => true,
        HeaderKind::Credential => !context.route.forward_credentials,
        HeaderKind::Limit => false,
    });
    join_cookies(headers, version);
    write_length_plainly(headers);

    let client = context.client.values(context.authority);
    put(headers, X_FORWARDED_FOR, forwarded_for, &client.address);
    headers.insert(X_FORWARDED_PROTO, proto.unwrap_or(HeaderValue::from_static("https")));
    if let Some(host) = host.filter(|host| !host.is_empty()).or_else(|| authority(headers, context)) {
        headers.insert(X_FORWARDED_HOST, host);
    }
    put(headers, header::FORWARDED, forwarded, &client.element);
    let via = match version {
        Version::HTTP_2 => "2.0 callgate",
        Version::HTTP_10 => "1.0 callgate",
        _ => "1.1 callgate",
    };
    put(headers, header::VIA, joined(headers, &header::VIA), &HeaderValue::from_static(via));
    headers.insert(REQUEST_ID, context.request_id.clone());
    for (name, value) in context.identity {
        headers.insert(name, value.clone());
    }
    if websocket {
        mark_websocket(headers);
    } else if wants_trailers {
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let edits = &context.route.request_headers;
    remove_respelled(headers, edits);
    edit(headers, edits);
}

/// Makes a message one that switches to the WebSocket protocol.
pub(super) fn mark_websocket(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
}

/// The client's `Host`, where the upstream is to get it; `None`: the endpoint's own.
pub(crate) fn preserved_host(
    headers: &HeaderMap,
    context: &ForwardContext<'_>,
    rule: HostHeader,
) -> Option<HeaderValue> {
    match rule {
        HostHeader::Endpoint => None,
        HostHeader::Preserve => authority(headers, context),
    }
}

/// The authority that the client asked for, if any: most often its `Host`, as it is.
fn authority(headers: &HeaderMap, context: &ForwardContext<'_>) -> Option<HeaderValue> {
    match headers.get(header::HOST) {
        _ if context.authority.is_empty() => None,
        Some(host) if host == context.authority => Some(host.clone()),
        // The characters of an authority are valid in a header.
        Some(_) | None => HeaderValue::from_str(context.authority).ok(),
    }
}

/// The hops of `Forwarded`, as a list for `X-Forwarded-For`.
fn hops(headers: &HeaderMap) -> String {
    let hops = forwarded_hops(headers);
    let text = |hop: &Option<IpAddr>| hop.map_or("unknown".to_owned(), |address| address.to_string());
    hops.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// All lines of a header as one list; `None` when there is none.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    let mut lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let mut list = lines.next()?.to_owned();
    for line in lines {
        list.push_str(", ");
        list.push_str(line);
    }
    Some(list)
}

/// Sets a header to an element, after the list that comes before it.
fn put(headers: &mut HeaderMap, name: HeaderName, list: Option<String>, element: &HeaderValue) {
    let value = match list {
        Some(list) => HeaderValue::try_from([list.as_str(), ", ", element.to_str().unwrap_or_default()].concat()),
        None => Ok(element.clone()),
    };
    // It consists of headers and an address, so it is valid.
    if let Ok(value) = value {
        headers.insert(name, value);
    }
}

/// HTTP/2 clients may split a cookie into several fields; HTTP/1.1 has one (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap, version: Version) {
    if version != Version::HTTP_2 || headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let pieces: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(mut cookie) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
        cookie.set_sensitive(true);
        headers.insert(header::COOKIE, cookie);
    }
}
