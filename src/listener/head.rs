//! One request head, judged as a whole: request line, header lines, and what they say of the body (RFC 9112 §3 to §6).

use http::{Request, header};
use memchr::memmem;

use super::authority::is_authority;

/// What a head may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadLimits {
    /// Bytes, request line and all.
    pub(super) bytes: usize,
    /// Header lines.
    pub(super) lines: usize,
    /// Bytes of the request target.
    pub(super) target: usize,
}

/// Nobody needs more options of `Connection`: each names a header that is taken out, and there are not so many.
const MAX_CONNECTION_OPTIONS: usize = 100;
/// No header name is so long; hyper, which must never be the one to refuse, takes 65,535 bytes.
const MAX_NAME_BYTES: usize = 1024;

/// Why a request is refused before it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFault {
    /// 400, and what is wrong.
    Malformed(&'static str),
    /// 414.
    TargetTooLong,
    /// 431.
    HeadersTooLarge,
    /// 501: a transfer coding other than chunked.
    UnknownCoding,
    /// 505.
    UnknownVersion,
    /// 408: the head did not come in time.
    TooSlow,
}

/// How long the body after a head is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyLength {
    None,
    Sized(u64),
    Chunked,
}

/// A head that may pass.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head<'h> {
    pub(super) method: &'h [u8],
    pub(super) target: &'h [u8],
    pub(super) is_http10: bool,
    pub(super) body: BodyLength,
    pub(super) asks: Asks,
}

/// What a head asks of its connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asks {
    /// `Connection: close`.
    pub(super) close: bool,
    /// `Connection: keep-alive`.
    pub(super) keep_alive: bool,
    /// `TE: trailers`.
    pub(super) trailers: bool,
    /// `Expect: 100-continue`, which HTTP/1.0 doesn't know (RFC 9110 §10.1.1).
    pub(super) expects: bool,
    /// There is an `Upgrade`.
    pub(super) upgrade: bool,
}

/// What is known of a head that isn't complete, so that it isn't searched anew with every byte that comes.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// So many bytes hold no end of it.
    seen: usize,
    /// Its first line is complete, and could be one.
    past_first_line: bool,
}

/// The length of the head at the start of `bytes`, its empty line included; `None` while it isn't complete. `search` begins anew with
/// each head.
pub(super) fn find_end(bytes: &[u8], limits: &HeadLimits, search: &mut Search) -> Result<Option<usize>, RequestFault> {
    let from = search.seen.saturating_sub(3);
    let end = memmem::find(&bytes[from..], b"\r\n\r\n").map(|at| from + at);
    let head = &bytes[..end.map_or(bytes.len(), |at| at + 2)];
    // Until the end is there, one byte of it may be: the CR of the empty line, which does not count.
    if head.len() > limits.bytes + usize::from(end.is_none()) {
        return Err(too_large(head, limits));
    }
    if end.is_none() {
        // A head that can only be refused is refused before it is complete: it might never be.
        let fault = early_fault(head, limits, search);
        search.seen = bytes.len();
        return fault.map_or(Ok(None), Err);
    }
    Ok(Some(head.len() + 2))
}

/// Judges a whole head, and shows each name and value of it.
pub(super) fn judge<'h>(
    head: &'h [u8],
    limits: &HeadLimits,
    mut field: impl FnMut(&'h [u8], &'h [u8]),
) -> Result<Head<'h>, RequestFault> {
    let head = &head[..head.len() - 2];
    let line_end = find_line_end(head)?;
    let (method, target, is_http10) = request_line(&head[..line_end], limits)?;
    let mut seen = HeadFields { version_11: !is_http10, ..HeadFields::default() };
    let mut at = line_end + 2;
    while at < head.len() {
        let length = find_line_end(&head[at..])?;
        let (name, value) = seen.line(&head[at..at + length], limits)?;
        field(name, value);
        at += length + 2;
    }
    Ok(Head { method, target, is_http10, body: seen.body()?, asks: seen.asks })
}

/// What a header counts beside its name and value (RFC 9113 §6.5.2).
const FIELD_OVERHEAD: usize = 32;

/// What is wrong with a request of HTTP/2, which has a framing of its own, that HTTP/1.1 would be refused for.
pub(super) fn fault_of_http2<B>(request: &Request<B>, limits: &HeadLimits) -> Option<RequestFault> {
    let target = request.uri().path_and_query().map_or("", |target| target.as_str()).as_bytes();
    if target.len() > limits.target {
        return Some(RequestFault::TargetTooLong);
    }
    if !has_target_chars(target) {
        return Some(RequestFault::Malformed("malformed request target"));
    }
    let headers = request.headers();
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD).sum();
    // Cookies that are sent one by one are one line, joined by `; ` (RFC 9113 §8.2.3).
    let joined = headers.get_all(header::COOKIE).iter().count().saturating_sub(1);
    let bytes = bytes - joined * (header::COOKIE.as_str().len() + FIELD_OVERHEAD - 2);
    if headers.len() - joined > limits.lines || bytes + target.len() > limits.bytes {
        return Some(RequestFault::HeadersTooLarge);
    }
    if headers.values().any(|value| has_blank_at_edge(value.as_bytes())) {
        return Some(RequestFault::Malformed("blanks around a header value"));
    }
    // h2 has compared the first one with the body; the upstream would be given all of them.
    let lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    (lengths.count() > 1).then_some(RequestFault::Malformed("more than one Content-Length header"))
}

