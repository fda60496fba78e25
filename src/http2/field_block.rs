//! The fields of HTTP/2 messages, read before h2 reads them (RFC 7541).
//!
//! h2 takes a field that it can't represent for an error of the connection; it is one of the message (RFC 9113 §8.1.1). So such a field
//! is replaced by one that h2 can represent and that takes the same room in the table of fields, and the message gets a field for which
//! h2 resets its stream. The table here follows h2's and remembers what was replaced.

use std::collections::VecDeque;

use super::huffman;

/// Bytes of the table, unless announced otherwise, which h2 does not here.
const TABLE_SIZE: usize = 4096;
/// What an entry takes beside its name and value (RFC 7541 §4.1).
const ENTRY_OVERHEAD: usize = 32;
/// A field that no message may have (RFC 9113 §8.2.2), as a literal that no table keeps.
pub(super) const FORBIDDEN_FIELD: &[u8] = b"\x00\x0aconnection\x01x";

/// The lengths of the names in the static table (RFC 7541 Appendix A), from index 15 on.
const STATIC_NAMES: [u8; 47] = [
    14, 15, 15, 13, 6, 27, 3, 5, 13, 13, 19, 16, 16, 14, 16, 13, 12, 6, 4, 4, 6, 7, 4, 4, 8, 17, 13, 8, 19, 13, 4, 8,
    12, 18, 19, 5, 7, 7, 11, 6, 10, 25, 17, 10, 4, 3, 16,
];

/// A block can't be read: an error of the connection, which h2 is left to find.
#[derive(Debug, PartialEq)]
pub(super) struct Undecodable;

#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// h2 can represent all of it.
    Sound,
    /// What h2 is to be given in its place.
    Malformed(Vec<u8>),
}

/// What h2 expects of a value.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Field,
    Status,
    Method,
    /// `:path`, `:authority`, `:scheme`, `:protocol`.
    Text,
}

/// What of an entry h2 has not as it was sent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Replaced {
    Nothing,
    Value,
    NameAndValue,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    kind: Kind,
    name: usize,
    value: usize,
    replaced: Replaced,
    /// Whether it is the status of an interim answer (1xx).
    is_interim: bool,
}

impl Entry {
    fn size(&self) -> usize {
        self.name + self.value + ENTRY_OVERHEAD
    }
}

/// Reads the header blocks of one connection, in order.
#[derive(Debug)]
pub(super) struct FieldBlocks {
    /// The newest first.
    entries: VecDeque<Entry>,
    size: usize,
    max_size: usize,
    /// Whether the last block is the head of an interim answer (1xx).
    pub(super) is_interim: bool,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl Default for FieldBlocks {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            size: 0,
            max_size: TABLE_SIZE,
            is_interim: false,
            name: Vec::new(),
            value: Vec::new(),
        }
    }
}

impl FieldBlocks {
    /// Judges a whole block.
    ///
    /// # Errors
    /// When it is not HPACK. No later block can be read then.
    pub(super) fn check(&mut self, block: &[u8]) -> Result<Verdict, Undecodable> {
        let mut reader = Reader { block, at: 0 };
        self.is_interim = false;
        let mut replacement = None;
        while let Some(first) = block.get(reader.at) {
            let start = reader.at;
            let stand_in = match first {
                0x80.. => {
                    let entry = self.entry(reader.integer(7)?)?;
                    self.is_interim |= entry.is_interim;
                    (entry.replaced != Replaced::Nothing).then(|| block[start..reader.at].to_vec())
                }
                0x20..0x40 => {
                    self.resize(reader.integer(5)?)?;
                    None
                }
                0x40.. => self.literal(&mut reader, 6)?,
                0x00.. => self.literal(&mut reader, 4)?,
            };
            match (&mut replacement, stand_in) {
                (None, None) => {}
                (Some(replacement), None) => Vec::extend_from_slice(replacement, &block[start..reader.at]),
                (found, Some(stand_in)) => {
                    found.get_or_insert_with(|| block[..start].to_vec()).extend_from_slice(&stand_in);
                }
            }
        }
        Ok(replacement.map_or(Verdict::Sound, |mut block| {
            block.extend_from_slice(FORBIDDEN_FIELD);
            Verdict::Malformed(block)
        }))
    }

