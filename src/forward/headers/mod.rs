//! Headers on their way through: what concerns one connection only is taken off on both ways, what Callgate vouches for is
//! put on (RFC 9110 §7.6, RFC 7239).

mod trailers;

use std::net::IpAddr;

use http::header::{self, Entry, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use http::{Method, Request, Version};
use smallvec::SmallVec;

use crate::config::{HeaderEdits, HostHeader, REQUEST_ID, Route};
use crate::telemetry::push_ip;

use super::ForwardContext;
use super::client::{X_FORWARDED_FOR, is_trusted};
use super::extended;

pub(super) use trailers::{clean_trailers_for_client, clean_trailers_for_upstream};

const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// Headers by which some frameworks let a client replace the method or the path that was judged here.
const OVERRIDES: [&str; 5] =
    ["x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"];

/// Why a header stays behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It concerns this connection only.
    HopByHop,
    /// It says who or what stands before us; only a trusted proxy may.
    Forwarding,
    /// It says who the token is; only Callgate may.
    Identity,
    /// The client's credential.
    Credential,
    /// The upstream's own idea of the limits.
    Limit,
    /// It would make of the request another one than was judged.
    Override,
}

/// Judges a name in any spelling that an upstream may fold into the same variable.
fn kind(name: &HeaderName) -> Option<Kind> {
    let text = name.as_str();
    // Most names are told apart by their first byte.
    match text.as_bytes()[0] {
        b'a' if *name == header::AUTHORIZATION => Some(Kind::Credential),
        b'c' if *name == header::CONNECTION => Some(Kind::HopByHop),
        // The real one is spelled with a hyphen, and is not taken off.
        b'c' if is(text, "content-length") && *name != header::CONTENT_LENGTH => Some(Kind::HopByHop),
        b'e' if *name == header::EXPECT => Some(Kind::HopByHop),
        b'f' if *name == header::FORWARDED => Some(Kind::Forwarding),
        b'h' if is(text, "http2-settings") => Some(Kind::HopByHop),
        b'k' if is(text, "keep-alive") => Some(Kind::HopByHop),
        // Programs of the CGI kind would find it as HTTP_PROXY, and ask others through it (CVE-2016-5385).
        b'p' if text == "proxy" => Some(Kind::Override),
        b'p' if is(text, "proxy-connection") || is(text, "proxy-authorization") => Some(Kind::HopByHop),
        b'r' if is(text, "ratelimit") || is(text, "ratelimit-policy") => Some(Kind::Limit),
        b't' if *name == header::TE || is(text, "transfer-encoding") => Some(Kind::HopByHop),
        b'u' if *name == header::UPGRADE => Some(Kind::HopByHop),
        b'x' if begins(text, "x-callgate-") => Some(Kind::Identity),
        b'x' if begins(text, "x-forwarded-") || is(text, "x-real-ip") => Some(Kind::Forwarding),
        b'x' if begins(text, "x-ratelimit-") => Some(Kind::Limit),
        b'x' if is(text, "x-request-id") => Some(Kind::Forwarding),
        b'x' if OVERRIDES.iter().any(|name| is(text, name)) => Some(Kind::Override),
        _ => None,
    }
}

/// Letters and digits tell names apart; of everything else CGI, WSGI and PHP make an underscore.
fn begins(text: &str, prefix: &str) -> bool {
    text.len() >= prefix.len()
        && text
            .bytes()
            .zip(prefix.bytes())
            .all(|(byte, wanted)| byte == wanted || !(byte.is_ascii_alphanumeric() || wanted.is_ascii_alphanumeric()))
}

fn is(text: &str, name: &str) -> bool {
    text.len() == name.len() && begins(text, name)
}

type Names = SmallVec<[HeaderName; 8]>;

/// The names that all `Connection` lines list, but for those without which a message has no meaning at all.
fn listed_by_connection(headers: &HeaderMap) -> Names {
    let mut names = Names::new();
    for line in headers.get_all(header::CONNECTION) {
        for option in line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            let is_plain =
                [&b"keep-alive"[..], b"close", b"upgrade"].iter().any(|word| option.eq_ignore_ascii_case(word));
            if let (false, Ok(name)) = (is_plain, HeaderName::from_bytes(option))
                && name != header::HOST
                && name != header::CONTENT_LENGTH
                && name != header::CONTENT_TYPE
            {
                names.push(name);
            }
        }
    }
    names
}

/// Takes off everything whose kind is to be dropped, and everything that `Connection` lists.
fn take_off(headers: &mut HeaderMap, drop: impl Fn(Kind) -> bool) {
    let mut names = listed_by_connection(headers);
    names.extend(headers.keys().filter(|name| kind(name).is_some_and(&drop)).cloned());
    for name in names {
        if let Entry::Occupied(entry) = headers.entry(name) {
            entry.remove_entry_mult();
        }
    }
}