/// In HTTP/1.1 they are no part of the value; in HTTP/2 there is nothing else that they could be (RFC 9113 §8.2.1).
fn has_blank_at_edge(value: &[u8]) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_blank(value.first()) || is_blank(value.last())
}

/// Which limit an overlong head breaks: the target's, when not even its first line fits.
fn too_large(head: &[u8], limits: &HeadLimits) -> RequestFault {
    match memchr::memchr(b'\r', head) {
        Some(line) if line <= limits.target => RequestFault::HeadersTooLarge,
        _ => RequestFault::TargetTooLong,
    }
}

/// What no further byte can mend. Nothing that is found here may pass once the head is complete, and only the first line is looked
/// at, for header values may hold what it may not.
fn early_fault(head: &[u8], limits: &HeadLimits, search: &mut Search) -> Option<RequestFault> {
    if search.past_first_line {
        return None;
    }
    // The last byte seen may be the CR of its end.
    let from = search.seen.saturating_sub(1);
    let line_end = memchr::memchr2(b'\r', b'\n', &head[from..]).map(|at| from + at);
    let (first_line, after) = head.split_at(line_end.unwrap_or(head.len()));
    let first_bytes = &first_line[..first_line.len().min(24)];
    if first_bytes.iter().any(|byte| !matches!(byte, 0x20..=0x7e)) || !is_tchar(head[0]) {
        return Some(RequestFault::Malformed("this is not an HTTP request"));
    }
    search.past_first_line = after.starts_with(b"\r\n");
    if !(after.is_empty() || after == b"\r" || search.past_first_line) {
        return Some(NO_CRLF);
    }
    // Room for the longest method name and the version beside the target.
    (first_line.len() > limits.target + 64).then_some(RequestFault::TargetTooLong)
}

const NO_CRLF: RequestFault = RequestFault::Malformed("a line does not end with CRLF");

/// Lines end with CRLF and nothing else: a lone CR or LF is where parsers begin to differ.
fn find_line_end(bytes: &[u8]) -> Result<usize, RequestFault> {
    match memchr::memchr2(b'\r', b'\n', bytes) {
        Some(at) if bytes[at] == b'\r' && bytes.get(at + 1) == Some(&b'\n') => Ok(at),
        _ => Err(NO_CRLF),
    }
}

/// Judges a request line: method, target, and whether its version is HTTP/1.0.
fn request_line<'h>(line: &'h [u8], limits: &HeadLimits) -> Result<(&'h [u8], &'h [u8], bool), RequestFault> {
    const BAD: RequestFault = RequestFault::Malformed("malformed request line");
    let method_end = memchr::memchr(b' ', line).ok_or(BAD)?;
    let target_end = memchr::memrchr(b' ', line).ok_or(BAD)?;
    let method = &line[..method_end];
    if method.is_empty() || method.len() > 32 || !method.iter().copied().all(is_tchar) {
        return Err(BAD);
    }
    let target = line.get(method_end + 1..target_end).filter(|target| !target.is_empty()).ok_or(BAD)?;
    if target.len() > limits.target {
        return Err(RequestFault::TargetTooLong);
    }
    if !is_target(method, target) || !has_target_chars(target) {
        return Err(RequestFault::Malformed("malformed request target"));
    }
    match &line[target_end + 1..] {
        b"HTTP/1.1" => Ok((method, target, false)),
        b"HTTP/1.0" => Ok((method, target, true)),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(RequestFault::UnknownVersion)
        }
        _ => Err(BAD),
    }
}

/// Whether a target has one of the four forms of RFC 9112 §3.2, and one that its method may have.
fn is_target(method: &[u8], target: &[u8]) -> bool {
    if method == b"CONNECT" {
        return is_authority(target);
    }
    match target {
        [b'/', ..] => true,
        [b'*'] => method == b"OPTIONS",
        _ => target.strip_prefix(b"http://").or_else(|| target.strip_prefix(b"https://")).is_some_and(|rest| {
            let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
            is_authority(&rest[..end])
        }),
    }
}

/// What the header lines said so far.
#[derive(Default)]
struct HeadFields {
    version_11: bool,
    lines: usize,
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
    connection_options: usize,
    asks: Asks,
}