    /// Reads a literal, and keeps it if its prefix of 6 bits says so; returns what to put in its place if its message is malformed.
    fn literal(&mut self, reader: &mut Reader<'_>, prefix: u32) -> Result<Option<Vec<u8>>, Undecodable> {
        let start = reader.at;
        let index = reader.integer(prefix)?;
        let (kind, name, name_replaced) = if index == 0 {
            self.name.clear();
            reader.string(&mut self.name)?;
            (kind_of(&self.name), self.name.len(), false)
        } else {
            let entry = self.entry(index)?;
            (Some(entry.kind), entry.name, entry.replaced == Replaced::NameAndValue)
        };
        let value_start = reader.at;
        self.value.clear();
        reader.string(&mut self.value)?;
        let value = self.value.len();
        let is_valid = kind.is_some_and(|kind| is_value(kind, &self.value));
        let is_interim = kind == Some(Kind::Status) && self.value.starts_with(b"1");
        self.is_interim |= is_interim;
        let kind_or_field = kind.unwrap_or(Kind::Field);
        let mut entry = Entry { kind: kind_or_field, name, value, replaced: Replaced::Nothing, is_interim };
        let stand_in = match kind {
            _ if is_valid && !name_replaced => None,
            _ if is_valid => {
                entry.replaced = Replaced::NameAndValue;
                Some(reader.block[start..reader.at].to_vec())
            }
            Some(Kind::Field) => {
                entry.replaced = if name_replaced { Replaced::NameAndValue } else { Replaced::Value };
                let mut stand_in = reader.block[start..value_start].to_vec();
                write_filler(&mut stand_in, value);
                Some(stand_in)
            }
            Some(_) | None => {
                // A name can't be empty: one byte of the value makes it.
                let taken = usize::from(name == 0);
                let value = value.checked_sub(taken).ok_or(Undecodable)?;
                entry.replaced = Replaced::NameAndValue;
                let mut stand_in = vec![if prefix == 6 { 0x40 } else { 0 }];
                write_filler(&mut stand_in, name + taken);
                write_filler(&mut stand_in, value);
                Some(stand_in)
            }
        };
        if prefix == 6 {
            self.insert(entry);
        }
        Ok(stand_in)
    }

    fn entry(&self, index: usize) -> Result<Entry, Undecodable> {
        let entry =
            |kind, name: usize| Ok(Entry { kind, name, value: 0, replaced: Replaced::Nothing, is_interim: false });
        match index {
            0 => Err(Undecodable),
            1 => entry(Kind::Text, ":authority".len()),
            2 | 3 => entry(Kind::Method, ":method".len()),
            4 | 5 => entry(Kind::Text, ":path".len()),
            6 | 7 => entry(Kind::Text, ":scheme".len()),
            8..15 => entry(Kind::Status, ":status".len()),
            15..62 => entry(Kind::Field, STATIC_NAMES[index - 15].into()),
            62.. => self.entries.get(index - 62).copied().ok_or(Undecodable),
        }
    }

    fn insert(&mut self, entry: Entry) {
        self.size += entry.size();
        self.entries.push_front(entry);
        self.evict();
    }

    fn resize(&mut self, max_size: usize) -> Result<(), Undecodable> {
        if max_size > TABLE_SIZE {
            return Err(Undecodable);
        }
        self.max_size = max_size;
        self.evict();
        Ok(())
    }

    fn evict(&mut self) {
        while self.size > self.max_size
            && let Some(oldest) = self.entries.pop_back()
        {
            self.size -= oldest.size();
        }
    }
}

struct Reader<'a> {
    block: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, Undecodable> {
        let byte = self.block.get(self.at).copied().ok_or(Undecodable)?;
        self.at += 1;
        Ok(byte)
    }

    /// An integer of at most five bytes, as h2 reads it (RFC 7541 §5.1).
    fn integer(&mut self, prefix: u32) -> Result<usize, Undecodable> {
        let mask = (1 << prefix) - 1;
        let mut value = usize::from(self.byte()? & mask);
        if value < usize::from(mask) {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Undecodable)
    }

    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), Undecodable> {
        let is_coded = self.block.get(self.at).is_some_and(|byte| byte & 0x80 != 0);
        let length = self.integer(7)?;
        let string = self.block.get(self.at..).and_then(|rest| rest.get(..length)).ok_or(Undecodable)?;
        self.at += length;
        if !is_coded {
            out.extend_from_slice(string);
        } else if !huffman::decode(string, out) {
            return Err(Undecodable);
        }
        Ok(())
    }
}

/// What h2 makes of a name; `None` for one that it refuses.
fn kind_of(name: &[u8]) -> Option<Kind> {
    match name {
        b":status" => Some(Kind::Status),
        b":method" => Some(Kind::Method),
        b":authority" | b":path" | b":scheme" | b":protocol" => Some(Kind::Text),
        // RFC 9113 §8.2: no capital letters.
        [_, ..] if name.iter().all(|byte| is_token(*byte) && !byte.is_ascii_uppercase()) => Some(Kind::Field),
        _ => None,
    }
}

fn is_value(kind: Kind, value: &[u8]) -> bool {
    match kind {
        Kind::Field => value.iter().all(|byte| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f)),
        Kind::Status => matches!(value, [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9']),
        Kind::Method => !value.is_empty() && value.iter().all(|byte| is_token(*byte)),
        Kind::Text => value.is_ascii() || std::str::from_utf8(value).is_ok(),
    }
}

/// A character of RFC 9110's tokens.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A string of `length` bytes that is valid as a name and as a value.
fn write_filler(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short @ 0..0x7f) => out.push(short),
        _ => {
            out.push(0x7f);
            let mut rest = length - 0x7f;
            while rest >= 0x80 {
                out.push((rest & 0x7f) as u8 | 0x80);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
    }
    out.resize(out.len() + length, b'x');
}
