//! One framing or none: a strict reader of what a client sends on HTTP/1.1.
//!
//! Request smuggling lives on two parsers that see different boundaries in the same bytes. Here is one, and it refuses every byte that
//! another could read otherwise. It follows each body to its end, so that the next head is found where it really starts. Pure: bytes
//! in, requests and parts of bodies out (RFC 9112 §2.2, §3, §5, §6, §7.1).

use bytes::{Buf, Bytes, BytesMut};

use super::super::head::{self, BodyLength, HeadLimits, RequestFault, Search};
use super::chunks::Chunks;
use super::part::{Part, ReadFault};
use super::request;

const EMPTY_LINE: &[u8] = b"\r\n";

/// Where on a connection.
#[derive(Debug)]
enum Place {
    Head,
    /// In a body of known length: bytes left.
    Sized(u64),
    Chunked(Chunks),
    /// After a fault.
    Refused(ReadFault),
}

/// Reads one connection's requests.
#[derive(Debug)]
pub(super) struct Reader {
    place: Place,
    limits: HeadLimits,
    search: Search,
    /// An empty line before the present head was left out.
    skipped: bool,
    /// The spelling of header names is kept.
    remembers_case: bool,
}

impl Reader {
    pub(super) fn new(limits: HeadLimits, remembers_case: bool) -> Self {
        Self { place: Place::Head, limits, search: Search::default(), skipped: false, remembers_case }
    }

    /// Takes the next part from the front of `held`; `None` when more must come first.
    pub(super) fn next(&mut self, held: &mut BytesMut) -> Result<Option<Part>, ReadFault> {
        let read = match &mut self.place {
            Place::Refused(fault) => return Err(*fault),
            Place::Head => self.head(held).map_err(ReadFault::Request),
            Place::Sized(_) if held.is_empty() => Ok(None),
            Place::Sized(left) => {
                let step = (*left).min(held.len() as u64);
                *left -= step;
                if *left == 0 {
                    self.place = Place::Head;
                }
                Ok(Some(Part::Data(held.split_to(step as usize).freeze())))
            }
            Place::Chunked(chunks) => {
                let part = chunks.next(held, &self.limits);
                if let Ok(Some(Part::End(_))) = part {
                    self.place = Place::Head;
                }
                part
            }
        };
        read.inspect_err(|fault| self.place = Place::Refused(*fault))
    }

    fn head(&mut self, held: &mut BytesMut) -> Result<Option<Part>, RequestFault> {
        // One empty line before a request is nobody's (RFC 9112 §2.2): some clients end a body with it.
        if !self.skipped && held.first() == Some(&b'\r') {
            if held.len() == 1 {
                return Ok(None);
            }
            if held.starts_with(EMPTY_LINE) {
                held.advance(EMPTY_LINE.len());
                self.skipped = true;
            }
        }
        if held.is_empty() {
            return Ok(None);
        }
        let Some(length) = head::find_end(held, &self.limits, &mut self.search)? else { return Ok(None) };
        (self.search, self.skipped) = (Search::default(), false);
        // A copy: what else was read with it would be kept for as long as one of its headers.
        let head = Bytes::copy_from_slice(&held[..length]);
        held.advance(length);
        let (request, body, asks) = request::build(&head, &self.limits, self.remembers_case)?;
        self.place = match body {
            BodyLength::None => Place::Head,
            BodyLength::Sized(length) => Place::Sized(length),
            BodyLength::Chunked => Place::Chunked(Chunks::new()),
        };
        Ok(Some(Part::Head(request, body, asks)))
    }

    /// Nothing more is read.
    pub(super) fn refuse(&mut self, fault: RequestFault) {
        self.place = Place::Refused(ReadFault::Request(fault));
    }

    /// Whether the client still owes bytes of a message, or sends what nobody will read.
    pub(super) fn is_within_message(&self) -> bool {
        !matches!(self.place, Place::Head)
    }

    /// How many bytes of a body are still to be read; more than can be for a chunked one.
    pub(super) fn owed(&self) -> u64 {
        match self.place {
            Place::Head => 0,
            Place::Sized(left) => left,
            Place::Chunked(_) | Place::Refused(_) => u64::MAX,
        }
    }

    /// Why these bytes can't be the next request, or the beginning of it.
    pub(super) fn fault_of(&self, held: &[u8]) -> Option<RequestFault> {
        if held.is_empty() || held.starts_with(&EMPTY_LINE[..held.len().min(2)]) {
            return None;
        }
        match head::find_end(held, &self.limits, &mut Search::default()) {
            Ok(Some(length)) => head::judge(&held[..length], &self.limits, |_, _| {}).err(),
            Ok(None) => None,
            Err(fault) => Some(fault),
        }
    }
}