impl HeadFields {
    /// Takes in one line; returns its name and its value.
    fn line<'h>(&mut self, line: &'h [u8], limits: &HeadLimits) -> Result<(&'h [u8], &'h [u8]), RequestFault> {
        self.lines += 1;
        if self.lines > limits.lines {
            return Err(RequestFault::HeadersTooLarge);
        }
        let colon = memchr::memchr(b':', line).ok_or(RequestFault::Malformed("a header line has no colon"))?;
        let name = &line[..colon];
        // This also refuses folded lines and blanks before the colon: a blank is no token character.
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.iter().copied().all(is_tchar) {
            return Err(RequestFault::Malformed("malformed header name"));
        }
        let value = &line[colon + 1..];
        if !value.iter().copied().all(is_value_char) {
            return Err(RequestFault::Malformed("malformed header value"));
        }
        let value = value.trim_ascii();
        match name.len() {
            4 if name.eq_ignore_ascii_case(b"host") => self.host(value)?,
            2 if name.eq_ignore_ascii_case(b"te") => self.asks.trailers |= lists(value, b"trailers"),
            6 if name.eq_ignore_ascii_case(b"expect") => {
                self.asks.expects |= self.version_11 && value.eq_ignore_ascii_case(b"100-continue");
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => self.asks.upgrade = true,
            10 if name.eq_ignore_ascii_case(b"connection") => self.connection(value)?,
            14 if name.eq_ignore_ascii_case(b"content-length") => self.content_length(value)?,
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => self.transfer_encoding(value)?,
            _ => {}
        }
        Ok((name, value))
    }

    fn host(&mut self, value: &[u8]) -> Result<(), RequestFault> {
        self.hosts += 1;
        if self.hosts > 1 {
            return Err(RequestFault::Malformed("more than one Host header"));
        }
        if value.is_empty() || !is_authority(value) {
            return Err(RequestFault::Malformed("malformed Host header"));
        }
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), RequestFault> {
        self.connection_options += memchr::memchr_iter(b',', value).count() + 1;
        if self.connection_options > MAX_CONNECTION_OPTIONS {
            return Err(RequestFault::Malformed("too many Connection options"));
        }
        self.asks.close |= lists(value, b"close");
        self.asks.keep_alive |= lists(value, b"keep-alive");
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), RequestFault> {
        const BAD: RequestFault = RequestFault::Malformed("malformed Content-Length");
        if self.length.is_some() {
            return Err(RequestFault::Malformed("more than one Content-Length header"));
        }
        if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
            return Err(BAD);
        }
        // 18 digits fit into 64 bits.
        self.length = Some(value.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')));
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), RequestFault> {
        if self.chunked {
            return Err(RequestFault::Malformed("more than one Transfer-Encoding header"));
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            let known =
                value.split(|byte| *byte == b',').any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"));
            let plain = !value.is_empty() && value.iter().all(|byte| is_tchar(*byte));
            return Err(if plain && !known {
                RequestFault::UnknownCoding
            } else {
                RequestFault::Malformed("malformed Transfer-Encoding")
            });
        }
        self.chunked = true;
        Ok(())
    }

    fn body(&self) -> Result<BodyLength, RequestFault> {
        if self.version_11 && self.hosts == 0 {
            return Err(RequestFault::Malformed("no Host header"));
        }
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(RequestFault::Malformed("both Content-Length and Transfer-Encoding")),
            (true, None) if !self.version_11 => {
                Err(RequestFault::Malformed("Transfer-Encoding in an HTTP/1.0 request"))
            }
            (true, None) => Ok(BodyLength::Chunked),
            (false, Some(0) | None) => Ok(BodyLength::None),
            (false, Some(length)) => Ok(BodyLength::Sized(length)),
        }
    }
}

/// Whether a list has this item, in any case.
fn lists(list: &[u8], item: &[u8]) -> bool {
    list.split(|byte| *byte == b',').any(|given| given.trim_ascii().eq_ignore_ascii_case(item))
}

/// The characters of a token (RFC 9110 §5.6.2).
const TCHARS: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        let is_mark = matches!(
            byte as u8,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        );
        table[byte] = is_mark || (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    table
};

pub(super) const fn is_tchar(byte: u8) -> bool {
    TCHARS[byte as usize]
}

/// What browsers send in a path or query beside what RFC 3986 allows passes (the percent-encode sets of WHATWG URL); what no client means
/// does not. They leave a backtick as it is in a query alone.
fn has_target_chars(target: &[u8]) -> bool {
    let mut in_query = false;
    target.iter().all(|byte| {
        in_query |= *byte == b'?';
        match byte {
            b'"' | b'<' | b'>' | b'#' => false,
            b'`' => in_query,
            byte => matches!(byte, 0x21..=0x7e),
        }
    })
}

pub(super) const fn is_value_char(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x20..=0x7e | 0x80..)
}