/// Whether a request asks for a WebSocket (RFC 6455 §4.1, RFC 8441 §5). On HTTP/1.1 that is a GET, and nothing stands between it and the
/// first frame: a body would be read as frames by who does not expect one.
#[must_use]
pub fn asks_for_websocket<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    extended::is_unfolded(request)
        || (request.version() == Version::HTTP_11
            && *request.method() == Method::GET
            && has_websocket(headers)
            && !has_body(headers))
}

/// Whether a request of HTTP/1.1 announces a body.
fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length.as_bytes().iter().any(|digit| *digit != b'0'))
}

/// Whether a request is one of gRPC, and its client understands nothing but gRPC's own answers. gRPC-Web, which is plain HTTP, is not.
#[must_use]
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let begins = |name: &[u8]| kind.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    request.version() == Version::HTTP_2
        && *request.method() == Method::POST
        && begins(b"application/grpc")
        && matches!(kind.get(b"application/grpc".len()), None | Some(b'+' | b';' | b' '))
}

/// Whether a message switches to the WebSocket protocol: `Upgrade` names it alone, and `Connection` lists `Upgrade`.
pub(super) fn has_websocket(headers: &HeaderMap) -> bool {
    let mut upgrades = headers.get_all(header::UPGRADE).iter();
    let names_it = matches!((upgrades.next(), upgrades.next()), (Some(value), None) if value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    names_it
        && headers.get_all(header::CONNECTION).iter().any(|line| {
            line.as_bytes()
                .split(|byte| *byte == b',')
                .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        })
}

/// Whether an OPTIONS may be forwarded no further; if it may, that is one hop less from here on (RFC 9110 §7.6.2).
#[must_use]
pub fn is_last_hop(headers: &mut HeaderMap) -> bool {
    let hops = headers.get(header::MAX_FORWARDS).and_then(|hops| hops.to_str().ok()?.parse::<u32>().ok());
    match hops.map(|hops| hops.checked_sub(1)) {
        Some(None) => true,
        Some(Some(left)) => {
            headers.insert(header::MAX_FORWARDS, HeaderValue::from(left));
            false
        }
        None => false,
    }
}

/// Whether a message has a length of its own and one in chunks. hyper believes the chunks and hands on both.
pub(super) fn has_two_lengths(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CONTENT_LENGTH) && headers.contains_key(header::TRANSFER_ENCODING)
}

/// Makes a client's headers those of a request to the upstream.
pub fn onto_upstream(headers: &mut HeaderMap, version: Version, onward: &ForwardContext<'_>, websocket: bool) {
    let trusted = is_trusted(onward.peer.ip().to_canonical(), onward.trusted_proxies);
    let wants_trailers =
        headers.get(header::TE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"trailers"));
    let forwarded_for = if trusted { joined(headers, &X_FORWARDED_FOR) } else { None };
    let forwarded = if trusted { joined(headers, &header::FORWARDED) } else { None };
    let believed = |name| if trusted { headers.get(name).cloned() } else { None };
    let (proto, host) = (believed(X_FORWARDED_PROTO), believed(X_FORWARDED_HOST));
    take_off(headers, |kind| match kind {
        Kind::HopByHop | Kind::Forwarding | Kind::Identity | Kind::Override => true,
        Kind::Credential => !onward.route.forward_credentials,
        Kind::Limit => false,
    });
    join_cookies(headers, version);

    let address = onward.peer.ip().to_canonical();
    let mut address_text = String::with_capacity("255.255.255.255".len());
    push_ip(&mut address_text, address);
    put(headers, X_FORWARDED_FOR, forwarded_for, HeaderValue::from_str(&address_text));
    headers.insert(X_FORWARDED_PROTO, proto.unwrap_or(HeaderValue::from_static(scheme(onward))));
    if let Some(host) = host.or_else(|| authority(headers, onward)) {
        headers.insert(X_FORWARDED_HOST, host);
    }
    let element = forwarded_element(address, &address_text, onward);
    put(headers, header::FORWARDED, forwarded, HeaderValue::try_from(element));
    let via = if version == Version::HTTP_2 {
        "2.0 callgate"
    } else if version == Version::HTTP_10 {
        "1.0 callgate"
    } else {
        "1.1 callgate"
    };
    put(headers, header::VIA, joined(headers, &header::VIA), Ok(HeaderValue::from_static(via)));
    headers.insert(REQUEST_ID, onward.request_id.clone());
    for (name, value) in onward.identity {
        headers.insert(name, value.clone());
    }
    if websocket {
        headers.insert(header::CONNECTION, UPGRADE);
        headers.insert(header::UPGRADE, WEBSOCKET);
    } else if wants_trailers {
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let edits = &onward.route.request_headers;
    take_off_respelled(headers, edits);
    edit(headers, edits);
}

