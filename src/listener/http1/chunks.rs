//! A chunked body, strictly: every line ends with CRLF, a size is hexadecimal digits and nothing else (RFC 9112 §7.1).

use bytes::{Buf, BytesMut};
use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::super::head::{self, HeadLimits};
use super::part::{Part, ReadFault};

/// Chunk extensions of one body may take so many bytes together: nobody uses them but attackers.
const MAX_EXTENSION_BYTES: usize = 1024;

/// Where in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a chunk-size line: value so far, digits so far.
    Size(u64, u8),
    /// In a chunk extension.
    Extension(u64),
    /// After the CR of a chunk-size line.
    SizeLf(u64),
    /// In chunk data: bytes left.
    Data(u64),
    /// After chunk data: CR, then LF.
    DataCr,
    DataLf,
    /// At the start of a trailer line, in its name, in its value, after its CR; and after the CR of the empty last line.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

/// Follows one chunked body.
#[derive(Debug)]
pub(super) struct Chunks {
    place: Place,
    extension_bytes: usize,
    /// The trailer section as far as it has come, without its empty line.
    trailers: Vec<u8>,
}

impl Chunks {
    pub(super) fn new() -> Self {
        Self { place: Place::Size(0, 0), extension_bytes: 0, trailers: Vec::new() }
    }

    /// Takes the next part from the front of `held`; `None` when more must come first.
    pub(super) fn next(&mut self, held: &mut BytesMut, limits: &HeadLimits) -> Result<Option<Part>, ReadFault> {
        let mut at = 0;
        while let Some(byte) = held.get(at).copied() {
            if let Place::Data(left) = self.place {
                held.advance(at);
                let step = left.min(held.len() as u64);
                self.place = if left == step { Place::DataCr } else { Place::Data(left - step) };
                return Ok(Some(Part::Data(held.split_to(step as usize).freeze())));
            }
            at += 1;
            if self.place == Place::EndLf && byte == b'\n' {
                held.advance(at);
                return Ok(Some(Part::End(self.trailers(limits)?)));
            }
            let Some(next) = self.step(byte, limits) else {
                held.advance(at - 1);
                return Err(ReadFault::Body);
            };
            self.place = next;
        }
        held.advance(at);
        Ok(None)
    }

    /// Where the next byte leads; `None`: this is no chunked body.
    fn step(&mut self, byte: u8, limits: &HeadLimits) -> Option<Place> {
        Some(match self.place {
            Place::Size(size, digits) => match (char::from(byte).to_digit(16), byte) {
                // 15 digits can't overflow, and no upload needs 16.
                (Some(digit), _) if digits < 15 => Place::Size(size << 4 | u64::from(digit), digits + 1),
                (None, b'\r') if digits > 0 => Place::SizeLf(size),
                (None, b';') if digits > 0 => Place::Extension(size),
                _ => return None,
            },
            Place::Extension(size) => {
                self.extension_bytes += 1;
                match byte {
                    _ if self.extension_bytes > MAX_EXTENSION_BYTES => return None,
                    b'\r' => Place::SizeLf(size),
                    b'\t' | 0x20..=0x7e => Place::Extension(size),
                    _ => return None,
                }
            }
            Place::SizeLf(0) if byte == b'\n' => Place::TrailerStart,
            Place::SizeLf(size) if byte == b'\n' => Place::Data(size),
            Place::DataCr if byte == b'\r' => Place::DataLf,
            Place::DataLf if byte == b'\n' => Place::Size(0, 0),
            Place::TrailerStart if byte == b'\r' => Place::EndLf,
            place @ (Place::TrailerStart | Place::TrailerName | Place::TrailerValue | Place::TrailerLf) => {
                if self.trailers.len() >= limits.bytes {
                    return None;
                }
                self.trailers.push(byte);
                match (place, byte) {
                    (Place::TrailerName, b':') => Place::TrailerValue,
                    (Place::TrailerValue, b'\r') => Place::TrailerLf,
                    (Place::TrailerValue, byte) if head::is_value_char(byte) => Place::TrailerValue,
                    (Place::TrailerStart | Place::TrailerName, byte) if head::is_tchar(byte) => Place::TrailerName,
                    (Place::TrailerLf, b'\n') => Place::TrailerStart,
                    _ => return None,
                }
            }
            Place::Data(_) | Place::SizeLf(_) | Place::DataCr | Place::DataLf | Place::EndLf => return None,
        })
    }

    /// The trailers, if there are any.
    fn trailers(&self, limits: &HeadLimits) -> Result<Option<HeaderMap>, ReadFault> {
        if self.trailers.is_empty() {
            return Ok(None);
        }
        let mut trailers = HeaderMap::new();
        let lines = self.trailers.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        for (count, line) in lines.enumerate() {
            let colon = memchr::memchr(b':', line).ok_or(ReadFault::Body)?;
            let name = HeaderName::from_bytes(&line[..colon]);
            let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
            let (Ok(name), Ok(value), true) = (name, value, count < limits.lines) else { return Err(ReadFault::Body) };
            trailers.append(name, value);
        }
        Ok(Some(trailers))
    }
}
