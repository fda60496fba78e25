//! Answers on HTTP/1.1, as bytes: the head in one pass, the body with a length or in chunks (RFC 9112 §6).

use bytes::Bytes;
use http::header::{self, HeaderMap};
use http::response::Parts;
use http::{Method, Request, StatusCode, Version};
use http_body::{Frame, SizeHint};
use hyper::ext::ReasonPhrase;

use super::super::date;
use super::super::head::Asks;
use super::output::Output;

/// What a request says of the answer to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) is_http10: bool,
    /// The connection may go on behind the answer.
    pub(super) keeps_alive: bool,
    is_head: bool,
    takes_trailers: bool,
}

/// How the end of an answer's body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// It has none.
    None,
    /// Bytes left.
    Sized(u64),
    Chunked,
    UntilClose,
}

impl Asked {
    pub(super) fn by<B>(request: &Request<B>, asks: Asks) -> Self {
        let is_http10 = request.version() == Version::HTTP_10;
        Self {
            is_http10,
            keeps_alive: !asks.close && (!is_http10 || asks.keep_alive),
            is_head: *request.method() == Method::HEAD,
            takes_trailers: asks.trailers,
        }
    }

    /// By somebody who has not sent a request.
    pub(super) fn by_nobody() -> Self {
        Self { is_http10: false, keeps_alive: false, is_head: false, takes_trailers: false }
    }

    /// How the body of an answer will be encoded.
    pub(super) fn encoding(&self, head: &Parts, size: &SizeHint) -> Encoding {
        let has_none = self.is_head
            || head.status.is_informational()
            || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        if has_none {
            return Encoding::None;
        }
        let announced = || head.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok();
        match size.exact().or_else(announced) {
            Some(length) => Encoding::Sized(length),
            None if self.is_http10 => Encoding::UntilClose,
            None => Encoding::Chunked,
        }
    }

    /// Writes a head. `is_last`: the connection ends behind the answer.
    pub(super) fn write_head(&self, head: &Parts, encoding: Encoding, is_last: bool, out: &mut Output) {
        let out = out.bytes();
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
        write_status_line(self.is_http10, head, out);
        let mut has_date = false;
        for (name, value) in &head.headers {
            match *name {
                header::CONTENT_LENGTH => match encoding {
                    // That of the answer to a GET (RFC 9110 §8.6).
                    Encoding::None if self.is_head || head.status == StatusCode::NOT_MODIFIED => {}
                    Encoding::None | Encoding::Sized(_) | Encoding::Chunked | Encoding::UntilClose => continue,
                },
                header::TRANSFER_ENCODING => continue,
                header::CONNECTION if !switches => continue,
                header::TRAILER if encoding != Encoding::Chunked => continue,
                header::DATE => has_date = true,
                _ => {}
            }
            write_line(name.as_str(), value.as_bytes(), out);
        }
        match encoding {
            Encoding::Sized(length) => {
                write_line("content-length", itoa::Buffer::new().format(length).as_bytes(), out);
            }
            Encoding::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
            Encoding::None | Encoding::UntilClose => {}
        }
        if is_last && !switches {
            out.extend_from_slice(b"connection: close\r\n");
        } else if self.is_http10 {
            out.extend_from_slice(b"connection: keep-alive\r\n");
        }
        if !has_date {
            write_line("date", date::now().as_bytes(), out);
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl Encoding {
    /// Writes a part of a body; false if it is longer than announced.
    pub(super) fn write(&mut self, frame: Frame<Bytes>, asked: &Asked, out: &mut Output) -> bool {
        match frame.into_data() {
            Ok(data) if data.is_empty() => true,
            Ok(data) => match self {
                Self::None => true,
                Self::Sized(left) => match left.checked_sub(data.len() as u64) {
                    Some(rest) => {
                        *left = rest;
                        out.push(data, b"");
                        true
                    }
                    None => false,
                },
                Self::Chunked => {
                    write_hexadecimal(data.len(), out.bytes());
                    out.push(data, b"\r\n");
                    true
                }
                Self::UntilClose => {
                    out.push(data, b"");
                    true
                }
            },
            Err(frame) => {
                if let (Ok(trailers), Self::Chunked) = (frame.into_trailers(), *self) {
                    let out = out.bytes();
                    out.extend_from_slice(b"0\r\n");
                    if asked.takes_trailers {
                        trailers.iter().for_each(|(name, value)| write_line(name.as_str(), value.as_bytes(), out));
                    }
                    out.extend_from_slice(b"\r\n");
                    *self = Self::None;
                }
                true
            }
        }
    }

    /// Writes the end; false if bytes are missing.
    pub(super) fn end(self, out: &mut Output) -> bool {
        if self == Self::Chunked {
            out.bytes().extend_from_slice(b"0\r\n\r\n");
        }
        !matches!(self, Self::Sized(1..))
    }
}

/// Writes an interim answer.
pub(super) fn write_interim(status: StatusCode, headers: &HeaderMap, out: &mut Output) {
    let mut head = http::Response::new(()).into_parts().0;
    head.status = status;
    let out = out.bytes();
    write_status_line(false, &head, out);
    headers.iter().for_each(|(name, value)| write_line(name.as_str(), value.as_bytes(), out));
    out.extend_from_slice(b"\r\n");
}

fn write_status_line(is_http10: bool, head: &Parts, out: &mut Vec<u8>) {
    out.extend_from_slice(if is_http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(head.status.as_str().as_bytes());
    out.push(b' ');
    let reason = match head.extensions.get::<ReasonPhrase>() {
        Some(reason) => reason.as_bytes(),
        None => head.status.canonical_reason().unwrap_or_default().as_bytes(),
    };
    out.extend_from_slice(reason);
    out.extend_from_slice(b"\r\n");
}

fn write_line(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The size line of a chunk.
fn write_hexadecimal(size: usize, out: &mut Vec<u8>) {
    let digits = (usize::BITS - size.leading_zeros()).div_ceil(4).max(1);
    out.extend((0..digits).rev().map(|digit| b"0123456789abcdef"[size >> (4 * digit) & 15]));
    out.extend_from_slice(b"\r\n");
}