/// The names of what a route puts on or takes off, and of what routes are told apart by.
fn edited(edits: &HeaderEdits) -> impl Iterator<Item = &HeaderName> {
    edits.remove.iter().chain(edits.set.iter().map(|(name, _)| name)).chain(&edits.matched)
}

/// What a route puts on or takes off, or is chosen by, stands nowhere in another spelling: the upstream might read that one.
fn take_off_respelled(headers: &mut HeaderMap, edits: &HeaderEdits) {
    if edited(edits).next().is_none() {
        return;
    }
    let is_edited =
        |name: &&HeaderName| edited(edits).any(|edited| *name != edited && is(name.as_str(), edited.as_str()));
    let spellings: Names = headers.keys().filter(is_edited).cloned().collect();
    for name in spellings {
        headers.remove(name);
    }
}

/// Makes a route's changes to what the client gets. With `cors`, nothing that the upstream says of that counts.
pub(super) fn edit_for_client(headers: &mut HeaderMap, route: &Route) {
    if route.cors.is_some() {
        take_off_cors(headers);
    }
    edit(headers, &route.response_headers);
}

fn take_off_cors(headers: &mut HeaderMap) {
    let theirs: Names = headers.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    for name in theirs {
        headers.remove(name);
    }
}

fn edit(headers: &mut HeaderMap, edits: &HeaderEdits) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.insert(name, value.clone());
    }
}

/// The `Host` towards the upstream.
pub(super) fn set_host(headers: &mut HeaderMap, onward: &ForwardContext<'_>, rule: HostHeader, endpoint: &HeaderValue) {
    let host = kept_host(headers, onward, rule).unwrap_or_else(|| endpoint.clone());
    headers.insert(header::HOST, host);
}

/// The client's `Host`, where the upstream is to see it; `None`: the endpoint's own.
pub(super) fn kept_host(headers: &HeaderMap, onward: &ForwardContext<'_>, rule: HostHeader) -> Option<HeaderValue> {
    match rule {
        HostHeader::Endpoint => None,
        // An authority is made of characters that a header may hold.
        HostHeader::Preserve => authority(headers, onward),
    }
}

/// Whether an answer is a stream of server-sent events.
pub(super) fn has_events(headers: &HeaderMap) -> bool {
    const EVENTS: &[u8] = b"text/event-stream";
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        let kind = value.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
        kind.trim_ascii().eq_ignore_ascii_case(EVENTS)
    })
}

/// Makes an upstream's headers those of an answer to the client.
pub fn onto_client(headers: &mut HeaderMap, websocket: bool) {
    clean_for_client(headers);
    if websocket {
        headers.insert(header::CONNECTION, UPGRADE);
        headers.insert(header::UPGRADE, WEBSOCKET);
    }
}

/// What an upstream may not tell the client.
pub(super) fn clean_for_client(headers: &mut HeaderMap) {
    take_off(headers, |kind| match kind {
        Kind::HopByHop | Kind::Limit => true,
        Kind::Forwarding | Kind::Identity | Kind::Credential | Kind::Override => false,
    });
    headers.remove(REQUEST_ID);
}

/// The authority that the client asked for: most often its own `Host`, as it is.
fn authority(headers: &HeaderMap, onward: &ForwardContext<'_>) -> Option<HeaderValue> {
    match headers.get(header::HOST) {
        Some(host) if host == onward.authority => Some(host.clone()),
        Some(_) | None => HeaderValue::from_str(onward.authority).ok(),
    }
}

fn scheme(onward: &ForwardContext<'_>) -> &'static str {
    if onward.https { "https" } else { "http" }
}

/// `for=…;proto=…;host=…` (RFC 7239 §4): addresses of version 6 and hosts with a port are quoted.
fn forwarded_element(address: IpAddr, text: &str, onward: &ForwardContext<'_>) -> String {
    let (open, close) = if address.is_ipv6() { ("for=\"[", "]\"") } else { ("for=", "") };
    let host = if onward.authority.is_empty() { ["", "", ""] } else { [";host=\"", onward.authority, "\""] };
    [open, text, close, ";proto=", scheme(onward), host[0], host[1], host[2]].concat()
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

/// Puts an element on a header, behind the list that is to stand before it.
fn put(
    headers: &mut HeaderMap,
    name: HeaderName,
    list: Option<String>,
    element: Result<HeaderValue, InvalidHeaderValue>,
) {
    let value = element.and_then(|element| match list {
        Some(list) => HeaderValue::try_from([list.as_str(), ", ", element.to_str().unwrap_or_default()].concat()),
        None => Ok(element),
    });
    // What is put here was read from headers or made of an address; should it hold anything else, it is left out.
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

#[cfg(test)]
mod tests;
