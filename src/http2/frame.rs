//! Frames of HTTP/2, as bytes (RFC 9113 §4.1, §6).

use bytes::Bytes;

pub(super) const HEAD_LENGTH: usize = 9;
/// Payload of a frame; Callgate's settings don't allow more.
pub(super) const MAX_PAYLOAD: usize = 16_384;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 0x1;
pub(super) const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const WITH_PRIORITY: u8 = 0x20;

/// The head of a frame.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Head {
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let [a, b, c, kind, flags, stream @ ..] = *bytes.first_chunk::<HEAD_LENGTH>()?;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        Some(Self { length, kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1) })
    }

    pub(super) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.length as u32).to_be_bytes()[1..]);
        out.extend_from_slice(&[self.kind, self.flags]);
        out.extend_from_slice(&self.stream.to_be_bytes());
    }
}

/// The part of a block in a HEADERS frame, and whether its stream depends on itself; `None` when the padding or the priority is longer
/// than the frame (RFC 9113 §6.2: an error of the connection).
pub(super) fn first_fragment(head: Head, mut payload: &[u8]) -> Option<(&[u8], bool)> {
    let mut padding = 0;
    if head.flags & PADDED != 0 {
        let (length, rest) = payload.split_first()?;
        (padding, payload) = (usize::from(*length), rest);
    }
    let mut depends_on_itself = false;
    if head.flags & WITH_PRIORITY != 0 {
        let (priority, rest) = payload.split_first_chunk::<5>()?;
        let [a, b, c, d, _weight] = *priority;
        depends_on_itself = u32::from_be_bytes([a & 0x7f, b, c, d]) == head.stream;
        payload = rest;
    }
    let fragment = payload.get(..payload.len().checked_sub(padding)?)?;
    Some((fragment, depends_on_itself))
}

/// A block of fields in frames of its own, without padding and priority.
pub(super) fn frames_of_block(head: Head, block: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(block.len() + HEAD_LENGTH);
    let mut fragments = block.chunks(MAX_PAYLOAD).peekable();
    let (mut kind, mut flags) = (HEADERS, head.flags & END_STREAM);
    while let Some(fragment) = fragments.next() {
        if fragments.peek().is_none() {
            flags |= END_HEADERS;
        }
        Head { length: fragment.len(), kind, flags, stream: head.stream }.write(&mut out);
        out.extend_from_slice(fragment);
        (kind, flags) = (CONTINUATION, 0);
    }
    out.into()
}
