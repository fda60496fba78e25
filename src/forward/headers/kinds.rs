//! The kinds of headers that are not passed on, in any spelling, and their removal.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::detect::list_items;

/// Headers by which some frameworks let a client replace the method or the path that was checked here.
const OVERRIDES: [&str; 5] =
    ["x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"];

/// Why a header is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderKind {
    /// It is about one connection.
    HopByHop,
    /// It describes the client or the proxies before Callgate; only a trusted proxy may send it.
    Forwarding,
    /// It names the principal; only Callgate may send it.
    Identity,
    /// The client's credential.
    Credential,
    /// The upstream's own rate limits.
    Limit,
    /// It would turn the request into another one than was checked.
    Override,
}

/// The kind of a name in any spelling that an upstream may fold into the same variable.
fn kind(name: &HeaderName) -> Option<HeaderKind> {
    let text = name.as_str();
    // The first byte rules out most names.
    match text.as_bytes()[0] {
        b'a' if *name == header::AUTHORIZATION => Some(HeaderKind::Credential),
        b'c' if *name == header::CONNECTION => Some(HeaderKind::HopByHop),
        // The real one has a hyphen, and is passed on.
        b'c' if is_spelling(text, "content-length") && *name != header::CONTENT_LENGTH => Some(HeaderKind::HopByHop),
        b'e' if *name == header::EXPECT => Some(HeaderKind::HopByHop),
        b'f' if *name == header::FORWARDED => Some(HeaderKind::Forwarding),
        b'h' if is_spelling(text, "http2-settings") => Some(HeaderKind::HopByHop),
        b'k' if is_spelling(text, "keep-alive") => Some(HeaderKind::HopByHop),
        // CGI programs would find it as HTTP_PROXY, and send their own requests through it (CVE-2016-5385).
        b'p' if text == "proxy" => Some(HeaderKind::Override),
        b'p' if is_spelling(text, "proxy-connection") || is_spelling(text, "proxy-authorization") => {
            Some(HeaderKind::HopByHop)
        }
        b'r' | b'x' if is_limit(text) => Some(HeaderKind::Limit),
        b't' if *name == header::TE || is_spelling(text, "transfer-encoding") => Some(HeaderKind::HopByHop),
        b'u' if *name == header::UPGRADE => Some(HeaderKind::HopByHop),
        b'x' if has_prefix(text, "x-callgate-") => Some(HeaderKind::Identity),
        b'x' if has_prefix(text, "x-forwarded-") || is_spelling(text, "x-real-ip") => Some(HeaderKind::Forwarding),
        b'x' if is_spelling(text, "x-request-id") => Some(HeaderKind::Forwarding),
        b'x' if OVERRIDES.iter().any(|name| is_spelling(text, name)) => Some(HeaderKind::Override),
        _ => None,
    }
}

/// Whether a name begins with `RateLimit` or `Rate-Limit`, with or without `X-` in front.
fn is_limit(text: &str) -> bool {
    const SEPARATORS: [char; 3] = ['-', '_', '.'];
    let text = text.strip_prefix('x').map_or(text, |rest| rest.strip_prefix(SEPARATORS).unwrap_or(text));
    let Some(rest) = text.strip_prefix("rate") else { return false };
    let rest = rest.strip_prefix(SEPARATORS).unwrap_or(rest).strip_prefix("limit");
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(SEPARATORS))
}

/// Only letters and digits tell names apart: CGI, WSGI and PHP turn everything else into an underscore.
fn has_prefix(text: &str, prefix: &str) -> bool {
    text.len() >= prefix.len()
        && text
            .bytes()
            .zip(prefix.bytes())
            .all(|(byte, wanted)| byte == wanted || !(byte.is_ascii_alphanumeric() || wanted.is_ascii_alphanumeric()))
}

/// Whether a text is this name in any spelling.
pub(super) fn is_spelling(text: &str, name: &str) -> bool {
    text.len() == name.len() && has_prefix(text, name)
}

/// Names that are removed from a message.
pub(super) type Names = SmallVec<[HeaderName; 8]>;

/// Options of `Connection` that are looked at: a message has no more headers. The listener refuses requests that have more.
const MAX_CONNECTION_OPTIONS: usize = 100;

/// Writes a length without zeros before it, in which some parsers see an octal number.
pub(super) fn write_length_plainly(headers: &mut HeaderMap) {
    if let Some(length) = headers.get_mut(header::CONTENT_LENGTH)
        && let [b'0', digits @ ..] = length.as_bytes()
        && !digits.is_empty()
    {
        let zeros = digits.iter().take_while(|digit| **digit == b'0').count().min(digits.len() - 1);
        if let Ok(plain) = HeaderValue::from_bytes(&digits[zeros..]) {
            *length = plain;
        }
    }
}

/// Removes all headers whose kind is in `kinds`, and all that `Connection` lists, except those that a message can't do without.
pub(super) fn strip(headers: &mut HeaderMap, kinds: impl Fn(HeaderKind) -> bool) {
    let mut names = Names::new();
    for option in list_items(headers, &header::CONNECTION).take(MAX_CONNECTION_OPTIONS) {
        let is_plain = [&b"keep-alive"[..], b"close", b"upgrade"].iter().any(|word| option.eq_ignore_ascii_case(word));
        if let (false, Ok(name)) = (is_plain, HeaderName::from_bytes(option))
            && ![header::HOST, header::CONTENT_LENGTH, header::CONTENT_TYPE].contains(&name)
        {
            names.push(name);
        }
    }
    names.extend(headers.keys().filter(|name| kind(name).is_some_and(&kinds)).cloned());
    for name in names {
        headers.remove(name);
    }
}
